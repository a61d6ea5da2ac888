"""The finished model in the serving format."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from livestar.errors import InvalidConfig
from livestar.model.adapter import ADAPTER_CONFIG, base_directory, beside_or_base
from livestar.model.mini import MINI_NAME, mini_directory
from livestar.model.tokenizer import TOKENIZER_FILES
from livestar.model.weights import load_model, open_checkpoint, save_model
from training.lora import save_adapter
from training.sequence import GATE_OF_LAYOUT

if TYPE_CHECKING:
    from pathlib import Path

    from livestar.model.livestar import LiveStarModel
    from training.config import TrainConfig

PARTIAL = ".partial"


def export(model: LiveStarModel, config: TrainConfig, base: Path, target: Path, *, dtype: torch.dtype | None = None) -> Path:
    """Writes the model to `target`, whole or not at all, to be watched with as it was trained.

    `model` holds the weights of `base` and what was trained.  With LoRA the adapter is written, and merged if the config says
    so.  `dtype` None keeps the number format of the base's weights.  Returns `target`.
    """
    partial = target.with_name(target.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if config.lora.rank and not config.lora.merge:
            save_adapter(model, config.lora, partial, base=base_name(base))
        else:
            if config.lora.rank:
                adapter = target.with_name("adapter")
                save_adapter(model, config.lora, adapter, base=base_name(base))
                model = load_model(adapter, dtype=torch.float32)
            with_watching(model, config)
            save_model(model, partial, dtype=dtype or stored_dtype(base))
            for name in TOKENIZER_FILES:
                source = beside_or_base(base, name) / name
                if source.exists():
                    shutil.copyfile(source, partial / name)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def with_watching(model: LiveStarModel, config: TrainConfig) -> None:
    """Writes into the model's config how to watch with it: the gate that it was trained for.

    A threshold that was set for another gate, or before the weights changed, is taken out.
    """
    watch = {key: value for key, value in model.config.watch.items() if key not in ("threshold", "note")}
    watch |= {"gate": GATE_OF_LAYOUT[config.scam.layout], "keep_captions": config.scam.visibility != "leaf"}
    if config.data.fps is not None:
        watch["fps"] = config.data.fps
    model.config = replace(model.config, watch=watch, raw={**model.config.raw, "livestar": watch})


def stored_dtype(directory: Path) -> torch.dtype:
    """The number format that a checkpoint's language model is stored in."""
    _, shards, _ = open_checkpoint(directory)
    folder = base_directory(directory)
    name = "language_model.output.weight"
    file = next(file for file, names in shards.items() if name in names)
    with safe_open(folder / file, framework="pt", device="cpu") as shard:
        dtype: torch.dtype = shard.get_slice(name)[:1].dtype
        return dtype


def base_name(directory: Path) -> str:
    """What an adapter calls its base: a path, or the name of the packaged model, which lies elsewhere on another machine."""
    if (directory / ADAPTER_CONFIG).exists():
        raise InvalidConfig(f"model.base {str(directory)!r} is an adapter itself; set lora.merge to true, or train from its base")
    try:
        return MINI_NAME if directory.resolve() == mini_directory().resolve() else str(directory.resolve())
    except InvalidConfig:  # there is no packaged model
        return str(directory.resolve())
