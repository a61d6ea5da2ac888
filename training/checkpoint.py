"""Checkpoints of a run: atomic, without pickle, enough to go on as if nothing had happened.

A checkpoint is a folder with `state.safetensors` (trained weights and optimiser) and `state.json` (where the run was).  It is
written under another name, forced to disk, and renamed, so a folder with a checkpoint's name is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from livestar.errors import LiveStarError

if TYPE_CHECKING:
    from torch import Tensor, nn

PATTERN = re.compile(r"step-(\d{8})")
TENSORS, STATE = "state.safetensors", "state.json"
PARTIAL = ".partial"


class CheckpointFailed(LiveStarError):
    """A checkpoint could not be written or read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is."""

    step: int = 0
    """Optimiser steps done."""
    epoch: int = 0
    batch: int = 0
    """Batches of that epoch that are done."""
    num_steps: int = 0
    """Steps that the schedule was made for."""
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
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights, state = get_state_dict(model, optimizer, options=options)
    if rank != 0:
        return
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    for name, values in state["state"].items():
        tensors |= {f"optimizer.{name}.{key}": torch.as_tensor(value) for key, value in values.items()}
    written = {"progress": asdict(progress), "param_groups": state["param_groups"]}
    write_folder(folder / f"step-{progress.step:08d}", tensors, written)


def write_folder(target: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes one checkpoint's folder, whole or not at all."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial / TENSORS)
        (partial / STATE).write_text(json.dumps(state))
        for path in (partial / TENSORS, partial / STATE, partial):
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _sync(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointFailed(f"checkpoint {target} cannot be written ({error}); free some space and start again") from error


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if PATTERN.fullmatch(path.name) and (path / STATE).is_file())


def prune(folder: Path, keep: set[int]) -> None:
    """Removes what was half written, and all checkpoints but those of the steps in `keep`."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        match = PATTERN.fullmatch(path.name.removesuffix(PARTIAL))
        if match and (path.name.endswith(PARTIAL) or int(match[1]) not in keep):
            shutil.rmtree(path, ignore_errors=True)


def read_progress(path: Path) -> Progress:
    """Where the run of a checkpoint was.  Raises `CheckpointFailed`."""
    return Progress(**_read_state(path)["progress"])


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Progress:
    """Puts a checkpoint's weights, and its optimiser unless that is None, back in place.  Raises `CheckpointFailed`."""
    state = _read_state(path)
    try:
        with safe_open(path / TENSORS, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointFailed(
            f"checkpoint {path} cannot be read ({error}); delete its folder to go on from an older one"
        ) from error
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            parameter, _, key = name.removeprefix("optimizer.").rpartition(".")
            moments.setdefault(parameter, {})[key] = value
    options = StateDictOptions(full_state_dict=True, strict=False, ignore_frozen_params=True)
    set_state_dict(
        model,
        optimizer or (),
        model_state_dict=weights,
        optim_state_dict={"state": moments, "param_groups": state["param_groups"]} if optimizer else {},
        options=options,
    )
    return Progress(**state["progress"])


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text())
        return state
    except (OSError, ValueError) as error:
        raise CheckpointFailed(
            f"checkpoint {path} cannot be read ({error}); delete its folder to go on from an older one"
        ) from error
