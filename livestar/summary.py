"""What a checkpoint is, and what fits into a memory: the table behind `livestar model-info`."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch
from rich.table import Table
from rich.text import Text

from livestar.config import GateConfig, GateName, RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.admission import plan_stream
from livestar.model.adapter import base_directory, open_adapter
from livestar.model.config import InternViTConfig
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import open_checkpoint
from livestar.view import printable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from livestar.model.config import VisionConfig

GIB = 2**30


def summarise(directory: Path, *, memory_gib: float, kv_tokens: int | None) -> Table:
    """Sizes, token counts, KV bytes per token, and how many streams of `kv_tokens` fit into `memory_gib` beside the weights.

    `kv_tokens` None is what watching takes: the model's own, or 8192.  Captions are of the model's own length.
    Reads headers, no weights.  Raises `InvalidCheckpoint` and `InvalidConfig` as loading and watching would.
    """
    model, shards, num_bytes = open_checkpoint(directory)
    config = model.config
    vision, language = config.vision, config.language
    tokenizer = load_tokenizer(directory, language.vocab_size)
    num_weights = _count(model)

    table = Table(title=Text(printable(str(directory))), show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("weights", f"{num_weights:,} in {len(shards)} {'file' if len(shards) == 1 else 'files'}, {_size(num_bytes)}")
    adapter = open_adapter(directory, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    if adapter is not None:
        changes = f"{len(adapter.low_rank)} weights changed and {len(adapter.replaced)} tensors replaced"
        table.add_row("adapter", Text(printable(f"{changes}, over {base_directory(directory).resolve()}")))
    table.add_row(
        "vision tower",
        f"{_count(model.vision_model):,} weights: {_tower(vision)}",
    )
    table.add_row("projector", f"{_count(model.mlp1):,} weights")
    table.add_row(
        "language model",
        f"{_count(model.language_model):,} weights: {language.num_layers} layers of {language.hidden_size}, "
        f"{language.num_heads} heads over {language.num_kv_heads} KV heads, {language.max_position_embeddings:,} positions",
    )
    table.add_row("vocabulary", f"{language.vocab_size:,} ({tokenizer.size:,} in the tokenizer)")
    table.add_row("tokens of a picture", str(config.num_visual_tokens))
    sampling = SamplingConfig() if config.max_new_tokens is None else SamplingConfig(max_new_tokens=config.max_new_tokens)
    for gate in get_args(GateName):
        plan = plan_stream(config, tokenizer, StreamConfig(gate=GateConfig(name=gate), sampling=sampling))
        line = plan.prompt.frame_line(1, 0)
        table.add_row(
            f"tokens, {gate} gate",
            f"opening {len(plan.opening)}, a frame adds {len(plan.layout.frame(line, is_first=False))}",
        )
    retention = RetentionConfig(kv_tokens=kv_tokens)
    capacity = plan_stream(config, tokenizer, StreamConfig(retention=retention, sampling=sampling)).capacity
    for dtype in (torch.bfloat16, torch.float32):
        table.add_row(
            f"in {str(dtype).removeprefix('torch.')}", _fit(num_weights, config.kv_values_per_token, capacity, dtype, memory_gib)
        )
    for key, value in config.watch.items():
        table.add_row(Text(printable(f"its own {key}")), Text(printable(str(value))))
    return table


def _fit(num_weights: int, kv_values: int, capacity: int, dtype: torch.dtype, memory_gib: float) -> str:
    """KV bytes, and what fits: weights, then as many streams as the rest holds; working memory is not counted."""
    weights = num_weights * dtype.itemsize
    per_token = kv_values * dtype.itemsize
    per_stream = per_token * capacity
    num_streams = max(0, int((memory_gib * GIB - weights) // per_stream))
    return (
        f"weights {_size(weights)}, KV {per_token:,} bytes per token, {_size(per_stream)} per stream of {capacity:,} tokens "
        f"with forks: {num_streams:,} streams in {memory_gib:g} GiB"
    )


def _tower(vision: VisionConfig) -> str:
    pictures = f"pictures of {vision.image_size} x {vision.image_size}"
    if isinstance(vision, InternViTConfig):
        layers = f"{vision.num_layers} layers of {vision.hidden_size}, {vision.num_heads} heads"
        return f"{layers}, {pictures} in patches of {vision.patch_size}"
    return f"EfficientNet-Lite, {vision.variant}, {pictures} to a map of {vision.grid} x {vision.grid} x {vision.hidden_size}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.1f} MiB"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
