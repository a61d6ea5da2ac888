"""Finding the threshold for a response rate, or for the best boundary F1, on footage that was held out.

Which ratios come depends on the threshold, since a response begins a new reference.  So a threshold is tried by watching the
footage with it.  Each trial's ratios tell where to look next, and between the largest ratio that stayed silent and the smallest
that responded, any threshold gives the very same responses: the middle of that gap is taken.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from livestar.config import StreamConfig
from livestar.engine.admission import DEFAULT_GATE, resolve_gate
from livestar.errors import InvalidCheckpoint, InvalidConfig
from livestar.evaluation.boundaries import score_boundaries
from livestar.evaluation.footage import Footage
from livestar.evaluation.policies import Gate
from livestar.evaluation.runs import response_rate, truth_rate
from livestar.evaluation.watching import check_failures, watch
from livestar.gate.threshold import DEFAULT_THRESHOLD
from livestar.model.config import load_config
from livestar.model.memo import remembered_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livestar.annotations.types import AnnotatedVideo
    from livestar.evaluation.runs import VideoRun
    from livestar.session import Checkpoint

Objective = Literal["rate", "f1"]

MAX_TRIALS = 10
"""Times that the footage is watched, at most."""
TOLERANCE = 0.04
"""A rate this near the one asked for, as a share of it, is near enough."""
F1_RATES = (0.5, 0.75, 1.0, 1.5, 2.0)
"""Response rates that are tried for the best F1, as multiples of the truth's."""
MIN_STEP, WIDE_STEP = 1.001, 1.2
"""Ratio of two thresholds that are worth telling apart, and how far above all others to look."""
MIN_THRESHOLD, MAX_THRESHOLD = 1.0, 1e6
"""No threshold below 1 is tried or given: it would answer frames that the old caption fits better than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one threshold came to."""

    threshold: float
    response_rate: float
    boundary_f1: float
    """Mean of those at +-1 s and +-2 s."""
    ratios: tuple[float, ...] = field(repr=False)
    """Ratios of all verifications, ascending."""
    same_from: float
    """Thresholds from here on, and below `same_to`, give the very same responses."""
    same_to: float

    @property
    def middle(self) -> float:
        """The threshold farthest from changing any response of this trial."""
        if self.same_from > 0 and math.isfinite(self.same_to):
            return max(MIN_THRESHOLD, math.sqrt(self.same_from * self.same_to))
        return self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold, what it gives on the footage, and all that was tried."""

    threshold: float
    response_rate: float
    boundary_f1: float
    wanted_rate: float
    trials: tuple[Trial, ...]


def calibrate_threshold(
    checkpoint: Checkpoint,
    videos: Sequence[AnnotatedVideo],
    *,
    response_rate: float | None,
    fps: float,
    objective: Objective = "rate",
    stream: StreamConfig | None = None,
    num_workers: int = 1,
) -> float:
    """The threshold for held-out videos, as `calibrate` finds it; for a training job to call after a run."""
    footage = Footage(videos, fps=fps, image_size=checkpoint.model.config.vision.image_size)
    return calibrate(
        checkpoint, footage, response_rate=response_rate, objective=objective, stream=stream, num_workers=num_workers
    ).threshold


def calibrate(
    checkpoint: Checkpoint,
    footage: Footage,
    *,
    response_rate: float | None = None,
    objective: Objective = "rate",
    stream: StreamConfig | None = None,
    num_streams: int = 8,
    num_workers: int = 1,
    on_frame: Callable[[], None] | None = None,
) -> Calibration:
    """Searches the threshold for a response rate, counted without first frames; None is the truth's own rate.

    A rate that only a threshold below `MIN_THRESHOLD` would give ends in the nearest.  With the objective `f1` rates around that
    one are tried and the best boundary F1 wins.  Raises `InvalidConfig` where no rate can be aimed at, and the error of the first
    video that cannot be watched.
    """

    def run(threshold: float) -> tuple[VideoRun, ...]:
        watched = watch(
            checkpoint,
            footage,
            Gate(threshold),
            stream=stream,
            num_streams=num_streams,
            num_workers=num_workers,
            on_frame=on_frame,
        )
        check_failures(watched)
        return watched.runs

    own = resolve_gate((stream or StreamConfig()).gate, checkpoint.model.config.watch).threshold
    with remembered_frames(checkpoint.model):
        return search(run, response_rate=response_rate, objective=objective, start=DEFAULT_THRESHOLD if own is None else own)


def search(
    run: Callable[[float], Sequence[VideoRun]],
    *,
    response_rate: float | None,
    objective: Objective = "rate",
    start: float = DEFAULT_THRESHOLD,
) -> Calibration:
    """As `calibrate`, over anything that gives the runs of a threshold."""
    trials: list[Trial] = []
    start = max(start, MIN_THRESHOLD)
    first = run(start)
    wanted = truth_rate(first) if response_rate is None else response_rate
    if not 0 < wanted < 1:
        raise InvalidConfig(
            f"the response rate to calibrate to is {wanted:g}; give a share between 0 and 1, or footage in which events begin"
        )
    trials.append(_trial(start, first))
    if objective == "rate":
        _approach(run, trials, wanted, MAX_TRIALS)
        best = min(trials, key=lambda trial: abs(trial.response_rate - wanted))
    else:
        for share in F1_RATES:
            rate = min(wanted * share, 0.99)
            _approach(run, trials, rate, min(len(trials) + 2, MAX_TRIALS))
        best = max(trials, key=lambda trial: (trial.boundary_f1, -abs(trial.response_rate - wanted)))
    return Calibration(
        threshold=best.middle,
        response_rate=best.response_rate,
        boundary_f1=best.boundary_f1,
        wanted_rate=wanted,
        trials=tuple(trials),
    )


def _approach(run: Callable[[float], Sequence[VideoRun]], trials: list[Trial], wanted: float, max_trials: int) -> None:
    """Adds trials until one is near the wanted rate, or so many were made, or nothing lies between the nearest two."""
    while len(trials) < max_trials:
        if any(abs(trial.response_rate - wanted) <= TOLERANCE * wanted for trial in trials):
            return
        threshold = _next(trials, wanted)
        if threshold is None:
            return
        trials.append(_trial(threshold, run(threshold)))


def _next(trials: list[Trial], wanted: float) -> float | None:
    """Where to look next: the quantile of the nearest trial's ratios if that lies where the rate must be, else the middle."""
    above = [trial for trial in trials if trial.response_rate > wanted]
    below = [trial for trial in trials if trial.response_rate < wanted]
    low = max((trial.same_to for trial in above), default=MIN_THRESHOLD)  # less than this gives no lower rate
    high = min((trial.same_from for trial in below), default=MAX_THRESHOLD)
    low, high = max(low, MIN_THRESHOLD), min(high, MAX_THRESHOLD)
    if low >= high:  # the rate jumps over the wanted one here; it need not fall evenly, so look elsewhere
        return _unexplored(trials, wanted)
    nearest = min(trials, key=lambda trial: abs(trial.response_rate - wanted))
    if nearest.ratios:
        place = min(len(nearest.ratios) - 1, max(0, round((1 - wanted) * len(nearest.ratios))))
        guess = max(nearest.ratios[place], MIN_THRESHOLD)
        if low < guess < high or guess == low == MIN_THRESHOLD:
            return guess
    return math.sqrt(low * high)


def _unexplored(trials: list[Trial], wanted: float) -> float | None:
    """The middle of the stretch that no trial speaks for whose neighbours come nearest to the wanted rate; None for none."""
    ranked = sorted(trials, key=lambda trial: trial.threshold)
    gaps = [
        (min(abs(below.response_rate - wanted), abs(above.response_rate - wanted)), below.same_to, above.same_from)
        for below, above in pairwise(ranked)
        if below.same_to * MIN_STEP < above.same_from
    ]
    highest = ranked[-1]
    if math.isfinite(highest.same_to):
        gaps.append((abs(highest.response_rate - wanted), highest.same_to, highest.same_to * WIDE_STEP))
    if not gaps:
        return None
    _, low, high = min(gaps)
    return math.sqrt(low * high)


def _trial(threshold: float, runs: Sequence[VideoRun]) -> Trial:
    verdicts = [verdict for run in runs for verdict in run.verdicts if verdict.ratio is not None]
    ratios = sorted(verdict.ratio for verdict in verdicts if verdict.ratio is not None)
    silent = [ratio for ratio in ratios if ratio <= threshold]
    spoken = [ratio for ratio in ratios if ratio > threshold]
    near, wide = score_boundaries(runs, 1.0), score_boundaries(runs, 2.0)
    return Trial(
        threshold=threshold,
        response_rate=response_rate(runs),
        boundary_f1=(near.f1 + wide.f1) / 2,
        ratios=tuple(ratios),
        same_from=silent[-1] if silent else 0.0,
        same_to=spoken[0] if spoken else math.inf,
    )


def is_packaged(directory: Path) -> bool:
    """Whether a model's directory is part of this installation, which no command should change."""
    return Path(str(resources.files("livestar"))).resolve() in directory.resolve().parents


def check_gate(directory: Path, gate: str) -> None:
    """Raises `InvalidConfig` where a gate is not the model's own, so that its threshold cannot be written."""
    if gate != (load_config(directory).watch.get("gate") or DEFAULT_GATE):
        raise InvalidConfig(
            f"the threshold belongs to the gate {gate!r}, which is not the model's own; leave --gate or --write out"
        )


def write_threshold(directory: Path, threshold: float, gate: str | None = None) -> None:
    """Writes a threshold into the `livestar` section of a model's config.json.  All else stays, and the file is replaced whole or
    not at all.  An adapter without a config of its own gets one: its base's, with the threshold; the base is not touched.

    `gate` is the one it was found with.  Raises `InvalidConfig` where that is not the model's own, or nothing can be written.
    """
    values = dict(load_config(directory).raw)
    own = values.get("livestar", {})
    if not isinstance(own, dict):
        raise InvalidCheckpoint(f"{directory / 'config.json'}: livestar is {own!r}; expected an object")
    section = {**own, "threshold": round(threshold, 6)}
    if gate is not None:
        check_gate(directory, gate)
    values["livestar"] = section
    path = directory / "config.json"
    temporary = directory / f".config.json.{os.getpid()}"
    try:
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o777)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidConfig(
            f"{path} cannot be written ({error.strerror}); check its permissions, or leave --write out"
        ) from error
