"""The video that an annotation is about: its frames as a model sees them, or its pictures as they are.

Frames and their times are those that `livestar watch --fps F --start B` sees of the same source, with B the part's begin.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from livestar.annotations.duration import pictures_of
from livestar.config import MediaConfig
from livestar.errors import InvalidConfig, SourceError, SourceNotFound, SourceUnreadable
from livestar.media.decode import VideoInput
from livestar.media.pictures import read_picture
from livestar.media.sample import ROUNDING_S, Sampler
from livestar.media.source import Source, SourceKind, classify, display_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from livestar.annotations.types import AnnotatedVideo


class TimedPicture(NamedTuple):
    """A picture and its media time, in seconds since the start of the video."""

    time_s: float
    image: NDArray[np.uint8]
    """RGB."""


def read_frames(video: AnnotatedVideo, *, fps: float, image_size: int | None) -> Iterator[TimedPicture]:
    """The frames of a video's part at `fps`, in order, one in memory at a time.

    Images are [image_size, image_size, 3], or of their own size where `image_size` is None.  Where the source is pictures that
    come faster than `fps`, the first at or after each sampling time is taken; slower ones come all.  A damaged picture in a
    folder is passed over, as when watching; one that the annotation lists is an error.

    Raises `SourceError` for a source that is missing, damaged or cut off, and `InvalidConfig` for a part that begins behind
    its end.
    """
    config = MediaConfig(fps=fps, pace="fast", start_s=video.begin_s)
    stop_s = math.inf if video.end_s is None else video.end_s - min(ROUNDING_S, 0.25 / fps)
    source = classify(video.source) if isinstance(video.source, str) else None
    if source is None or source.kind is SourceKind.PICTURES:
        frames = _read_pictures(video, source, config, image_size)
    else:
        frames = _read_video(source, config, image_size)
    for frame in frames:
        if frame.time_s >= stop_s:
            return
        yield frame


def _read_video(source: Source, config: MediaConfig, image_size: int | None) -> Iterator[TimedPicture]:
    with VideoInput.open(source, config) as video:
        if video.is_live:
            raise SourceUnreadable(f"{source.name} is live and cannot be annotated; record it to a file")
        sampler = Sampler(config.fps, start_s=config.start_s, max_gap_s=video.max_gap_s, interval_s=video.interval_s)
        for picture in video.pictures():
            if picture is None:
                continue
            time_s = sampler.take(picture.time_s)
            video.wanted_from_s = sampler.due_s
            if time_s is not None:
                yield TimedPicture(time_s, picture.to_rgb() if image_size is None else picture.to_image(image_size))


def _read_pictures(
    video: AnnotatedVideo, source: Source | None, config: MediaConfig, image_size: int | None
) -> Iterator[TimedPicture]:
    paths = [Path(path) for path in video.source] if source is None else pictures_of(source)
    first = math.ceil(config.start_s * video.fps - 1e-6)
    if first >= len(paths):
        length = f"lasts {len(paths) / video.fps:.3f} s"
        raise InvalidConfig(f"the part begins at {config.start_s:g} s, but {display_name(video.name)} {length}")
    sampler = Sampler(config.fps, start_s=first / video.fps)
    problem: SourceError | None = None
    num_shown = 0
    for position in range(first, len(paths)):
        time_s = sampler.take(position / video.fps)
        if time_s is None:
            continue
        try:
            image = _read_picture(paths[position], image_size, config.max_pixels)
        except SourceError as error:
            if source is None:
                raise
            problem = problem or error
            continue
        num_shown += 1
        yield TimedPicture(time_s, image)
    if num_shown == 0:
        raise SourceUnreadable(f"{display_name(video.name)}: no picture can be read; the first: {problem}") from problem


def _read_picture(path: Path, image_size: int | None, max_pixels: int) -> NDArray[np.uint8]:
    if not path.is_file():
        raise SourceNotFound(f"there is no picture {str(path)!r}; get it again, or leave it out of the annotation")
    return read_picture(path, image_size=image_size, max_pixels=max_pixels)
