"""PAUC, the proactive area under the curve of ProactiveVideoQA and MMDuet2.

Within an event, the quality of what the user has been told is a staircase: it starts low and steps to each response's quality
when that comes.  The area under it, as a share of the best, rewards being right and being early.  The time axis is shrunk by
`LATE_WEIGHT`, so that a right answer at the very end keeps that share of the score.  A caption that is repeated word for word
within the event is no new step.
Source: arXiv 2507.09313, and `area_under_line_ratio` of MMDuet2's reward function (arXiv 2512.06810): 5 grades, omega 0.5.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from livestar.evaluation.runs import responses_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livestar.annotations.types import Event
    from livestar.evaluation.runs import VideoRun

LATE_WEIGHT = 0.5
"""omega: share of the score that a right answer at the very end still gets."""
NUM_GRADES = 5
"""Grades of the published judge, 0 to 4."""
START_QUALITY = 0.5 / (NUM_GRADES - 1)
"""Quality before the first response: half a grade."""


def area(steps: Sequence[tuple[float, float]], late_weight: float = LATE_WEIGHT) -> float:
    """Area under the staircase of (share of the event that has passed, quality), both 0 to 1, in order."""
    height, begin, total = START_QUALITY, 0.0, 0.0
    for place, quality in steps:
        at = place * (1 - late_weight)
        total += (at - begin) * height
        height, begin = quality, at
    return total + (1 - begin) * height


def score_pauc(runs: Sequence[VideoRun], quality: Callable[[Event, str], float]) -> float | None:
    """Mean over the events of all videos; None where there are none.  `quality` grades a response to an event, 0 to 1."""
    areas = []
    for run in runs:
        for event in run.events:
            said: set[str] = set()
            steps = []
            for response in responses_in(run, event):
                if response.text not in said:
                    said.add(response.text)
                    place = (response.time_s - event.begin_s) / (event.end_s - event.begin_s)
                    steps.append((min(max(place, 0.0), 1.0), quality(event, response.text)))
            areas.append(area(steps))
    return fmean(areas) if areas else None
