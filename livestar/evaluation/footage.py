"""The frames of annotated videos, as feeds for an engine loop: from the part's begin to its end, at a chosen rate.

Each video is read by a thread of its own into a queue that waits for the engine.  A policy that is tried several times sees the
same frames again; they are kept while they fit into `MAX_KEPT_BYTES`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from livestar.annotations.duration import measure_duration
from livestar.annotations.footage import read_frames
from livestar.errors import EngineFailed, LiveStarError
from livestar.media import FrameQueue
from livestar.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from livestar.annotations.part import Part
    from livestar.annotations.types import AnnotatedVideo

logger = logging.getLogger(__name__)

MAX_KEPT_BYTES = 512 * 2**20
"""Most bytes of pictures that are kept to be shown again."""
MAX_QUEUED = 4
"""Frames of a video that are read ahead of the engine."""


class Footage:
    """Videos whose frames can be fed to an engine, over and over."""

    def __init__(
        self, videos: Sequence[AnnotatedVideo], *, fps: float, image_size: int, max_kept_bytes: int = MAX_KEPT_BYTES
    ) -> None:
        """Frames are sampled at `fps` per second of media and resized to `image_size`."""
        self.videos = tuple(videos)
        self.fps = fps
        self.image_size = image_size
        self._room = max_kept_bytes
        self._kept: dict[int, list[Frame]] = {}
        self._lock = threading.Lock()

    def feed(self, index: int, *, on_change: Callable[[], None]) -> FrameQueue:
        """A new feed of the video of that index, which has begun to be read.  Its errors are the queue's."""
        queue = FrameQueue(MAX_QUEUED, overflow="block", on_change=on_change)
        reader = threading.Thread(target=self._read, args=(index, queue), name=f"footage {index}", daemon=True)
        reader.start()
        return queue

    def _read(self, index: int, queue: FrameQueue) -> None:
        error: LiveStarError | None = None
        try:
            self._put(index, queue)
        except LiveStarError as known:
            error = known
        except Exception as unknown:
            logger.exception("reading %s failed", self.videos[index].name)
            error = EngineFailed(f"reading failed: {type(unknown).__name__}; please report it with the log")
        finally:
            queue.close(error)

    def _put(self, index: int, queue: FrameQueue) -> None:
        with contextlib.closing(self.frames(index)) as frames:
            for frame in frames:
                if not queue.put(frame):
                    return

    def frames(self, index: int) -> Generator[Frame, None, None]:
        """The frames of a video, in order.  Raises `SourceError`."""
        kept = self._kept.get(index)
        if kept is not None:
            yield from kept
            return
        frames: list[Frame] | None = []
        pictures = read_frames(self.videos[index], fps=self.fps, image_size=self.image_size)
        try:
            for number, (time_s, image) in enumerate(pictures, start=1):
                frame = Frame(number, time_s, image)
                frames = self._keep(frames, frame)
                yield frame
            if frames is not None and index not in self._kept:
                self._kept[index] = frames
                frames = None
        finally:
            self._give_back(frames)

    def _keep(self, frames: list[Frame] | None, frame: Frame) -> list[Frame] | None:
        """Adds a frame to those that are kept; None, for this and all that follow, where they no longer fit."""
        if frames is None:
            return None
        with self._lock:
            fits = self._room >= frame.image.nbytes
            self._room -= frame.image.nbytes if fits else 0
        if fits:
            frames.append(frame)
            return frames
        self._give_back(frames)
        return None

    def _give_back(self, frames: list[Frame] | None) -> None:
        with self._lock:
            self._room += sum(frame.image.nbytes for frame in frames or ())


def take_part(video: AnnotatedVideo, part: Part) -> AnnotatedVideo:
    """The video cut to a part.  Raises `InvalidConfig` where nothing is left, `SourceError` where it cannot be read."""
    duration_s = measure_duration(video.source, fps=video.fps) if video.duration_s is None else video.duration_s
    return part.cut(video, duration_s)
