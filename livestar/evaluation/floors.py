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
GOLDEN_RATIO = 0.6180339887498949
"""Its multiples, less their whole parts, lie evenly spread."""
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
    """The metronome's interval, in seconds, at which the number of responses comes nearest to `rate` of the frames; None for a
    rate of 0.

    By bisection: the ends of many short videos make it no plain quotient.
    """
    wanted = _num_wanted(runs, rate)
    if wanted <= 0:
        return None
    short_s, long_s = _intervals_around(runs, wanted)
    return short_s if _num_spoken(runs, short_s) - wanted < wanted - _num_spoken(runs, long_s) else long_s


def matched(runs: Sequence[VideoRun], rate: float) -> list[VideoRun]:
    """The metronome that speaks as often as `rate` says, on first frames only for a rate of 0.

    Videos of like lengths lose a beat at the same interval, and together leap over the number that is wanted.  So as many of
    them as are needed, spread evenly, keep the beat that the shorter of two intervals some microseconds apart gives them.
    """
    wanted = _num_wanted(runs, rate)
    if wanted <= 0:
        return every(runs, float("inf"))
    short_s, long_s = _intervals_around(runs, wanted)
    times = [frames_every(run.frame_times_s, long_s) for run in runs]
    missing = wanted - _num_spoken(runs, long_s)
    for i in sorted(range(len(runs)), key=lambda i: i * GOLDEN_RATIO % 1):
        more = frames_every(runs[i].frame_times_s, short_s)
        if 0 < len(more) - len(times[i]) <= missing:
            missing -= len(more) - len(times[i])
            times[i] = more
    return [_speak(run, chosen) for run, chosen in zip(runs, times, strict=True)]


def _num_wanted(runs: Sequence[VideoRun], rate: float) -> int:
    return round(rate * sum(len(run.later_frames()) for run in runs))


def _num_spoken(runs: Sequence[VideoRun], interval_s: float) -> int:
    """Responses of a metronome, first frames left out."""
    return sum(len(frames_every(run.frame_times_s, interval_s)) - 1 for run in runs if run.frame_times_s)


def _intervals_around(runs: Sequence[VideoRun], wanted: int) -> tuple[float, float]:
    """Two intervals next to each other: one that speaks oftener than wanted, one that does not."""
    low = min(run.frame_interval_s for run in runs) / 2
    high = max(run.end_s - run.begin_s for run in runs) + 1
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _num_spoken(runs, middle) > wanted else (low, middle)
    return low, high


def _speak(run: VideoRun, times_s: Sequence[float]) -> VideoRun:
    return replace(run, responses=tuple(Response(time_s, "") for time_s in times_s), verdicts=())
