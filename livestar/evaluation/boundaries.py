"""Boundary F1: whether responses come when events begin.

Every policy that watches must speak on its first frame, so neither responses on the first frame nor events that have begun by
then count; floors are treated alike.  A response and a begin that are at most the tolerance apart may be paired, each once, and
as many pairs are made as can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from livestar.evaluation.runs import EPSILON_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.evaluation.runs import VideoRun


class BoundaryScore(NamedTuple):
    """Over all responses and boundaries of all videos together."""

    f1: float
    """0 where nothing is paired."""
    precision: float
    recall: float
    num_boundaries: int
    num_responses: int


def num_matched(boundaries: Sequence[float], responses: Sequence[float], tolerance_s: float) -> int:
    """Most pairs that can be made of ascending times at most `tolerance_s` apart.

    In order of time, the earliest two that fit are always a best choice, because all tolerances are equal.
    """
    i = j = count = 0
    while i < len(boundaries) and j < len(responses):
        if abs(boundaries[i] - responses[j]) <= tolerance_s + EPSILON_S:
            i, j, count = i + 1, j + 1, count + 1
        elif boundaries[i] < responses[j]:
            i += 1
        else:
            j += 1
    return count


def boundaries_of(run: VideoRun) -> list[float]:
    """When events begin, those of the first frame left out; a gap's begin is no boundary."""
    return sorted(event.begin_s for event in run.events if not run.is_first_frame(event.begin_s))


def score_boundaries(runs: Sequence[VideoRun], tolerance_s: float) -> BoundaryScore:
    """F1, precision and recall of the pairs, counted over all videos together."""
    matched = num_boundaries = num_responses = 0
    for run in runs:
        boundaries = boundaries_of(run)
        responses = sorted(response.time_s for response in run.later_responses())
        matched += num_matched(boundaries, responses, tolerance_s)
        num_boundaries += len(boundaries)
        num_responses += len(responses)
    total = num_boundaries + num_responses
    return BoundaryScore(
        2 * matched / total if total else 0.0,
        matched / num_responses if num_responses else 0.0,
        matched / num_boundaries if num_boundaries else 0.0,
        num_boundaries,
        num_responses,
    )
