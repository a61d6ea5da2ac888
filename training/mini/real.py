"""Lays the real footage and its annotations side by side: what to train on, what to measure on, and the rooms."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from livestar.errors import InvalidRequest
from training.mini import sources
from training.mini.pixels import located

Part = tuple[float, float]
ROOM_SHARE = 0.6
"""Share of a room's clip that the fine-tuning check trains on."""
_SHIPPED = "livestar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip of real footage, and which part of it is for what, in seconds."""

    file: str
    """Its name beside the annotations."""
    source: str
    """Name in `sources.toml`, or "livestar" for what ships with the project."""
    inner: str
    """Its name in the source's folder."""
    train: Part | None = None
    heldout: Part | None = None
    room: bool = False

    @property
    def may_train(self) -> bool:
        """Whether shipped weights may learn from it."""
        return self.source == _SHIPPED or sources.load()[self.source].use == "train"


def load() -> tuple[Clip, ...]:
    """The clips of `real.toml`.

    Raises:
        InvalidRequest: a clip has no source, or is to be trained on though its source does not allow it.
    """
    text = (resources.files("training.mini") / "real.toml").read_text("utf-8")
    return parse(tomllib.loads(text)["clip"])


def parse(entries: list[dict[str, Any]]) -> tuple[Clip, ...]:
    """Clips from the entries of `real.toml`."""
    clips = []
    for entry in entries:
        clip = Clip(
            file=entry["file"],
            source=entry["source"],
            inner=entry["inner"],
            train=_part(entry.get("train")),
            heldout=_part(entry.get("heldout")),
            room=entry.get("room", False),
        )
        if clip.source != _SHIPPED and clip.source not in sources.load():
            raise InvalidRequest(f"real.toml: {clip.file}: no source {clip.source!r} in sources.toml")
        if clip.train and (clip.room or not clip.may_train):
            raise InvalidRequest(f"real.toml: {clip.file} is a room or its source does not allow training; take `train` out")
        clips.append(clip)
    return tuple(clips)


def _part(bounds: list[float] | None) -> Part | None:
    return (bounds[0], bounds[1]) if bounds else None


def annotation(clip: Clip) -> dict[str, Any]:
    """The hand-made annotation of a clip, as its events file has it."""
    folder = resources.files("training.mini") / "annotations"
    found: dict[str, Any] = json.loads((folder / f"{Path(clip.file).stem}.events.jsonl").read_text("utf-8"))
    return found


def write_real(assets: Path, folder: Path) -> dict[str, int]:
    """Copies clips and annotations into `folder`; how many lines each of the annotation files has.

    `real-train.jsonl` and `real-heldout.jsonl` hold the parts to learn from and to measure on (`held_out` says whether the
    whole clip or its late part is held out), `fixed-rooms.jsonl` the rooms, `fixed-rooms-train.jsonl` and
    `fixed-rooms-test.jsonl` their two parts.

    Raises:
        InvalidRequest: a clip has not been fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("real-train", "real-heldout", "fixed-rooms", "fixed-rooms-train", "fixed-rooms-test")
    }
    for clip in load():
        _copy(_origin(assets, clip), folder / clip.file)
        line = annotation(clip)
        (folder / f"{Path(clip.file).stem}.events.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
        if clip.train:
            lines["real-train"].append(line | {"part": clip.train})
        if clip.heldout:
            lines["real-heldout"].append(line | {"part": clip.heldout, "held_out": "late" if clip.train else "whole"})
        if clip.room:
            end = float(line["duration"])
            cut = round(ROOM_SHARE * end, 2)
            lines["fixed-rooms"].append(line)
            lines["fixed-rooms-train"].append(line | {"part": (0.0, cut)})
            lines["fixed-rooms-test"].append(line | {"part": (cut, end)})
    for name, content in lines.items():
        fresh = folder / f"{name}.jsonl.part"
        fresh.write_text("".join(json.dumps(line) + "\n" for line in content), "utf-8")
        fresh.replace(folder / f"{name}.jsonl")
    return {name: len(content) for name, content in lines.items()}


def _origin(assets: Path, clip: Clip) -> Path | Traversable:
    if clip.source == _SHIPPED:
        return resources.files("livestar") / "assets" / clip.inner
    return located(assets, clip.source, clip.inner)


def _copy(origin: Path | Traversable, target: Path) -> None:
    fresh = target.with_name(f".{target.name}.part")
    with origin.open("rb") as source, fresh.open("wb") as out:
        shutil.copyfileobj(source, out)
    fresh.replace(target)
