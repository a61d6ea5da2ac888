"""Writes scripted streams: folders of JPEG pictures, two a second, and one events.jsonl beside them."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from livestar.annotations.types import AnnotatedVideo
from training.mini import catalogue
from training.mini.catalogue import Split
from training.mini.render import FPS, Frame, Renderer
from training.mini.script import Script, write

QUALITY = 88
_SEEDS = {"train": 0, "heldout": 1, "unseen": 2}
"""Streams are seeded with 3 n + this, so that no two splits share a seed."""


def seed_of(number: int, split: Split) -> int:
    """The seed of stream `number` (from 0) of a split."""
    return 3 * number + _SEEDS[split]


def compose(seed: int, split: Split, renderer: Renderer) -> tuple[Iterator[Frame], AnnotatedVideo]:
    """A stream of any seed: its frames, uint8 [256, 256, 3] at 2 per second, and its events."""
    script = write(seed, split, catalogue.load())
    video = AnnotatedVideo(source=f"{split}-{seed}", events=script.events, duration_s=script.duration_s, fps=FPS)
    return renderer.frames(script), video


def write_streams(
    assets: Path,
    folder: Path,
    split: Split,
    first: int,
    count: int,
    processes: int,
    tick: Callable[[], object],
    *,
    calm: float = 1.0,
) -> None:
    """Writes streams number `first` to `first` + `count` - 1 of a split, and last of all their events.jsonl.

    A stream whose folder is there is not drawn again, so that a second run goes on where the first one stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first + count)
    with multiprocessing.get_context("spawn").Pool(processes, _start, (assets, folder, split, calm)) as pool:
        lines = []
        for line in pool.imap(_write_one, numbers, chunksize=4):
            lines.append(line)
            tick()
    fresh = folder / "events.jsonl.part"
    fresh.write_text("".join(lines), "utf-8")
    fresh.replace(folder / "events.jsonl")


_work: tuple[Renderer, Path, Split, float]


def _start(assets: Path, folder: Path, split: Split, calm: float) -> None:
    global _work
    _work = (Renderer(assets), folder, split, calm)


def _write_one(number: int) -> str:
    renderer, folder, split, calm = _work
    seed = seed_of(number, split)
    script = write(seed, split, catalogue.load(), calm=calm)
    name = f"{split}-{number:05d}"
    target = folder / name
    if not target.is_dir():
        fresh = folder / f".{name}.part"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for k, frame in enumerate(renderer.frames(script)):
            Image.fromarray(frame).save(fresh / f"{k:04d}.jpg", quality=QUALITY)
        fresh.rename(target)
    return json.dumps(_line(name, script)) + "\n"


def _line(name: str, script: Script) -> dict[str, object]:
    events = [{"begin": event.begin_s, "end": event.end_s, "caption": list(event.captions)} for event in script.events]
    return {
        "video": name,
        "fps": FPS,
        "duration": script.duration_s,
        "events": events,
        "seed": script.seed,
        "pictures": sorted({actor.picture.name for actor in script.actors}),
        "places": sorted({shot.place.name for shot in script.shots}),
    }
