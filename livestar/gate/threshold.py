"""How far a caption's perplexity may rise over its reference before the gate responds (the paper's alpha)."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestar.config import GateConfig

DEFAULT_THRESHOLD = 1.03
"""The paper's optimum, and that of the released demo.py."""

CALIBRATION_WINDOW = 256
"""Verifications that a calibrated threshold remembers; at one frame per second some four minutes."""
CALIBRATION_STEP = 0.01
"""How far one verification moves the share that a calibrated threshold aims at."""
MIN_CALIBRATION = 16
"""Verifications before a calibrated threshold leaves `DEFAULT_THRESHOLD`."""


class Threshold(Protocol):
    """The ratio of perplexity to reference above which to respond."""

    def at(self, frame: int) -> float:
        """Threshold for the verification of the frame of that number."""
        ...

    def observe(self, ratio: float) -> None:
        """Takes note of a verification's ratio, after it was decided on."""
        ...


class FixedThreshold:
    """A given number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def at(self, frame: int) -> float:
        """The given number."""
        return self.value

    def observe(self, ratio: float) -> None:
        """Nothing to learn."""


class RateThreshold:
    """Calibrates itself to a response rate: a quantile of recent ratios, corrected by how often it was exceeded.

    Which ratios come depends on the threshold, since a response begins a new reference.  So the quantile that is aimed at
    moves against the error (adaptive conformal inference, Gibbs and Candes 2021): in the long run the rate is the one asked for.
    """

    def __init__(self, response_rate: float) -> None:
        self.response_rate = response_rate
        self._aim = response_rate
        self._ratios: deque[float] = deque(maxlen=CALIBRATION_WINDOW)

    def at(self, frame: int) -> float:
        """What holds now, whatever the frame."""
        return self.value

    @property
    def value(self) -> float:
        """Threshold for the next verification."""
        if len(self._ratios) < MIN_CALIBRATION:
            return DEFAULT_THRESHOLD
        ranked = sorted(self._ratios)
        place = (1 - self._aim) * (len(ranked) - 1)
        below = int(place)
        above = min(below + 1, len(ranked) - 1)
        return ranked[below] + (place - below) * (ranked[above] - ranked[below])

    def observe(self, ratio: float) -> None:
        error = self.response_rate - (ratio > self.value)
        self._aim = min(1.0, max(0.0, self._aim + CALIBRATION_STEP * error))
        self._ratios.append(ratio)


class ScheduledThreshold:
    """Speaks on given frames, whatever the perplexity: for policies that know nothing of the content, with the same captioner."""

    def __init__(self, speaks_on: Callable[[int], bool]) -> None:
        """`speaks_on` is asked once for each frame, by its number from 1; the first frame is spoken on anyway."""
        self._speaks_on = speaks_on

    def at(self, frame: int) -> float:
        """0, which every perplexity exceeds, or the largest float, which none does."""
        return 0.0 if self._speaks_on(frame) else sys.float_info.max

    def observe(self, ratio: float) -> None:
        """Nothing to learn."""


def make_threshold(config: GateConfig) -> Threshold:
    """The threshold that the config asks for."""
    if config.response_rate is not None:
        return RateThreshold(config.response_rate)
    return FixedThreshold(DEFAULT_THRESHOLD if config.threshold is None else config.threshold)
