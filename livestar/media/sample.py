"""Which pictures of a source become frames.  Pure arithmetic over timestamps.

Sample k is the first picture at or after `start_s + k / fps` of media time.  The grid is fixed, so a source at 29.97
per second does not drift; after a gap the samples that fell into it are gone, so nothing comes in a burst.

A source's own clock may jump, go missing, or start again.  Media time does not: it is the source's time plus an offset,
and the offset is chosen anew whenever the source's clock breaks.
"""

from __future__ import annotations

import math

ROUNDING_S = 0.0015
"""How early a picture may be for its sample: Matroska and FLV round timestamps to the millisecond."""
MAX_DISORDER_S = 0.5
"""A picture this much too early is out of order and passed over; further back, the clock has jumped."""
MAX_INTERVAL_S = 1.0
"""Longest time between two pictures that is taken as the source's usual one."""


class Sampler:
    """Picks pictures at `fps` and gives them media times that only grow."""

    def __init__(self, fps: float, *, start_s: float = 0.0, max_gap_s: float = math.inf, interval_s: float = 0.04) -> None:
        """Pictures before `start_s` are not wanted.

        A step forward of more than `max_gap_s` is a jump of the clock.  `interval_s` is the time from a picture to the
        next where timestamps do not tell.
        """
        self._fps = fps
        self._start_s = start_s
        self._max_gap_s = max_gap_s
        self._interval_s = interval_s
        self._rounding_s = min(ROUNDING_S, 0.25 / fps)
        self._offset_s = 0.0
        self._continue_at_s: float | None = None
        self._last_source_s: float | None = None
        self._last_media_s: float | None = None
        self._next_sample = 0

    def continue_at(self, media_s: float) -> None:
        """The next picture comes from a clock that starts anew; it is shown at `media_s` or just after the last one."""
        self._continue_at_s = media_s

    def continue_after(self, gap_s: float = 0.0) -> None:
        """As `continue_at`, `gap_s` after the last picture; at the start where there was none."""
        self.continue_at(self._start_s if self._last_media_s is None else self._last_media_s + gap_s)

    def start_again(self, end_s: float) -> None:
        """As `continue_at`, where the clock that ends now stands at `end_s`."""
        self.continue_at(end_s + self._offset_s)

    @property
    def due_s(self) -> float:
        """Earliest time of a picture that may be the next sample, by the source's clock; -inf while that is unknown."""
        if self._continue_at_s is not None:
            return -math.inf
        return self._start_s + self._next_sample / self._fps - self._offset_s - self._rounding_s

    def take(self, source_s: float | None) -> float | None:
        """The media time of the picture at `source_s` if it is a sample, else None.  Call it for every picture in turn.

        `source_s` is None where the picture has no timestamp: it then follows the last one at the usual interval.
        """
        if source_s is None:
            source_s = 0.0 if self._last_source_s is None else self._last_source_s + self._interval_s
        if not self._follow(source_s):
            return None
        media_s = source_s + self._offset_s
        self._last_source_s, self._last_media_s = source_s, media_s
        position = (media_s - self._start_s + self._rounding_s) * self._fps
        if position < self._next_sample:
            return None
        self._next_sample = math.floor(position) + 1
        return media_s

    def _follow(self, source_s: float) -> bool:
        """Set the offset for a picture at `source_s`; False where it is to be passed over."""
        if self._continue_at_s is not None:
            self._rebase(source_s, self._continue_at_s)
            self._continue_at_s = None
            return True
        if self._last_source_s is None:
            return True
        step_s = source_s - self._last_source_s
        if step_s < -MAX_DISORDER_S or step_s > self._max_gap_s:
            self._rebase(source_s, -math.inf)
            return True
        if step_s <= 0:
            return False
        if step_s <= MAX_INTERVAL_S:
            self._interval_s = step_s
        return True

    def _rebase(self, source_s: float, media_s: float) -> None:
        """Show the picture at `source_s` at `media_s`, or an interval after the last one where that is not before it."""
        if self._last_media_s is not None and media_s <= self._last_media_s:
            media_s = self._last_media_s + self._interval_s
        self._offset_s = media_s - source_s
