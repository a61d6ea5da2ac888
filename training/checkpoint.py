"""Checkpoints of a run: atomic, without pickle, enough to go on as if nothing had happened.

A checkpoint is a folder with `state.safetensors` (what is trained, and the optimiser's moments, whole even where the model is
sharded) and `state.json` (where the run was, and a checksum).  It is written under another name, forced to disk, and renamed,
so a folder with a checkpoint's name is whole.  Workers of any number can go on from it: each reads its own rows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from livestar.errors import LiveStarError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

PATTERN = re.compile(r"step-(\d{8})")
TENSORS, STATE = "state.safetensors", "state.json"
PARTIAL = ".partial"
WEIGHTS, MOMENTS = "model.", "optimizer."
"""What the names of a checkpoint's tensors begin with."""
REPLICA = "module."
"""What DDP puts before all names."""
READ_BYTES = 2**22


class CheckpointFailed(LiveStarError):
    """A checkpoint could not be written or read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is."""

    step: int = 0
    """Optimiser steps done."""
    epoch: int = 0
    batch: int = 0
    """Batches of that epoch that are done, by all workers together."""
    num_steps: int = 0
    """Steps that the schedule was made for; 0 where that is not settled."""
    best_loss: float | None = None
    """Lowest held-out loss so far."""
    best_step: int = 0
    num_worse: int = 0
    """Measurements since then."""


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, *, rank: int = 0
) -> None:
    """Writes `folder`/step-<step>.  Called by every worker, since a sharded model is put together by all; rank 0 writes.

    Raises `CheckpointFailed`; what was half written is removed, and older checkpoints stay.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained_parameters(model):
        parts = {WEIGHTS + name: parameter.detach()}
        parts |= {f"{MOMENTS}{name}.{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
        for key, value in parts.items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if rank == 0:
                tensors[key] = whole.cpu()
    if rank == 0:
        write_folder(folder / f"step-{progress.step:08d}", tensors, {"progress": asdict(progress)})


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """What is trained, by names that do not depend on how the model is spread over workers."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name.removeprefix(REPLICA), parameter


def write_folder(target: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes one checkpoint's folder, whole or not at all."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial / TENSORS)
        (partial / STATE).write_text(json.dumps(state | {"crc32": _checksum(partial / TENSORS)}))
        for path in (partial / TENSORS, partial / STATE, partial):
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _sync(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointFailed(
            f"checkpoint {target} cannot be written ({reason(error)}); make room there and give the same command again to go on"
        ) from error


def reason(error: Exception) -> str:
    """What an error of the disk says, without its number and path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return re.sub(r"^(Error while serializing: )?(I/O error: )?|( \(os error \d+\))$", "", str(error))


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _checksum(path: Path) -> str:
    checksum = 0
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            checksum = zlib.crc32(data, checksum)
    return f"{checksum:08x}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first; without those that were never finished."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if PATTERN.fullmatch(path.name))


def step_of(path: Path) -> int:
    """The step behind which a checkpoint was written."""
    match = PATTERN.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def prune(folder: Path, keep: set[int]) -> None:
    """Removes what was half written, and all checkpoints but those of the steps in `keep`."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        match = PATTERN.fullmatch(path.name.removesuffix(PARTIAL))
        if match and (path.name.endswith(PARTIAL) or int(match[1]) not in keep):
            shutil.rmtree(path, ignore_errors=True)


def read_progress(path: Path) -> Progress:
    """Where the run of a checkpoint was.  Raises `CheckpointFailed`."""
    try:
        progress = Progress(**_read_state(path)["progress"])
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"{STATE} lacks {error}") from error
    for name, value in asdict(progress).items():
        is_loss = name == "best_loss" and (value is None or type(value) in (int, float))
        if not is_loss and (type(value) is not int or value < 0):
            raise _damaged(path, f"{STATE} says {name} is {value!r}")
    if progress.step != step_of(path):
        raise _damaged(path, f"{STATE} is of step {progress.step}")
    return progress


def check_checkpoint(path: Path) -> Progress:
    """Reads all of a checkpoint and compares its checksum.  Raises `CheckpointFailed`."""
    progress, expected = read_progress(path), _read_state(path).get("crc32")
    try:
        if expected is not None and _checksum(path / TENSORS) != expected:
            raise _damaged(path, f"{TENSORS} is not what was written")
        with safe_open(path / TENSORS, framework="pt", device="cpu"):
            return progress
    except (OSError, SafetensorError) as error:
        raise _damaged(path, reason(error)) from error


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Progress:
    """Puts a checkpoint's weights, and its optimiser unless that is None, back in place.  Raises `CheckpointFailed`."""
    progress = read_progress(path)
    try:
        with safe_open(path / TENSORS, framework="pt", device="cpu") as file:
            names = set(file.keys())
            for name, parameter in trained_parameters(model):
                if WEIGHTS + name not in names or file.get_slice(WEIGHTS + name).get_shape() != list(parameter.shape):
                    raise _damaged(path, f"it does not hold what is trained here, {name} for one")
                with torch.no_grad():
                    parameter.copy_(_like(parameter, file.get_tensor(WEIGHTS + name)))
                if optimizer is None:
                    continue
                prefix = f"{MOMENTS}{name}."
                for key in sorted(key for key in names if key.startswith(prefix)):
                    value = file.get_tensor(key)
                    is_moment = value.shape == parameter.shape and value.dim() > 0
                    optimizer.state[parameter][key.removeprefix(prefix)] = _like(parameter, value) if is_moment else value
    except (OSError, SafetensorError) as error:
        raise _damaged(path, reason(error)) from error
    return progress


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` where `parameter` is, and sharded as it is."""
    moved = value.to(parameter.device, parameter.dtype)
    if isinstance(parameter, DTensor):
        return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return moved


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, reason(error)) from error
    if not isinstance(state, dict):
        raise _damaged(path, f"{STATE} is not an object")
    return state


def _damaged(path: Path, why: str) -> CheckpointFailed:
    return CheckpointFailed(f"checkpoint {path} cannot be read ({why}); delete its folder to go on from an older one")
