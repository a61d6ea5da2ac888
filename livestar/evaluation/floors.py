"""Policies that know nothing of the content: what every timing metric must be read beside.

All but silence speak on the first frame, as a policy that watches must.  The rate of the others is counted without first frames.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from livestar.evaluation.runs import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.evaluation.runs import VideoRun

INTERVALS_S = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 45, 60)
"""Intervals of the fixed metronomes, in seconds."""
NUM_HALVINGS = 24
"""Steps of the search for an interval; the last is some microseconds."""
NUM_DRAWS = 20
"""Random floors are means over so many draws."""


def silent(runs: Sequence[VideoRun]) -> list[VideoRun]:
    """Says nothing at all."""
    return [replace(run, responses=(), verdicts=()) for run in runs]


def every(runs: Sequence[VideoRun], interval_s: float) -> list[VideoRun]:
    """Speaks on the first frame, and then on the first frame after each further `interval_s` seconds."""
    return [_speak(run, frames_every(run.frame_times_s, interval_s)) for run in runs]


def at_random(runs: Sequence[VideoRun], rate: float, seed: int) -> list[VideoRun]:
    """Speaks on first frames, and on a random choice of `rate` of all other frames of all videos."""
    slots = [(i, time_s) for i, run in enumerate(runs) for time_s in run.later_frames()]
    chosen = set(random.Random(seed).sample(slots, min(len(slots), round(rate * len(slots)))))
    return [_speak(run, [t for k, t in enumerate(run.frame_times_s) if k == 0 or (i, t) in chosen]) for i, run in enumerate(runs)]


def frames_every(frame_times_s: Sequence[float], interval_s: float) -> list[float]:
    """The first of the times, and each that is the first at or after another multiple of the interval since."""
    chosen: list[float] = []
    num_passed = -1
    for time_s in frame_times_s:
        passed = int((time_s - frame_times_s[0]) / interval_s + 1e-9)
        if passed > num_passed:
            chosen.append(time_s)
            num_passed = passed
    return chosen


def matched_interval_s(runs: Sequence[VideoRun], rate: float) -> float | None:
    """The metronome's interval, in seconds, at which it speaks on `rate` of the frames; None for a rate of 0.

    The shortest one, by bisection, that does not speak oftener: the ends of many short videos make it no plain quotient.
    """
    wanted = round(rate * sum(len(run.later_frames()) for run in runs))
    if wanted <= 0:
        return None
    low = min(run.frame_interval_s for run in runs) / 2
    high = max(run.end_s - run.begin_s for run in runs) + 1
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        num_spoken = sum(len(frames_every(run.frame_times_s, middle)) - 1 for run in runs if run.frame_times_s)
        low, high = (middle, high) if num_spoken > wanted else (low, middle)
    return high


def _speak(run: VideoRun, times_s: Sequence[float]) -> VideoRun:
    return replace(run, responses=tuple(Response(time_s, "") for time_s in times_s), verdicts=())
