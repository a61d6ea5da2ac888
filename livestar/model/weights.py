"""Reading and writing checkpoints in the released LiveStar-8B file format: sharded safetensors and an index."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from livestar.errors import InvalidCheckpoint, InvalidConfig
from livestar.model.adapter import base_directory, open_adapter
from livestar.model.config import load_config
from livestar.model.livestar import LiveStarModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
FLOAT_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
"""Number formats that weights may be stored in, by safetensors' names, and their sizes."""
MAX_SHARD_BYTES = 5 * 2**30
"""Largest shard written, in bytes; the released checkpoint's are of this size."""


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> LiveStarModel:
    """Loads a checkpoint directory, ready for inference.

    Everything is checked against the file headers before any weight is read.  Tensors then go one by one to their final
    dtype and device, so host memory peaks at the model plus at most one shard.  `dtype` None takes that of the first tensor.
    An adapter is merged into its base (see `livestar.model.adapter`).  `on_progress` is called with bytes read and bytes in all.
    Raises `InvalidCheckpoint`, which names the tensor and file.
    """
    directory = Path(directory)
    model, shards, total = open_checkpoint(directory)
    adapter = open_adapter(directory, _shapes(model))
    base = base_directory(directory)
    num_read = 0
    for file, names in shards.items():
        with safe_open(base / file, framework="pt", device="cpu") as shard:
            for name in names:
                tensor = shard.get_tensor(name)
                num_read += tensor.nbytes
                dtype = dtype or tensor.dtype
                if adapter is not None:
                    tensor = adapter.apply(name, tensor)
                model.load_state_dict({name: tensor.to(device, dtype)}, strict=False, assign=True)
                if on_progress is not None:
                    on_progress(num_read, total)
    return model.eval().requires_grad_(False)


def open_checkpoint(directory: Path) -> tuple[LiveStarModel, dict[str, list[str]], int]:
    """The model without its weights (on torch's `meta` device), which file holds which tensors, and their bytes in all.

    Reads config.json and the file headers only, and checks them against each other.  Files and bytes of an adapter are its
    base's.  Raises `InvalidCheckpoint`.
    """
    with torch.device("meta"):
        model = LiveStarModel(load_config(directory))
    base = base_directory(directory)
    shards = _shards(base)
    total = _check_headers(base, shards, _shapes(model))
    open_adapter(directory, _shapes(model))
    return model, shards, total


def _shapes(model: LiveStarModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def save_model(
    model: LiveStarModel, directory: Path, *, dtype: torch.dtype | None = None, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes weights and config.json in the released format; the tokenizer's files are the caller's to copy.

    `dtype` is the number format to store, None that of the weights.  Raises `InvalidConfig` where a weight does not fit it.
    """
    directory = Path(directory)
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in sorted(model.state_dict().items())}
    directory.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file, metadata={"format": "pt"})
        (directory / file).chmod(0o644)  # the library makes files that only their owner can read
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX_NAME).write_text(json.dumps(index, indent=1))
    (directory / "config.json").write_text(json.dumps(model.config.raw, indent=2, ensure_ascii=False))


def _stored(name: str, tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    stored = tensor.to(dtype or tensor.dtype).contiguous()
    if stored.dtype != tensor.dtype and tensor.isfinite().all() and not stored.isfinite().all():
        raise InvalidConfig(f"dtype is {dtype}, whose range {name} exceeds; choose bfloat16 or float32")
    return stored


def _shards(directory: Path) -> dict[str, list[str]]:
    """Which file holds which tensors, by the index or, without one, by the single file's header."""
    index = directory / INDEX_NAME
    if not index.exists():
        if not (directory / SINGLE_NAME).exists():
            raise InvalidCheckpoint(f"{directory} has neither {INDEX_NAME} nor {SINGLE_NAME}; the weights are missing")
        with _open(directory / SINGLE_NAME) as shard:
            return {SINGLE_NAME: list(shard.keys())}
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, list[str]] = {}
        for name, file in weight_map.items():
            shards.setdefault(_plain_name(index, file), []).append(name)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InvalidCheckpoint(f"{index} cannot be read: {error}; copy it again from the checkpoint's source") from error
    return shards


def _plain_name(index: Path, file: str) -> str:
    if Path(file).name != file:
        raise InvalidCheckpoint(f"{index} names {file!r}; shards must lie beside the index")
    return file


def _open(path: Path) -> safe_open:
    try:
        with path.open("rb"):  # NOTE: safe_open calls every file that it may not read missing
            pass
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError:
        raise InvalidCheckpoint(
            f"shard {path.name} is missing from {path.parent}; copy it from the checkpoint's source"
        ) from None
    except OSError as error:
        raise InvalidCheckpoint(f"shard {path} cannot be read ({error.strerror}); check its permissions") from error
    except SafetensorError as error:
        raise InvalidCheckpoint(f"shard {path} is damaged ({error}); copy it again from the checkpoint's source") from error


def _check_headers(directory: Path, shards: Mapping[str, list[str]], expected: Mapping[str, tuple[int, ...]]) -> int:
    """Refuses missing, extra and misshapen tensors by the headers alone; returns the bytes to read."""
    found = {name: file for file, names in shards.items() for name in names}
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing or extra:
        what = [f"{len(names)} {kind} (first: {names[0]})" for kind, names in (("missing", missing), ("extra", extra)) if names]
        raise InvalidCheckpoint(f"{directory} does not hold the tensors that its config.json asks for: {', '.join(what)}")
    total = 0
    for file, names in shards.items():
        with _open(directory / file) as shard:
            stored = set(shard.keys())
            unlisted = sorted(stored - set(names))
            if unlisted:
                raise InvalidCheckpoint(f"{directory / file} holds {unlisted[0]}, which {INDEX_NAME} does not list there")
            for name in names:
                if name not in stored:
                    raise InvalidCheckpoint(f"tensor {name} is not in {directory / file}, where {INDEX_NAME} says it is")
                shape = tuple(shard.get_slice(name).get_shape())
                if shape != expected[name]:
                    raise InvalidCheckpoint(
                        f"tensor {name} in {directory / file} has shape {list(shape)}; "
                        f"config.json asks for {list(expected[name])}"
                    )
                kind = shard.get_slice(name).get_dtype()
                if kind not in FLOAT_BYTES:
                    raise InvalidCheckpoint(
                        f"tensor {name} in {directory / file} is {kind}; only {', '.join(FLOAT_BYTES)} can be loaded"
                    )
                total += FLOAT_BYTES[kind] * math.prod(shape)
    return total
