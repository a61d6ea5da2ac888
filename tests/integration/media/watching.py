"""Reads a source to its end and keeps what came out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from livestar.config import MediaConfig, Pace
from livestar.errors import LiveStarError
from livestar.media import FrameQueue, ReaderStats, SourceReader
from livestar.types import Frame

JOIN_TIMEOUT_S = 20.0


@dataclass
class Watched:
    """Everything that a source gave."""

    frames: list[Frame] = field(default_factory=list)
    notices: list[tuple[str, str, int]] = field(default_factory=list)
    error: LiveStarError | None = None
    stats: ReaderStats = field(default_factory=lambda: ReaderStats(0, 0, 0, 0))
    num_dropped: int = 0

    @property
    def times(self) -> list[float]:
        return [round(frame.pts_s, 3) for frame in self.frames]

    @property
    def codes(self) -> list[str]:
        return [code for code, _, _ in self.notices]


def watch(
    uri: object,
    *,
    until: Callable[[Watched], bool] = lambda watched: False,
    timeout_s: float = 30.0,
    image_size: int = 32,
    fps: float = 1.0,
    pace: Pace = "fast",
    **settings: Any,
) -> Watched:
    """Watch until the source ends or `until` is content; fail where neither happens in time."""
    changed = threading.Event()
    watched = Watched()
    config = MediaConfig(fps=fps, pace=pace, **settings)
    queue = FrameQueue(config.max_queued_frames, overflow="block" if pace == "fast" else "drop_oldest", on_change=changed.set)

    def note(code: str, message: str, count: int) -> None:
        watched.notices.append((code, message, count))
        changed.set()

    reader = SourceReader(str(uri), config=config, image_size=image_size, queue=queue, on_notice=note)
    reader.start()
    deadline = time.monotonic() + timeout_s
    try:
        while not queue.is_finished and not until(watched):
            if (frame := queue.poll()) is not None:
                watched.frames.append(frame)
                continue
            assert time.monotonic() < deadline, f"not done in {timeout_s} s: {watched.times}, {watched.notices}"
            changed.wait(0.1)
            changed.clear()
        watched.error = queue.error
    finally:
        reader.stop()
        assert reader.join(JOIN_TIMEOUT_S), "the reader did not end"
    watched.stats, watched.num_dropped = reader.stats, queue.num_dropped
    assert [frame.index for frame in watched.frames] == sorted({frame.index for frame in watched.frames})
    assert watched.times == sorted(watched.times)
    return watched
