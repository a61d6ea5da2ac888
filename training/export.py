"""The finished model in the serving format."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from livestar.engine.admission import DEFAULT_GATE
from livestar.errors import InvalidConfig, LiveStarError
from livestar.gate.layout import LeafLayout, ScamLayout
from livestar.model.adapter import ADAPTER_CONFIG, base_directory, beside_or_base
from livestar.model.mini import MINI_NAME, mini_directory
from livestar.model.tokenizer import TOKENIZER_FILES
from livestar.model.weights import load_model, open_checkpoint, save_model
from training.checkpoint import reason
from training.lora import save_adapter
from training.sequence import GATE_OF_LAYOUT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from livestar.model.livestar import LiveStarModel
    from training.config import TrainConfig

ADAPTER = "adapter"
"""Folder beside a merged model that keeps the adapter itself."""
KEEPS_BY_DEFAULT = {"scam": ScamLayout.keeps_captions_by_default, "leaf": LeafLayout.keeps_captions_by_default}
"""Whether a gate keeps captions where a model's config does not say."""


def export(model: LiveStarModel, config: TrainConfig, base: Path, target: Path) -> None:
    """Writes the model to the new folder `target`, to be watched with as it was trained.

    `model` holds the weights of `base` and what was trained.  With LoRA the adapter is written, and merged if the config says
    so.  Raises `InvalidConfig` for weights beyond the range of the number format, `LiveStarError` where the disk is full;
    nothing is left then.
    """
    shutil.rmtree(target, ignore_errors=True)
    try:
        if config.lora.rank and not config.lora.merge:
            write_adapter(model, config, base, target)
        else:
            if config.lora.rank:
                adapter = target.with_name(ADAPTER)
                write_adapter(model, config, base, adapter)
                model = load_model(adapter, dtype=torch.float32)
            with_watching(model, config)
            dtype = stored_dtype(base) if config.run.dtype == "auto" else getattr(torch, config.run.dtype)
            try:
                save_model(model, target, dtype=dtype)
            except InvalidConfig as error:
                raise InvalidConfig(
                    f"{error}; give the same command again with --set run.dtype=bfloat16: the checkpoints are kept"
                ) from error
            for name in TOKENIZER_FILES:
                source = beside_or_base(base, name) / name
                if source.exists():
                    shutil.copyfile(source, target / name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise LiveStarError(
            f"the model cannot be written to {target.parent} ({reason(error)}); make room there and give the same command again"
        ) from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def write_adapter(model: LiveStarModel, config: TrainConfig, base: Path, target: Path) -> None:
    """Writes the adapters in peft's format, with a config.json that says how to watch with them."""
    save_adapter(model, config.lora, target, base=base_name(base))
    with_watching(model, config)
    (target / "config.json").write_text(json.dumps(model.config.raw, indent=2, ensure_ascii=False), encoding="utf-8")


def with_watching(model: LiveStarModel, config: TrainConfig) -> None:
    """Writes into the model's config how to watch with it: the gate that it was trained for."""
    watch = watching(model.config.watch, config)
    model.config = replace(model.config, watch=watch, raw={**model.config.raw, "livestar": watch})


def watching(before: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """How to watch with what was trained, from how its base is watched with.

    The base's threshold stays where it was set for this gate, and is taken out where another one is trained.
    """
    gate, keep_captions = GATE_OF_LAYOUT[config.scam.layout], config.scam.visibility != "leaf"
    kept = before.get("keep_captions")
    is_same = (before.get("gate") or DEFAULT_GATE) == gate and (KEEPS_BY_DEFAULT[gate] if kept is None else kept) == keep_captions
    watch = {key: value for key, value in before.items() if key != "note" and (is_same or key != "threshold")}
    watch |= {"gate": gate, "keep_captions": keep_captions}
    if config.data.fps is not None:
        watch["fps"] = config.data.fps
    return watch


def publish(partial: Path, target: Path) -> None:
    """Gives a written model its name, with all of it on disk before."""
    for path in [*partial.iterdir(), partial]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def stored_dtype(directory: Path) -> torch.dtype:
    """The number format that a checkpoint's language model is stored in."""
    _, shards, _ = open_checkpoint(directory)
    folder = base_directory(directory)
    name = "language_model.output.weight"
    file = next(file for file, names in shards.items() if name in names)
    with safe_open(folder / file, framework="pt", device="cpu") as shard:
        dtype: torch.dtype = shard.get_slice(name)[:1].dtype
        return dtype


def refuse_adapter(directory: Path) -> None:
    """Raises `InvalidConfig` for a base that is an adapter itself, which another one cannot name as its base."""
    if (directory / ADAPTER_CONFIG).exists():
        raise InvalidConfig(
            f"model.base {str(directory)!r} is an adapter itself; train it in full (lora.rank 0), which merges it, or begin with "
            "its base"
        )


def base_name(directory: Path) -> str:
    """What an adapter calls its base: a path, or the name of the packaged model, which lies elsewhere on another machine."""
    try:
        return MINI_NAME if directory.resolve() == mini_directory().resolve() else str(directory.resolve())
    except InvalidConfig:  # there is no packaged model
        return str(directory.resolve())
