"""The bounded queue between a source's reader thread and the engine.

One thread puts, any thread polls.  Full means one of two things: `drop_oldest` loses the frame that waited longest and
counts it, so that a live stream never lags by more than the queue is long; `block` makes the producer wait, so that a
file read as fast as possible loses nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from livestar.errors import LiveStarError
from livestar.types import Frame

Overflow = Literal["drop_oldest", "block"]


class FrameQueue:
    """At most `max_frames` frames that wait to be encoded."""

    def __init__(self, max_frames: int, *, overflow: Overflow, on_change: Callable[[], None] | None = None) -> None:
        """`on_change` is called after every put and at the close, on the caller's thread and outside the lock."""
        if max_frames < 1:
            raise ValueError(f"max_frames is {max_frames}; give at least 1")
        self._max_frames = max_frames
        self._overflow = overflow
        self._on_change = on_change
        self._frames: deque[Frame] = deque()
        self._room = threading.Condition()
        self._is_closed = False
        self._error: LiveStarError | None = None
        self._num_dropped = 0

    def put(self, frame: Frame) -> bool:
        """Add a frame; False where the queue was closed or cancelled instead."""
        with self._room:
            if self._overflow == "block":
                self._room.wait_for(lambda: self._is_closed or len(self._frames) < self._max_frames)
            if self._is_closed:
                return False
            if len(self._frames) == self._max_frames:
                self._frames.popleft()
                self._num_dropped += 1
            self._frames.append(frame)
        self._notify()
        return True

    def poll(self) -> Frame | None:
        """The frame that waited longest, or None; never blocks."""
        with self._room:
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._room.notify()
        return frame

    def close(self, error: LiveStarError | None = None) -> None:
        """The producer is done, with `error` or regularly; frames that wait can still be polled."""
        with self._room:
            if self._is_closed:
                return
            self._is_closed = True
            self._error = error
            self._room.notify_all()
        self._notify()

    def cancel(self) -> None:
        """The consumer gives up: frames are discarded and a producer that waits for room goes on."""
        with self._room:
            self._is_closed = True
            self._frames.clear()
            self._room.notify_all()

    @property
    def is_finished(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._room:
            return self._is_closed and not self._frames

    @property
    def error(self) -> LiveStarError | None:
        """What the producer closed with."""
        with self._room:
            return self._error

    @property
    def num_dropped(self) -> int:
        """Frames lost to make room, since the beginning."""
        with self._room:
            return self._num_dropped

    def __len__(self) -> int:
        with self._room:
            return len(self._frames)

    def _notify(self) -> None:
        if self._on_change is not None:
            self._on_change()
