"""A tiny checkpoint, a room to fine-tune it on, and configs for both; runs of a few seconds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open

from tests.checkpoints import Recipe, write_checkpoint
from tests.fakes.pictures import picture
from training.config import TrainConfig, parse_config
from training.log import read_metrics

RECIPE = Recipe(seed=5, image=56, language=(32, 48, 4, 2, 2))
CAPTIONS = ("A red car turns.", "The driver gets out.", "It has started to rain.", "The street is empty.")
NUM_PICTURES = 40
CLIP_S = 4


def write_room(folder: Path, num_rooms: int = 1) -> Path:
    """Folders of pictures that change every four seconds, with paraphrases and a gap; returns their annotation."""
    lines = []
    for room in range(num_rooms):
        pictures = folder / f"room-{room}"
        pictures.mkdir(parents=True)
        for number in range(NUM_PICTURES):
            Image.fromarray(picture(10 * room + number // CLIP_S, 64, 48)).save(pictures / f"{number:02d}.png")
        events = [
            {"begin": begin, "end": begin + CLIP_S, "caption": [caption, f"{caption} Now."]}
            for begin, caption in zip(range(0, NUM_PICTURES, CLIP_S), CAPTIONS * 3, strict=False)
            if begin != 2 * CLIP_S
        ]
        lines.append(json.dumps({"video": pictures.name, "fps": 1, "events": events}) + "\n")
    path = folder / "rooms.events.jsonl"
    path.write_text("".join(lines))
    return path


def write_tiny(folder: Path, **changes: Any) -> Path:
    """A checkpoint with random weights."""
    return write_checkpoint(folder, dataclasses.replace(RECIPE, **changes))


def values(base: Path, room: Path, output: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """A config that takes some twenty steps, as its file holds it; `changes` are section_key=value, with two underscores."""
    made: dict[str, dict[str, Any]] = {
        "model": {"base": str(base)},
        "data": {"files": [str(room)], "cache": str(room.parent / "cache"), "max_frames": 6, "max_copies": 2},
        "optim": {"epochs": 4, "max_batch_tokens": 400, "learning_rate": 2e-3},
        "run": {"output": str(output), "evaluate_every": 4, "checkpoint_every": 3, "calibrate": "none"},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        made.setdefault(section, {})[key] = value
    return made


def config_of(base: Path, room: Path, output: Path, **changes: Any) -> TrainConfig:
    """The same, checked."""
    return parse_config(values(base, room, output, **changes))


def to_toml(sections: dict[str, dict[str, Any]]) -> str:
    """JSON's texts, numbers and lists are TOML's."""
    return "\n".join(
        "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())])
        for name, section in sections.items()
    )


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's files."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    assert found, folder
    return found


def curve(output: Path) -> list[dict[str, float]]:
    """The metrics of a run, without what the clock says."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_metrics(output / "metrics.jsonl")]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Bit by bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
