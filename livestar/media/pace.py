"""Playing a file at its own speed."""

from __future__ import annotations

from collections.abc import Callable


class RealTimePacer:
    """Holds frames back until the wall clock has reached their media time.

    Time counts from the first frame.  Who falls behind is not held back until he has caught up.
    """

    def __init__(self, *, clock: Callable[[], float], wait: Callable[[float], bool]) -> None:
        """`clock` gives seconds that only grow; `wait` sleeps and says whether it was woken, as `Event.wait` does."""
        self._clock = clock
        self._wait = wait
        self._zero_s: float | None = None

    def hold(self, pts_s: float) -> bool:
        """Wait until it is time for the frame at `pts_s`; False where that was interrupted."""
        now_s = self._clock()
        if self._zero_s is None:
            self._zero_s = now_s - pts_s
        early_s = self._zero_s + pts_s - now_s
        return early_s <= 0 or not self._wait(early_s)
