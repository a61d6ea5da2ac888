"""Scores as sums over videos, so that videos can be drawn again: what wins is said only where that leaves no doubt.

The interval of a difference is the middle 95 % of it over bootstrap samples of the videos, both sides on the same samples.  It
says how sure the difference is on streams of this kind, not on captioners of another seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from livestar.evaluation.boundaries import score_boundaries
from livestar.evaluation.similarity import event_similarities
from livestar.evaluation.timing import score_video

if TYPE_CHECKING:
    from livestar.evaluation.runs import VideoRun
    from livestar.evaluation.similarity import TextEmbedder

Floats = NDArray[np.float64]

NUM_SAMPLES = 2000
SEED = 0
LOW, HIGH = 2.5, 97.5
"""Percentiles of the interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is counted of every video: each [videos]."""

    matched_1s: Floats
    """Pairs of a boundary and a response at most 1 s apart."""
    matched_2s: Floats
    num_boundaries: Floats
    num_responses: Floats
    """First frames left out, here and in the boundaries."""
    num_frames: Floats
    tim_redun: Floats
    """How far the number of responses in an event is from one, on average over the video's events."""
    similarity: Floats
    """Sum over events."""
    num_events: Floats


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of a set of videos."""

    key: str
    name: str
    of: Callable[[Tally, Floats], Floats]
    """From how often each video was drawn, [samples, videos], to scores [samples]."""
    higher_is_better: bool = True


def _share(of: Floats, among: Floats) -> Floats:
    return np.divide(of, among, out=np.zeros_like(of), where=among > 0)


def _f1(matched: str) -> Callable[[Tally, Floats], Floats]:
    return lambda t, w: _share(2 * w @ getattr(t, matched), w @ (t.num_boundaries + t.num_responses))


F1_1S = Metric("boundary_f1_1s", "boundary F1 ±1 s", _f1("matched_1s"))
F1_2S = Metric("boundary_f1_2s", "boundary F1 ±2 s", _f1("matched_2s"))
SIMILARITY = Metric("similarity", "similarity", lambda t, w: _share(w @ t.similarity, w @ t.num_events))
TIM_REDUN = Metric("tim_redun", "TimRedun", lambda t, w: w @ t.tim_redun / w.sum(-1), higher_is_better=False)
RATE = Metric("response_rate", "response rate", lambda t, w: _share(w @ t.num_responses, w @ t.num_frames))
COMPARED = (F1_1S, F1_2S, SIMILARITY, TIM_REDUN)


def count(runs: Sequence[VideoRun], embedder: TextEmbedder | None) -> Tally:
    """Counts runs; without an embedder similarity is 0."""
    near, wide = ([score_boundaries([run], tolerance) for run in runs] for tolerance in (1.0, 2.0))
    said = [len(run.later_responses()) for run in runs]
    pairs_1s, pairs_2s = ([round(score.precision * n) for score, n in zip(scores, said, strict=True)] for scores in (near, wide))
    columns: dict[str, Sequence[float]] = {
        "matched_1s": pairs_1s,
        "matched_2s": pairs_2s,
        "num_boundaries": [score.num_boundaries for score in near],
        "num_responses": said,
        "num_frames": [len(run.later_frames()) for run in runs],
        "tim_redun": [score_video(run).tim_redun for run in runs],
        "similarity": [0.0 if embedder is None else sum(event_similarities(run, embedder)) for run in runs],
        "num_events": [len(run.events) for run in runs],
    }
    return Tally(**{name: np.array(column, np.float64) for name, column in columns.items()})


def average(tallies: Sequence[Tally]) -> Tally:
    """The mean of several draws of one policy."""
    return Tally(**{f.name: np.mean([getattr(tally, f.name) for tally in tallies], axis=0) for f in fields(Tally)})


def score(tally: Tally, metric: Metric) -> float:
    """The metric over all videos, each once."""
    return float(metric.of(tally, np.ones((1, len(tally.num_events))))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of two contestants."""

    metric: Metric
    first: float
    second: float
    low: float
    """Of the interval of first - second."""
    high: float

    @property
    def winner(self) -> int | None:
        """0 for the first, 1 for the second, None where the interval does not exclude zero."""
        if self.low <= 0 <= self.high:
            return None
        return int((self.low > 0) != self.metric.higher_is_better)

    def sentence(self, names: tuple[str, str]) -> str:
        """One clause that says what wins."""
        values = f"{self.first:.3f} against {self.second:.3f}, difference {self.first - self.second:+.3f}"
        interval = f"95 % interval {self.low:+.3f} to {self.high:+.3f}"
        if self.winner is None:
            return f"in {self.metric.name} no difference was found ({values}, {interval})"
        return f"{names[self.winner]} wins in {self.metric.name} ({values}, {interval})"

    def as_dict(self, names: tuple[str, str]) -> dict[str, object]:
        """Plain values."""
        winner = None if self.winner is None else names[self.winner]
        return {"first": self.first, "second": self.second, "interval": [self.low, self.high], "winner": winner}


def compare(first: Sequence[Tally], second: Sequence[Tally], metric: Metric) -> Difference:
    """Two contestants on the same videos: means of the metric over several settings of each, such as response rates."""
    num_videos = len(first[0].num_events)
    drawn = np.random.default_rng(SEED).multinomial(num_videos, np.full(num_videos, 1 / num_videos), NUM_SAMPLES)
    weights = drawn.astype(np.float64)
    differences = _mean(first, metric, weights) - _mean(second, metric, weights)
    low, high = np.percentile(differences, [LOW, HIGH])
    once = np.ones((1, num_videos))
    return Difference(
        metric=metric,
        first=float(_mean(first, metric, once)[0]),
        second=float(_mean(second, metric, once)[0]),
        low=float(low),
        high=float(high),
    )


def _mean(tallies: Sequence[Tally], metric: Metric, weights: Floats) -> Floats:
    return np.asarray(np.mean([metric.of(tally, weights) for tally in tallies], axis=0))
