"""A whole evaluation: runs, every metric, and the floors, as one object that a report can be made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestar.errors import InvalidRequest
from livestar.evaluation.boundaries import boundaries_of, score_boundaries
from livestar.evaluation.pauc import START_QUALITY
from livestar.evaluation.runs import caption_of, responses_in
from livestar.evaluation.scores import score_runs
from livestar.evaluation.similarity import event_similarities, score_similarity
from livestar.evaluation.timing import score_video

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.evaluation.runs import VideoRun
    from livestar.evaluation.similarity import TextEmbedder
    from livestar.evaluation.watching import Failure

RANDOM_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was evaluated and what came of it."""

    scores: dict[str, object]
    """The summary: metrics, counts, `floors`."""
    settings: dict[str, object]
    """What was asked for, so that a report can be read alone."""
    runs: tuple[VideoRun, ...]
    failures: tuple[Failure, ...] = ()
    similarities: tuple[tuple[float, ...], ...] = ()
    """For each run the similarity of each event; empty where it was left out."""

    def summary(self) -> dict[str, object]:
        """One JSON object without the videos' details."""
        failures = [{"video": failure.name, "error": failure.error} for failure in self.failures]
        return {**self.scores, "num_failed": len(failures), "failures": failures, "settings": self.settings}

    def details(self) -> dict[str, object]:
        """One JSON object with every video's events, responses and verdicts."""
        texts = self.similarities or ((),) * len(self.runs)
        videos = [_video_record(run, similar) for run, similar in zip(self.runs, texts, strict=True)]
        return {**self.summary(), "videos": videos}


def evaluate_runs(
    runs: Sequence[VideoRun], *, settings: dict[str, object], embedder: TextEmbedder | None = None, seed: int = RANDOM_SEED
) -> Evaluation:
    """Scores runs that are there already, such as those of a predictions file.

    Raises `InvalidRequest` where there are runs, but no frame or no event was seen in any.
    """
    _check_seen(runs)
    scores = score_runs(runs, seed)
    similarities: tuple[tuple[float, ...], ...] = ()
    if embedder is not None:
        scores.update(score_similarity(runs, embedder))
        similarities = tuple(tuple(event_similarities(run, embedder)) for run in runs)
        silent = _floor(scores, "silent")
        silent["similarity"], silent["pauc"] = 0.0, START_QUALITY
    return Evaluation(scores=floors_last(scores), settings=settings, runs=tuple(runs), similarities=similarities)


def _check_seen(runs: Sequence[VideoRun]) -> None:
    """Zeros are no scores: refuses runs in which there was nothing to be right or wrong about."""
    num_frames = sum(len(run.frame_times_s) for run in runs)
    if runs and not num_frames:
        raise InvalidRequest("no frame was watched, so there is nothing to score; choose a longer --part, or a higher --fps")
    if runs and not any(run.events for run in runs):
        raise InvalidRequest(
            f"none of the {num_frames} frames lies in an event, so there is nothing to score; choose another --part, or a "
            "higher --fps"
        )


def floors_last(scores: dict[str, object]) -> dict[str, object]:
    """The same scores, with the floors behind the numbers they belong to."""
    return {**{key: value for key, value in scores.items() if key != "floors"}, "floors": scores["floors"]}


def _floor(scores: dict[str, object], name: str) -> dict[str, object]:
    found = scores["floors"]
    assert isinstance(found, dict)
    floor = found[name]
    assert isinstance(floor, dict)
    return floor


def _video_record(run: VideoRun, similarities: Sequence[float]) -> dict[str, object]:
    """One video of the detailed report."""
    texts: list[float | None] = list(similarities) or [None] * len(run.events)
    return {
        "video": run.name,
        "begin_s": run.begin_s,
        "end_s": run.end_s,
        "num_frames": len(run.frame_times_s),
        **score_video(run)._asdict(),
        "boundary_f1_1s": score_boundaries([run], 1.0).f1,
        "boundary_f1_2s": score_boundaries([run], 2.0).f1,
        "boundaries_s": boundaries_of(run),
        "events": [
            {
                "begin_s": event.begin_s,
                "end_s": event.end_s,
                "caption": event.caption,
                "said": caption_of(run, event),
                "num_responses": len(responses_in(run, event)),
                "similarity": similarity,
            }
            for event, similarity in zip(run.events, texts, strict=True)
        ],
        "responses": [
            {"time_s": response.time_s, "text": response.text, "is_first_frame": run.is_first_frame(response.time_s)}
            for response in run.responses
        ],
        "verdicts": [
            {
                "time_s": verdict.time_s,
                "is_response": verdict.is_response,
                "perplexity": verdict.perplexity,
                "reference_perplexity": verdict.reference_perplexity,
                "ratio": verdict.ratio,
                "threshold": verdict.threshold,
            }
            for verdict in run.verdicts
        ],
        "notes": list(run.notes),
    }
