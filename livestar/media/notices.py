"""Notices about many small things, told together."""

from __future__ import annotations

from collections.abc import Callable

OnNotice = Callable[[str, str, int], None]
"""Called with a notice's code, its message for a person, and how many things it is about."""

MIN_INTERVAL_S = 10.0
"""Shortest time between two notices of one tally."""


class Tally:
    """Counts what goes wrong and tells of it at most every `MIN_INTERVAL_S`: at the first, then summed up."""

    def __init__(self, code: str, *, on_notice: OnNotice, clock: Callable[[], float]) -> None:
        self._code = code
        self._on_notice = on_notice
        self._clock = clock
        self._count = 0
        self._message = ""
        self._told_at: float | None = None

    def add(self, count: int, message: str) -> None:
        """Count `count` more, and tell of them if it is time."""
        if count == 0:
            return
        self._count += count
        self._message = message
        if self._told_at is None or self._clock() - self._told_at >= MIN_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Tell of what was counted since the last notice."""
        if self._count == 0:
            return
        count, self._count = self._count, 0
        self._told_at = self._clock()
        self._on_notice(self._code, self._message, count)
