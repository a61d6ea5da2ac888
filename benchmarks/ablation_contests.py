"""The two comparisons: three captioners before the same streams, and four ways to say when for one of them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.ablation_scores import F1_1S, F1_2S, TIM_REDUN, Difference, Metric, Tally, average, compare, count, score
from benchmarks.ablation_turns import frames_above, threshold_at, turn_scores
from livestar.config import GateConfig
from livestar.evaluation import floors
from livestar.evaluation.likelihood import score_likelihood
from livestar.evaluation.policies import AtFrames, Gate, Interval
from livestar.evaluation.runs import Response, response_rate, truth_rate
from livestar.evaluation.scores import floor_scores, repetition, timing_scores
from livestar.evaluation.similarity import score_similarity
from livestar.evaluation.watching import video_names

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from benchmarks.ablation_watching import Runs, Viewer
    from livestar.evaluation.calibration import Calibration
    from livestar.evaluation.footage import Footage
    from livestar.evaluation.runs import VideoRun
    from livestar.evaluation.similarity import TextEmbedder
    from training.sequence import Visibility

GATES: dict[Visibility, tuple[GateConfig, ...]] = {
    "leaf": (GateConfig(name="scam", keep_captions=False),),
    "terminal": (GateConfig(name="scam", keep_captions=True),),
    "causal": (GateConfig(name="compat", keep_captions=True), GateConfig(name="scam", keep_captions=True)),
}
"""The gates that a captioner may be watched with: that of its training; copies in sight, as plain causal learns, or not."""
TOLERANCE = 0.1
"""Response rates that differ by this share of the truth's are called the same."""
SWEEP = (0.5, 0.75, 1.0, 1.5, 2.0)
"""Response rates of the curve, as multiples of the truth's."""
SVED, TURN, INTERVAL, RANDOM = "SVeD", "end of turn", "fixed interval", "random"
POLICIES = (SVED, TURN, INTERVAL, RANDOM)
PAIRS = ((SVED, TURN), (SVED, INTERVAL), (SVED, RANDOM), (TURN, INTERVAL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """What somebody did on the held-out streams."""

    name: str
    how: str
    """Gate, and where its threshold was set; or the schedule."""
    runs: Runs
    tally: Tally
    scores: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """All policies at one response rate, which is that of SVeD; timing only."""

    wanted_rate: float
    rate: float
    threshold: float
    tallies: dict[str, Tally]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The outcome of the second comparison."""

    contestants: tuple[Contestant, ...]
    curve: tuple[Point, ...]
    truth_rate: float

    def over_curve(self, first: str, second: str, metric: Metric) -> Difference:
        """Two policies by the mean of a metric over all rates."""
        mine, other = ([point.tallies[name] for point in self.curve] for name in (first, second))
        return compare(mine, other, metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """What is watched: thresholds are set on one part, and everything is scored on the other."""

    validation: Footage
    heldout: Footage
    embedder: TextEmbedder
    seed: int

    def judge(self, name: str, how: str, runs: Runs, **more: object) -> Contestant:
        """Scores runs on the held-out streams."""
        likeness = score_similarity(runs, self.embedder)
        scores: dict[str, object] = {
            **timing_scores(runs),
            "repetition": repetition(runs),
            "num_responses": sum(len(run.responses) for run in runs),
            **{key: likeness[key] for key in ("similarity", "similarity_shuffled", "similarity_constant")},
            **more,
        }
        return Contestant(name=name, how=how, runs=runs, tally=count(runs, self.embedder), scores=scores)


def compare_captioner(name: str, viewers: Sequence[Viewer], streams: Streams) -> list[Contestant]:
    """A captioner with each of its gates, the one that did best on the validation streams first.

    Every gate's threshold is set there, to the truth's response rate.
    """
    found = []
    for viewer in viewers:
        calibration = _calibrated(viewer, streams)
        gate = f"{viewer.gate.name}, {'captions kept' if viewer.gate.keep_captions else 'no captions kept'}"
        _say(f"{name}, {gate}: threshold {calibration.threshold:.4f}, {calibration.response_rate:.3f} on validation")
        runs = viewer.watch(streams.heldout, Gate(calibration.threshold))
        contestant = streams.judge(
            name,
            gate,
            runs,
            threshold=calibration.threshold,
            validation_f1=calibration.boundary_f1,
            validation_rate=calibration.response_rate,
            floors=floor_scores(runs, streams.seed)["best_at_rate"],
            **score_likelihood(viewer.checkpoint, streams.heldout, viewer.stream(streams.heldout)),
        )
        found.append((calibration.boundary_f1, contestant))
    return [contestant for _, contestant in sorted(found, key=lambda pair: -pair[0])]


def compare_policies(viewer: Viewer, streams: Streams, known: Runs | None = None) -> Timing:
    """One captioner, told when to speak in four ways, as often as the truth begins events.  `known` are its runs under its own
    gate at the threshold that it was calibrated to, where it was watched already."""
    heldout, names = streams.heldout, video_names(streams.heldout.videos)
    calibration = _calibrated(viewer, streams)
    threshold, how = calibration.threshold, "threshold of the validation streams"
    runs = known or viewer.watch(heldout, Gate(threshold))
    wanted = truth_rate(runs)
    seen: list[tuple[float, Sequence[float]]] = [(trial.response_rate, trial.ratios) for trial in calibration.trials]
    if not _is_same(response_rate(runs), wanted):
        again = viewer.calibrated(heldout, wanted)
        threshold, how = again.threshold, "threshold set to the rate on the held-out streams"
        runs = viewer.watch(heldout, Gate(threshold))
    sved = streams.judge(SVED, how, runs, threshold=threshold)
    _say(f"{SVED}: {response_rate(runs):.3f} of frames, the truth {wanted:.3f}")

    on_validation = _scores(viewer, streams.validation)
    scores = _scores(viewer, heldout)
    limit, how = threshold_at(on_validation, calibration.wanted_rate), "threshold of the validation streams"
    if not _is_same(response_rate(_speak(runs, [frames_above(video, limit) for video in scores])), wanted):
        limit, how = threshold_at(scores, wanted), "threshold set to the rate on the held-out streams"
    chosen = dict(zip(names, (frames_above(video, limit) for video in scores), strict=True))
    turn = streams.judge(TURN, how, viewer.watch(heldout, AtFrames(chosen)), threshold=limit)

    interval_s = floors.matched_interval_s(runs, wanted)
    assert interval_s is not None, "no event begins while the streams are watched"
    regular = viewer.watch(heldout, Interval(interval_s))
    interval = streams.judge(INTERVAL, f"every {interval_s:.2f} s", regular, interval_s=interval_s)

    drawn = floors.at_random(runs, wanted, streams.seed)
    blind = viewer.watch(heldout, AtFrames({run.name: _frame_numbers(run) for run in drawn}))
    chance = streams.judge(RANDOM, f"timing: mean of {floors.NUM_DRAWS} draws; captions: the first", blind)
    tally = replace(_random(runs, wanted, streams.seed), similarity=chance.tally.similarity)
    means = {metric.key: score(tally, metric) for metric in (F1_1S, F1_2S, TIM_REDUN)}
    chance = replace(chance, tally=tally, scores={**chance.scores, **means})

    seen.append((response_rate(runs), _ratios(runs)))
    curve = []
    for aim in (share * wanted for share in SWEEP):
        at, shown = (threshold, runs) if aim == wanted else (_guess(seen, aim), None)
        shown = shown or viewer.watch(heldout, Gate(at))
        seen.append((response_rate(shown), _ratios(shown)))
        curve.append(_point(shown, scores, aim, at, streams.seed))
        _say(f"curve: {curve[-1].rate:.3f} of frames")
    return Timing(contestants=(sved, turn, interval, chance), curve=tuple(curve), truth_rate=wanted)


def _point(runs: Runs, scores: Sequence[Sequence[float]], aim: float, threshold: float, seed: int) -> Point:
    """The other policies at the response rate of SVeD's runs."""
    rate = response_rate(runs)
    limit = threshold_at(scores, rate)
    interval_s = floors.matched_interval_s(runs, rate)
    return Point(
        wanted_rate=aim,
        rate=rate,
        threshold=threshold,
        tallies={
            SVED: count(runs, None),
            TURN: count(_speak(runs, [frames_above(video, limit) for video in scores]), None),
            INTERVAL: count(floors.every(runs, interval_s or float("inf")), None),
            RANDOM: _random(runs, rate, seed),
        },
    )


def _random(runs: Runs, rate: float, seed: int) -> Tally:
    return average([count(floors.at_random(runs, rate, seed + i), None) for i in range(floors.NUM_DRAWS)])


def _calibrated(viewer: Viewer, streams: Streams) -> Calibration:
    return viewer.calibration or viewer.calibrated(streams.validation)


def _scores(viewer: Viewer, footage: Footage) -> list[list[float]]:
    stream = viewer.stream(footage)
    return [turn_scores(viewer.checkpoint, footage, index, stream) for index in range(len(footage.videos))]


def _guess(seen: Sequence[tuple[float, Sequence[float]]], rate: float) -> float:
    """A threshold for about that rate: the quantile of the ratios that came at the nearest rate."""
    _, ratios = min(seen, key=lambda trial: abs(trial[0] - rate))
    ranked = sorted(ratios)
    return ranked[min(len(ranked) - 1, max(0, round((1 - rate) * len(ranked))))]


def _ratios(runs: Runs) -> list[float]:
    return [verdict.ratio for run in runs for verdict in run.verdicts if verdict.ratio is not None]


def _speak(runs: Runs, frames: Sequence[Collection[int]]) -> list[VideoRun]:
    """Runs that speak on given frames, and say nothing."""
    return [
        replace(run, verdicts=(), responses=tuple(Response(run.frame_times_s[number - 1], "") for number in sorted(numbers)))
        for run, numbers in zip(runs, frames, strict=True)
    ]


def _frame_numbers(run: VideoRun) -> frozenset[int]:
    times = {response.time_s for response in run.responses}
    return frozenset(number for number, time_s in enumerate(run.frame_times_s, start=1) if time_s in times)


def _is_same(rate: float, wanted: float) -> bool:
    return abs(rate - wanted) <= TOLERANCE * wanted


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
