"""Evaluating a model: watching footage under a policy, scoring what is said, and the floors that need the model again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from livestar.evaluation import floors
from livestar.evaluation.evaluation import RANDOM_SEED, Evaluation, evaluate_runs, floors_last
from livestar.evaluation.likelihood import score_likelihood
from livestar.evaluation.policies import AtFrames
from livestar.evaluation.runs import response_rate
from livestar.evaluation.scores import timing_scores
from livestar.evaluation.similarity import score_similarity
from livestar.evaluation.watching import video_names, watch
from livestar.model.memo import remembered_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livestar.config import StreamConfig
    from livestar.evaluation.footage import Footage
    from livestar.evaluation.policies import Policy
    from livestar.evaluation.runs import VideoRun
    from livestar.evaluation.similarity import TextEmbedder
    from livestar.evaluation.watching import Watched
    from livestar.session import Checkpoint


def evaluate_model(
    checkpoint: Checkpoint,
    footage: Footage,
    policy: Policy | None,
    *,
    settings: dict[str, object],
    stream: StreamConfig,
    num_streams: int,
    num_workers: int,
    embedder: TextEmbedder | None = None,
    likelihood: bool = True,
    text_floors: bool = False,
    seed: int = RANDOM_SEED,
    on_stage: Callable[[str], Callable[[], None] | None] = lambda _: None,
) -> Evaluation:
    """Watches footage under a policy and scores what is said.

    `text_floors` watches twice more: the same captioner speaks at an even interval, and on random frames, as often as the policy
    did.  `on_stage` is told what begins, and gives what to call for every frame.
    """

    def watch_with(policy: Policy | None, stage: str) -> Watched:
        return watch(
            checkpoint,
            footage,
            policy,
            stream=stream,
            num_streams=num_streams,
            num_workers=num_workers,
            on_frame=on_stage(stage),
        )

    first = watch_with(policy, "watching")
    runs = first.runs
    evaluation = evaluate_runs(runs, settings=settings, embedder=embedder, seed=seed)
    scores = {**evaluation.scores, "frames_per_second": first.frames_per_s, "num_streams": min(num_streams, len(footage.videos))}
    if likelihood and runs:
        failed = {failure.name for failure in first.failures}
        left_out = {i for i, name in enumerate(video_names(footage.videos)) if name in failed}
        on_frame = on_stage("perplexity")
        scores.update(score_likelihood(checkpoint, footage, stream, left_out=left_out, on_frame=on_frame))
    if text_floors and runs:
        found = scores["floors"]
        assert isinstance(found, dict)
        with remembered_frames(checkpoint.model):
            for name, schedule in matched_schedules(runs, seed).items():
                again = watch_with(schedule, name).runs
                found[name] = {
                    **timing_scores(again),
                    **({} if embedder is None else score_similarity(again, embedder)),
                }
    return replace(evaluation, scores=floors_last(scores), failures=first.failures)


def matched_schedules(runs: Sequence[VideoRun], seed: int) -> dict[str, AtFrames]:
    """The same captioner at the runs' own rate: at an even interval, and on random frames."""
    rate = response_rate(runs)
    spoken = {
        "captioner_interval": floors.matched(runs, rate),
        "captioner_random": floors.at_random(runs, rate, seed),
    }
    return {name: AtFrames({run.name: _frame_numbers(run) for run in chosen}) for name, chosen in spoken.items()}


def _frame_numbers(run: VideoRun) -> frozenset[int]:
    times = {response.time_s for response in run.responses}
    return frozenset(i for i, time_s in enumerate(run.frame_times_s, start=1) if time_s in times)
