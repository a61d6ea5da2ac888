"""The end-of-turn gate of VideoLLM-online: behind every frame the model says whether the user's turn ends there.

The score of a frame is ln(P(end of turn) / P(next frame's label)) behind its line, in the context that a stream has there: the
opening and the frames so far, the oldest gone where the context was full.  A captioner whose captions stay out of its context
is asked, so what is said changes no score, and one pass over a video gives them all.

Source: models/modeling_live.py and demo/inference.py of videollm-online; section H.2 of the design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from livestar.cache.kv_cache import KVCache
from livestar.engine.admission import plan_stream
from livestar.engine.context import StreamContext
from livestar.errors import InvalidConfig
from livestar.model.attention.ragged import RaggedBatch
from livestar.model.attention.sdpa import SdpaAttention
from livestar.retention.base import Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestar.config import StreamConfig
    from livestar.engine.admission import StreamPlan
    from livestar.evaluation.footage import Footage
    from livestar.model.livestar import LiveStarModel
    from livestar.session import Checkpoint

BLOCK_SIZE = 16


@torch.inference_mode()
def turn_scores(checkpoint: Checkpoint, footage: Footage, index: int, stream: StreamConfig) -> list[float]:
    """Scores of the frames of one video, in order.

    Raises `InvalidConfig` where the stream's gate keeps captions, or gives each frame a turn of its own.
    """
    plan = plan_stream(checkpoint.model.config, checkpoint.tokenizer, stream)
    if plan.layout.keep_captions or plan.layout.first_turn_end():
        raise InvalidConfig("the end-of-turn gate needs frames that share a turn, and no captions among them; use the gate scam")
    reader = _Reader(checkpoint.model, plan)
    return [reader.read(frame.index, torch.from_numpy(frame.image)) for frame in footage.frames(index)]


def threshold_at(scores: Sequence[Sequence[float]], rate: float) -> float:
    """The threshold that `rate` of all scores lie above, those of first frames left out; there must be others."""
    ranked = sorted((score for video in scores for score in video[1:]), reverse=True)
    count = min(len(ranked), round(rate * len(ranked)))
    ranked = [ranked[0] + 1, *ranked, ranked[-1] - 1]
    return (ranked[count] + ranked[count + 1]) / 2


def frames_above(scores: Sequence[float], threshold: float) -> frozenset[int]:
    """The frames to speak on, by number from 1; the first is among them, as under every policy."""
    return frozenset(number for number, score in enumerate(scores, start=1) if number == 1 or score > threshold)


class _Reader:
    """One stream's context."""

    def __init__(self, model: LiveStarModel, plan: StreamPlan) -> None:
        config = model.config.language
        self._model = model
        self._plan = plan
        self._cache = KVCache(
            config,
            num_blocks=-(-plan.capacity // BLOCK_SIZE),
            block_size=BLOCK_SIZE,
            max_sequences=1,
            dtype=model.dtype,
            device=model.device,
        )
        self._num_groups = config.num_heads // config.num_kv_heads
        self._context = StreamContext(self._cache, plan.capacity)
        self._context.commit(Unit("opening", len(plan.opening)), plan.opening)
        self._choice = torch.tensor([plan.prompt.turn_end[0], plan.prompt.frame_line(0, 0)[0]], device=model.device)

    def read(self, number: int, image: Tensor) -> float:
        """Takes the next frame, [S, S, 3], and scores it."""
        evicted = self._plan.retention.select(self._context.units, self._plan.budget)
        if evicted:
            self._context.evict(evicted)
        line = self._plan.layout.frame(self._plan.prompt.frame_line(number, 0), is_first=False)
        self._context.commit(Unit("frame", len(line), 1, number), line)
        rows = self._context.branch((), 1)
        sequence = self._context.sequence
        self._cache.append(sequence, len(rows))
        batch = RaggedBatch.of(self._cache, [sequence], [len(rows)])
        attention = SdpaAttention(self._cache, batch, self._num_groups)
        language = self._model.language_model
        hidden: Tensor = language(self._embed(rows, image), batch.positions, attention)
        end, label = language.logits(hidden[-1:])[0].float()[self._choice]
        return float(end.double() - label.double())

    def _embed(self, rows: list[int], image: Tensor) -> Tensor:
        index = torch.tensor(rows, device=self._model.device)
        embedded: Tensor = self._model.language_model.embed(index.clamp(min=0))
        embedded[index < 0] = self._model.encode_frames(image.unsqueeze(0))[0].to(embedded.dtype)
        return embedded
