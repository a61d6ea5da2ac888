"""All metrics of a set of runs that need no model, and the floors beside them, as plain JSON objects."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from livestar.evaluation import floors
from livestar.evaluation.boundaries import score_boundaries
from livestar.evaluation.runs import response_rate, responses_in, truth_rate
from livestar.evaluation.timing import score_timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.evaluation.runs import VideoRun

Scores = dict[str, float]

TIMING_KEYS = ("tim_diff", "tim_diff_sum", "tim_redun", "tim_cover", "boundary_f1_1s", "boundary_f1_2s")
"""Metrics of when, which no report may show without the floors."""
F1_KEYS = ("boundary_f1_1s", "boundary_f1_2s")


def timing_scores(runs: Sequence[VideoRun]) -> Scores:
    """Every metric of when, and how often."""
    timing = score_timing(runs)
    near, wide = score_boundaries(runs, 1.0), score_boundaries(runs, 2.0)
    return {
        **timing._asdict(),
        "boundary_f1_1s": near.f1,
        "boundary_f1_2s": wide.f1,
        "boundary_precision_1s": near.precision,
        "boundary_recall_1s": near.recall,
        "boundary_precision_2s": wide.precision,
        "boundary_recall_2s": wide.recall,
        "response_rate": response_rate(runs),
        "redundancy": redundancy(runs),
    }


def redundancy(runs: Sequence[VideoRun]) -> float:
    """Share of responses that are not the first in their event; 0 where nothing was said."""
    num_extra = sum(max(0, len(responses_in(run, event)) - 1) for run in runs for event in run.events)
    num_responses = sum(len(run.responses) for run in runs)
    return num_extra / num_responses if num_responses else 0.0


def repetition(runs: Sequence[VideoRun]) -> float:
    """Share of responses, first ones left out, that say word for word what the one before said."""
    pairs = [(a.text, b.text) for run in runs for a, b in pairwise(run.responses)]
    return sum(a.split() == b.split() for a, b in pairs) / len(pairs) if pairs else 0.0


def counts(runs: Sequence[VideoRun]) -> dict[str, int]:
    """How much was scored."""
    return {
        "num_videos": len(runs),
        "num_events": sum(len(run.events) for run in runs),
        "num_frames": sum(len(run.frame_times_s) for run in runs),
        "num_responses": sum(len(run.responses) for run in runs),
    }


def floor_scores(runs: Sequence[VideoRun], seed: int = 0) -> dict[str, object]:
    """The content-free floors: silence, a metronome and random frames at the runs' own response rate, fixed metronomes.

    `best_metronome` is the fixed or matched metronome of the highest F1 at +-1 s, `best_metronome_2s` that of the highest at
    +-2 s, both picked with the truth at hand;
    `best_at_rate` is for each F1 the better of the two floors at the runs' own rate.
    """
    rate = response_rate(runs)
    fixed = [_with_interval(float(interval_s), floors.every(runs, float(interval_s))) for interval_s in floors.INTERVALS_S]
    matched = _with_interval(floors.matched_interval_s(runs, rate), floors.matched(runs, rate))
    draws = [timing_scores(floors.at_random(runs, rate, seed + i)) for i in range(floors.NUM_DRAWS)]
    drawn = {key: fmean(draw[key] for draw in draws) for key in draws[0]}
    return {
        "silent": timing_scores(floors.silent(runs)),
        "metronome": matched,
        "random": {"num_draws": floors.NUM_DRAWS, **drawn},
        "best_metronome": max([*fixed, matched], key=lambda scores: scores["boundary_f1_1s"] or 0.0),
        "best_metronome_2s": max([*fixed, matched], key=lambda scores: scores["boundary_f1_2s"] or 0.0),
        "best_at_rate": {key: max(matched[key] or 0.0, drawn[key]) for key in F1_KEYS},
        "every": fixed,
    }


def _with_interval(interval_s: float | None, spoken: Sequence[VideoRun]) -> dict[str, float | None]:
    """A metronome's scores; an interval of None spoke on first frames only."""
    return {"interval_s": interval_s, **timing_scores(spoken)}


def score_runs(runs: Sequence[VideoRun], seed: int = 0) -> dict[str, object]:
    """Timing metrics, counts and floors."""
    return {
        **timing_scores(runs),
        "repetition": repetition(runs),
        **counts(runs),
        "truth_rate": truth_rate(runs),
        "floors": floor_scores(runs, seed),
    }
