"""The timing metrics of OmniStar-RNG, as the released code computes them, and as the paper words one of them.

Events are half-open: a released segment of whole seconds [a, b] is the event [a, b + 1).  Means are over a video's events, then
over videos.  Source: utils/eval_infer_result.py of yzy-bupt/LiveStar; section 4 of the paper.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from livestar.evaluation.runs import responses_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.evaluation.runs import VideoRun


class TimingScores(NamedTuple):
    """Means over videos."""

    tim_diff: float
    """Seconds from an event's begin to the first response in it; where there is none, to its last frame."""
    tim_diff_sum: float
    """As the paper words it: the delays of all responses in the event are added up."""
    tim_redun: float
    """How far the number of responses in an event is from one."""
    tim_cover: float
    """Share of events with a response."""


def score_video(run: VideoRun) -> TimingScores:
    """Means over a video's events; zeros where it has none, as in the released code."""
    if not run.events:
        return TimingScores(0.0, 0.0, 0.0, 0.0)
    first, total, redundancy, cover = [], [], [], []
    for event in run.events:
        delays = [response.time_s - event.begin_s for response in responses_in(run, event)]
        missed = event.end_s - event.begin_s - run.frame_interval_s
        first.append(delays[0] if delays else missed)
        total.append(sum(delays) if delays else missed)
        redundancy.append(abs(1 - len(delays)))
        cover.append(bool(delays))
    return TimingScores(fmean(first), fmean(total), fmean(redundancy), fmean(cover))


def score_timing(runs: Sequence[VideoRun]) -> TimingScores:
    """Means over videos; zeros where there are none."""
    if not runs:
        return TimingScores(0.0, 0.0, 0.0, 0.0)
    return TimingScores(*(fmean(column) for column in zip(*map(score_video, runs), strict=True)))
