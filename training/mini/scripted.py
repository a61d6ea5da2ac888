"""Writes scripted streams: folders of JPEG pictures, two a second, and one events.jsonl beside them."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from livestar.annotations.types import AnnotatedVideo
from training.mini.catalogue import Catalogue, Split
from training.mini.render import FPS, Frame, Renderer
from training.mini.script import Script, write

QUALITY = 88
_SEEDS = {"train": 0, "heldout": 1, "unseen": 2}
"""Streams are seeded with 3 n + this, so that no two splits share a seed."""


def seed_of(number: int, split: Split) -> int:
    """The seed of stream `number` (from 0) of a split."""
    return 3 * number + _SEEDS[split]


def compose(seed: int, split: Split, renderer: Renderer, known: Catalogue) -> tuple[Iterator[Frame], AnnotatedVideo]:
    """A stream of any seed: its frames, uint8 [256, 256, 3] at 2 per second, and its events."""
    script = write(seed, split, known)
    video = AnnotatedVideo(source=f"{split}-{seed}", events=script.events, duration_s=script.duration_s, fps=FPS)
    return renderer.frames(script), video


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which streams to write, of what, and where."""

    assets: Path
    """The folder that `fetch` has filled."""
    folder: Path
    split: Split
    first: int
    """Number of the first stream."""
    count: int
    known: Catalogue
    calm: float = 1.0
    """How many times longer everything lasts."""
    plain: bool = False
    """Only what can be told at a glance."""


def write_streams(order: Order, *, processes: int, tick: Callable[[], object]) -> None:
    """Writes streams as folders of pictures, and last of all their events.jsonl; calls `tick` after each.

    A stream whose folder is there is not drawn again, so that a second run goes on where the first one stopped.

    Raises:
        InvalidRequest: a file is missing from the assets.
    """
    order.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with multiprocessing.get_context("spawn").Pool(processes, _start, (order,)) as pool:
        for line in pool.imap(_write_one, range(order.first, order.first + order.count), chunksize=4):
            lines.append(line)
            tick()
    fresh = order.folder / "events.jsonl.part"
    fresh.write_text("".join(lines), "utf-8")
    fresh.replace(order.folder / "events.jsonl")


_work: tuple[Renderer, Order]  # of a process of the pool


def _start(order: Order) -> None:
    global _work
    _work = (Renderer(order.assets), order)


def _write_one(number: int) -> str:
    renderer, order = _work
    script = write(seed_of(number, order.split), order.split, order.known, calm=order.calm, plain=order.plain)
    name = f"{order.split}-{number:05d}"
    target = order.folder / name
    if not target.is_dir():
        fresh = order.folder / f".{name}.part"
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
