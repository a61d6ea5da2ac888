"""Decoding on Ray Data: tasks read videos, and frames come back in blocks to the process that has the tower.

Only plain values travel: a video goes out as JSON, a frame comes back as a row of numbers and a picture.  Paths must mean the
same on every node.  Frames of several videos arrive interleaved; those of one video are in order.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.data
import ray.exceptions
from numpy.typing import NDArray

from livestar import errors
from livestar.annotations.footage import TimedPicture, read_frames
from livestar.annotations.problems import named
from livestar.annotations.types import AnnotatedVideo
from livestar.errors import EngineFailed, InvalidConfig, LiveStarError, SourceError
from training.features import BATCH_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from training.decode import Fill
    from training.features import Computation, FeatureCache

Columns = dict[str, NDArray[Any]]


def decode_on_ray(
    cache: FeatureCache, videos: Mapping[int, AnnotatedVideo], fill: Fill, *, num_decoders: int | None = None
) -> None:
    """Computes the features of all videos; what becomes of each, by its number, is told to `fill`."""
    if not videos:
        return
    items = [{"number": number, "video": _to_json(video)} for number, video in videos.items()]
    with _quiet(), ExitStack() as resources:
        decoded = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            partial(decode, fps=cache.fps, image_size=cache.image_size),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.TaskPoolStrategy(size=num_decoders),
        )
        works: dict[int, Computation] = {}
        try:
            for block in decoded.iter_batches(batch_size=None, batch_format="numpy"):
                for row in range(len(block["number"])):
                    number = int(block["number"][row])
                    if number not in works:
                        works[number] = resources.enter_context(cache.compute(videos[number]))
                    _take_row({name: column[row] for name, column in block.items()}, works[number], number, fill)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise EngineFailed(f"decoding on Ray failed: {type(error).__name__}: {reason}; see Ray's own log") from error


def _take_row(row: Mapping[str, Any], work: Computation, number: int, fill: Fill) -> None:
    """Takes a frame, the end of a video (without a time), or what went wrong with it."""
    problem, time_s = str(row["problem"]), float(row["time_s"])
    if problem:
        work.discard()
        fill.bad(_from_problem(problem))
    elif np.isnan(time_s):
        try:
            fill.done(number, work.finish())
        except SourceError as error:
            fill.bad(error)
    elif int(row["place"]) != work.num_frames:
        raise EngineFailed("frames of one video came out of order from Ray; please report it")
    else:
        work.push(TimedPicture(time_s, row["image"]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's own progress off: ours says more."""
    context = ray.data.DataContext.get_current()
    shown, context.enable_progress_bars = context.enable_progress_bars, False
    try:
        yield
    finally:
        context.enable_progress_bars = shown


def decode(columns: Columns, *, fps: float, image_size: int) -> Iterator[Columns]:
    """Runs in a Ray task: the frames of one video in blocks, then a row that ends it, with what went wrong if anything did."""
    number, video = int(columns["number"][0]), _from_json(str(columns["video"][0]))
    waiting: list[TimedPicture] = []
    num_sent = 0
    problem = ""
    try:
        for frame in read_frames(video, fps=fps, image_size=image_size):
            waiting.append(frame)
            if len(waiting) == BATCH_FRAMES:
                yield _columns(number, num_sent, waiting)
                num_sent += len(waiting)
                waiting = []
    except (SourceError, InvalidConfig) as error:
        problem = f"{type(error).__name__} {named(error, video)}"
    end = TimedPicture(np.nan, np.zeros((image_size, image_size, 3), np.uint8))
    yield _columns(number, num_sent, [*waiting, end], problem)


def _columns(number: int, first: int, frames: list[TimedPicture], problem: str = "") -> Columns:
    return {
        "number": np.full(len(frames), number),
        "place": np.arange(first, first + len(frames)),
        "time_s": np.array([frame.time_s for frame in frames]),
        "image": np.stack([frame.image for frame in frames]),
        "problem": np.array([*[""] * (len(frames) - 1), problem], dtype=object),
    }


def _from_problem(problem: str) -> SourceError | InvalidConfig:
    kind, _, message = problem.partition(" ")
    error: type[LiveStarError] = getattr(errors, kind)
    made = error(message)
    assert isinstance(made, SourceError | InvalidConfig)
    return made


def _to_json(video: AnnotatedVideo) -> str:
    values = {name: getattr(video, name) for name in ("source", "begin_s", "end_s", "fps", "file", "line")}
    return json.dumps(values)


def _from_json(text: str) -> AnnotatedVideo:
    values = json.loads(text)
    source = values.pop("source")
    return AnnotatedVideo(source=source if isinstance(source, str) else tuple(source), events=(), **values)
