"""Perplexity and token accuracy of the truth's captions, teacher-forced in the model's own layout.

For every event its canonical caption is scored once, behind the event's last frame, end-of-turn token included.  The context is
what the gate would have if the model had said exactly the truth: all frames so far, and the captions of earlier events where
the gate keeps captions.  That is the released `streaming_evaluate` with the mask of inference instead of a plain causal dialogue.
When the context is full its oldest frames go.  Means are over a video's events, then over videos.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from livestar.annotations.sampled import lies_in
from livestar.config import RetentionConfig, StreamConfig
from livestar.engine.admission import make_prompt, plan_stream
from livestar.evaluation.teacher import CaptionScore, Teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from livestar.annotations.types import Event
    from livestar.evaluation.footage import Footage
    from livestar.model.prompt import CaptionRows
    from livestar.session import Checkpoint
    from livestar.types import Frame


def score_likelihood(
    checkpoint: Checkpoint,
    footage: Footage,
    stream: StreamConfig | None = None,
    *,
    left_out: Container[int] = (),
    on_frame: Callable[[], None] | None = None,
) -> dict[str, float | None]:
    """`perplexity` and `token_accuracy`; None where no event was seen.

    `left_out` holds indices of videos that cannot be watched.  Raises `SourceError` and `InvalidConfig`.
    """
    by_video = []
    for index in range(len(footage.videos)):
        if index in left_out:
            continue
        scores = score_captions(checkpoint, footage, index, stream, on_frame=on_frame)
        if scores:
            by_video.append(CaptionScore(*(fmean(column) for column in zip(*scores, strict=True))))
    return {
        "perplexity": fmean(score.perplexity for score in by_video) if by_video else None,
        "token_accuracy": fmean(score.token_accuracy for score in by_video) if by_video else None,
    }


@torch.inference_mode()
def score_captions(
    checkpoint: Checkpoint,
    footage: Footage,
    index: int,
    stream: StreamConfig | None = None,
    *,
    on_frame: Callable[[], None] | None = None,
) -> list[CaptionScore]:
    """Scores of the captions of one video's events, in order; events without a frame are left out."""
    video = footage.videos[index]
    stream = StreamConfig() if stream is None else stream
    prompt = make_prompt(checkpoint.model.config, checkpoint.tokenizer)
    longest = max((len(prompt.caption(event.caption).targets) for event in video.events), default=1)
    stream = replace(
        stream,
        retention=RetentionConfig(name="window", kv_tokens=stream.retention.kv_tokens),
        sampling=replace(stream.sampling, max_new_tokens=max(longest, 1)),
    )
    teacher = Teacher(checkpoint.model, plan_stream(checkpoint.model.config, checkpoint.tokenizer, stream))
    scores = []
    told: CaptionRows | None = None
    begun: Event | None = None
    for frame, following in _with_next(footage.frames(index)):
        event = next((event for event in video.events if lies_in(frame.pts_s, event)), None)
        if event is not begun and event is not None:
            if told is not None:
                teacher.close_clip(told)
                told = None
            begun = event
        teacher.watch(frame)
        if on_frame is not None:
            on_frame()
        if event is not None and (following is None or not lies_in(following.pts_s, event)):
            told = prompt.caption(event.caption)
            scores.append(teacher.score(told))
    return scores


def _with_next(frames: Iterator[Frame]) -> Iterator[tuple[Frame, Frame | None]]:
    """Each frame with the one after it."""
    before: Frame | None = None
    for frame in frames:
        if before is not None:
            yield before, frame
        before = frame
    if before is not None:
        yield before, None
