"""The end-of-turn gate of VideoLLM-online: behind every frame the model says whether the user's turn ends there.

The score of a frame is ln(P(end of turn) / P(next frame's label)) behind its line, in the context that a stream has there: the
opening and the frames so far, the oldest gone where the context was full.  A captioner whose captions stay out of its context
is asked, so what is said changes no score, and one pass over a video gives them all.

Source: models/modeling_live.py and demo/inference.py of videollm-online; section H.2 of the design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from livestar.engine.admission import plan_stream
from livestar.errors import InvalidConfig
from livestar.evaluation.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.config import StreamConfig
    from livestar.evaluation.footage import Footage
    from livestar.session import Checkpoint


@torch.inference_mode()
def turn_scores(checkpoint: Checkpoint, footage: Footage, index: int, stream: StreamConfig) -> list[float]:
    """Scores of the frames of one video, in order.

    Raises `InvalidConfig` where the stream's gate keeps captions, or gives each frame a turn of its own.
    """
    plan = plan_stream(checkpoint.model.config, checkpoint.tokenizer, stream)
    if plan.layout.keep_captions or plan.layout.first_turn_end():
        raise InvalidConfig("the end-of-turn gate needs frames that share a turn, and no captions among them; use the gate scam")
    teacher = Teacher(checkpoint.model, plan)
    choice = [plan.prompt.turn_end[0], plan.prompt.frame_line(0, 0)[0]]
    scores = []
    for frame in footage.frames(index):
        teacher.watch(frame)
        end, label = teacher.next_logits()[choice].double()
        scores.append(float(end - label))
    return scores


def threshold_at(scores: Sequence[Sequence[float]], rate: float) -> float:
    """The threshold that `rate` of all scores lie above, those of first frames left out; there must be others."""
    ranked = sorted((score for video in scores for score in video[1:]), reverse=True)
    count = min(len(ranked), round(rate * len(ranked)))
    ranked = [ranked[0] + 1, *ranked, ranked[-1] - 1]
    return (ranked[count] + ranked[count + 1]) / 2


def frames_above(scores: Sequence[float], threshold: float) -> frozenset[int]:
    """The frames to speak on, by number from 1; the first is among them, as under every policy."""
    return frozenset(number for number, score in enumerate(scores, start=1) if number == 1 or score > threshold)
