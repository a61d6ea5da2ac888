"""From one annotation format to another.

A conversion into a poorer format loses something: a gap, a paraphrase, a fraction of a second.  What was lost is counted.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from livestar.annotations.duration import pictures_of
from livestar.annotations.events import write_events
from livestar.annotations.footage import read_frames
from livestar.annotations.meta import write_meta
from livestar.annotations.problems import named
from livestar.annotations.released import Sample
from livestar.annotations.sampled import events_of_frames
from livestar.annotations.sources import shown_path
from livestar.annotations.text import whole_seconds, write_text
from livestar.errors import InvalidConfig, SourceError, SourceUnreadable
from livestar.media.sample import ROUNDING_S
from livestar.media.source import SourceKind, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from livestar.annotations.types import AnnotatedVideo

TargetFormat = Literal["events", "text", "released"]

RELEASED_FPS = 1.0
"""Pictures per second in the released format."""
JPEG_QUALITY = 95


def convert(
    videos: Sequence[AnnotatedVideo],
    path: Path,
    target: TargetFormat,
    *,
    frames: Path | None = None,
    task: str = "",
    on_video: Callable[[int, int], None] | None = None,
) -> Counter[str]:
    """Writes the videos to `path` in another format; returns what was lost on the way, as counted descriptions.

    For `released`, pictures are taken at one per second and written to the folder `frames`, a sample for every stretch without
    a gap; videos that are such pictures already need no folder.  `task` is put before the first picture of each
    sample.  Beside `path` lies a meta file then, of the same stem.
    `on_video` is called with the videos done so far and in all.

    Raises `InvalidAnnotation` for what the format cannot say, `SourceError` for a video that cannot be read, and `InvalidConfig`
    for a place that cannot be written.  Where anything fails, `path` stays as it was.
    """
    path = Path(path)
    match target:
        case "events":
            _write(path, write_events(videos, path.parent))
            return Counter()
        case "text":
            _write(path, write_text(videos, path.parent))
            return _lost_in_text(videos)
        case "released":
            return _write_released(videos, path, frames, task, on_video or (lambda done, total: None))


def meta_path(path: Path) -> Path:
    """Where the meta file of a released JSONL is written."""
    return path.with_suffix(".meta.json")


def _lost_in_text(videos: Iterable[AnnotatedVideo]) -> Counter[str]:
    lost: Counter[str] = Counter()
    for video in videos:
        kept = [event for event, _ in whole_seconds(video)]
        lost["paraphrases left out"] += sum(len(event.captions) - 1 for event in kept)
        lost["events left out, shorter than a second"] += len(video.events) - len(kept)
        begins = [0.0, *(event.end_s for event in kept)]
        lost["gaps that became part of the event after them"] += sum(
            round(event.begin_s) > round(before_s) for event, before_s in zip(kept, begins, strict=False)
        )
        lost["parts that became whole videos"] += video.begin_s > 0 or video.end_s is not None
    return +lost


class _Pictures:
    """Writes pictures into a folder, and removes them again unless all went well."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: list[Path] = []
        self._names: Counter[str] = Counter()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfig(f"frames is {str(folder)!r}, which cannot be made ({error.strerror}); choose another") from error

    def name_for(self, video: AnnotatedVideo) -> str:
        """A name for a video's pictures that no other has."""
        stem = re.sub(r"[^\w.-]+", "_", Path(video.name).stem) or "video"
        self._names[stem] += 1
        return stem if self._names[stem] == 1 else f"{stem}-{self._names[stem]}"

    def write(self, name: str, image: Image.Image) -> str:
        """Writes one picture; returns its path."""
        path = self._folder / name
        self._written.append(path)
        try:
            image.save(path, quality=JPEG_QUALITY)
        except OSError as error:
            raise InvalidConfig(f"{path} cannot be written ({error.strerror}); make room, or choose another folder") from error
        return str(path)

    def remove(self) -> None:
        """Removes what was written."""
        for path in self._written:
            path.unlink(missing_ok=True)


def _write_released(
    videos: Sequence[AnnotatedVideo], path: Path, frames: Path | None, task: str, on_video: Callable[[int, int], None]
) -> Counter[str]:
    lost: Counter[str] = Counter()
    pictures = None if frames is None else _Pictures(frames)
    lines: list[str] = []
    try:
        for number, video in enumerate(videos):
            lines += _samples(video, path.parent, pictures, task, lost, first_id=len(lines))
            on_video(number + 1, len(videos))
        meta = write_meta(path.stem, root=".", annotation=path.name, length=len(lines))
        _write(path, lines)
        _write(meta_path(path), [meta])
    except BaseException:
        if pictures is not None:
            pictures.remove()
        raise
    return +lost


def _samples(
    video: AnnotatedVideo, folder: Path, pictures: _Pictures | None, task: str, lost: Counter[str], *, first_id: int
) -> list[str]:
    """A line for every stretch of a video in which each picture has a caption."""
    if pictures is None:
        shown = _listed_pictures(video)
        times_s = [number / video.fps for number in range(len(shown))]
        owners = events_of_frames(video.events, times_s)
        chosen = {number: Path(shown[number]) for number, owner in enumerate(owners) if owner is not None}
    else:
        owners, chosen = _take_pictures(video, pictures)
    seen = {owner for owner in owners if owner is not None}
    lost["events left out, no picture lies in them"] += len(video.events) - len(seen)
    lost["paraphrases left out"] += sum(len(video.events[owner].captions) - 1 for owner in seen)
    stretches: list[list[int]] = []
    for before, number in pairwise([-2, *sorted(chosen)]):
        if number != before + 1:
            stretches.append([])
        stretches[-1].append(number)
    lost["gaps at which a video was split"] += max(0, len(stretches) - 1)
    samples: list[str] = []
    for stretch in stretches:
        captions = [video.events[owner].caption for number in stretch if (owner := owners[number]) is not None]
        names = [shown_path(str(chosen[number]), folder) for number in stretch]
        sizes = [_size(chosen[number], video) for number in stretch]
        samples.append(Sample(first_id + len(samples), names, sizes, captions).line(task))
    return samples


def _take_pictures(video: AnnotatedVideo, pictures: _Pictures) -> tuple[list[int | None], dict[int, Path]]:
    """Writes those of a video's pictures that have a caption; for each second its event, and the picture where there is one."""
    owners: list[int | None] = []
    chosen: dict[int, Path] = {}
    name = pictures.name_for(video)
    try:
        for time_s, image in read_frames(video, fps=RELEASED_FPS, image_size=None):
            second = math.floor(time_s - video.begin_s + ROUNDING_S)
            (owner,) = events_of_frames(video.events, [time_s])
            owners += [None] * (second - len(owners)) + [owner]
            if owner is not None:
                chosen[second] = Path(pictures.write(f"{name}_{second:04d}.jpg", Image.fromarray(image)))
    except SourceError as error:
        raise named(error, video) from error
    return owners, chosen


def _listed_pictures(video: AnnotatedVideo) -> list[str]:
    """The pictures that a video is already.  Raises `InvalidConfig` where it is none, or not at one per second."""
    remedy = "name a folder for its pictures with --frames"
    if video.fps != RELEASED_FPS or video.begin_s > 0 or video.end_s is not None:
        raise InvalidConfig(f"{video.file}:{video.line}: {video.name} is not pictures at one per second as a whole; {remedy}")
    if not isinstance(video.source, str):
        return list(video.source)
    try:
        source = classify(video.source)
        if source.kind is SourceKind.PICTURES:
            return [str(path) for path in pictures_of(source)]
    except SourceError as error:
        raise named(error, video) from error
    raise InvalidConfig(f"{video.file}:{video.line}: {video.name} is a video, and the released format wants pictures; {remedy}")


def _size(path: Path, video: AnnotatedVideo) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise named(SourceUnreadable(f"{path} is no picture that can be read; replace or remove it"), video) from error


def _write(path: Path, lines: Iterable[str]) -> None:
    """Writes a file as a whole: it has its name only when it is complete."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        partial.replace(path)
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be written ({error.strerror}); make room, or choose another place") from error
    finally:
        partial.unlink(missing_ok=True)
