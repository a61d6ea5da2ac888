"""A context that is told what to hold: frames, captions, and forks to be scored, without any gate.

It lays rows as the engine does (`livestar.engine.stream`), through the same layouts, context and cache.  When it is full its
units go as the plan's retention says.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from livestar.cache.kv_cache import KVCache
from livestar.engine.context import StreamContext
from livestar.model.attention.ragged import RaggedBatch
from livestar.model.attention.sdpa import SdpaAttention
from livestar.retention.base import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from livestar.engine.admission import StreamPlan
    from livestar.model.livestar import LiveStarModel
    from livestar.model.prompt import CaptionRows, Rows
    from livestar.types import Frame

BLOCK_SIZE = 16
NUM_SLOTS = 16
"""Frames whose visual tokens wait to be fed together."""
MAX_MEAN_NLL = 709.0
"""exp of more overflows."""


class CaptionScore(NamedTuple):
    """One caption, as the answer to all that was seen."""

    perplexity: float
    """exp of the mean over its tokens and the end of the turn."""
    token_accuracy: float
    """Share of those that the model finds likeliest."""


class Teacher:
    """One stream's context, fed with the truth."""

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
        self._visual: dict[int, Tensor] = {}
        self._num_frames = 0
        self._clip = 1

    def watch(self, frame: Frame) -> None:
        """Adds a frame to the context."""
        evicted = self._plan.retention.select(self._context.units, self._plan.budget)
        if evicted:
            self._context.evict(evicted)
        if len(self._visual) == NUM_SLOTS:
            self._feed((), 0)
        slot = self._num_frames % NUM_SLOTS
        self._visual[slot] = self._model.encode_frames(torch.from_numpy(frame.image).unsqueeze(0))[0]
        is_first = self._num_frames == 0
        rows = self._plan.layout.frame(self._plan.prompt.frame_line(frame.index, slot), is_first=is_first)
        staying = self._plan.layout.first_turn_end() if is_first else ()
        rows = rows[: len(rows) - len(staying)]
        self._context.commit(Unit("frame", len(rows), self._clip, frame.index), rows)
        if staying:
            self._context.commit(Unit("opening", len(staying)), staying)
        self._num_frames += 1

    def next_logits(self) -> Tensor:
        """Logits [vocab] of what follows the newest frame's rows."""
        return self._model.language_model.logits(self._feed((), 1))[0].float()

    def close_clip(self, caption: CaptionRows) -> None:
        """Leaves a caption behind its clip, where the gate keeps captions."""
        rows = self._plan.layout.closing(caption)
        if rows:
            self._context.commit(Unit("caption", len(rows), self._clip, self._num_frames), rows)
        self._clip += 1

    def score(self, caption: CaptionRows) -> CaptionScore:
        """Scores a caption as the answer to all that was seen."""
        header = self._plan.prompt.assistant_header
        return self._score(self._plan.layout.answer()[: -len(header)], caption)

    def score_answer(self, question: str, answer: CaptionRows) -> CaptionScore:
        """Scores an answer to a question that is asked after all that was seen; neither stays."""
        prompt = self._plan.prompt
        asked = tuple(prompt.tokenizer.encode(question))
        is_turn_over = self._plan.layout.answer() == prompt.assistant_header
        return self._score((prompt.user_header if is_turn_over else ()) + asked + prompt.turn_end, answer)

    def _score(self, before: Rows, answer: CaptionRows) -> CaptionScore:
        targets = torch.tensor(answer.targets, device=self._model.device)
        hidden = self._feed(before + answer.rows, len(targets))
        logits = self._model.language_model.logits(hidden).float()
        nll = float(F.cross_entropy(logits, targets))
        return CaptionScore(math.exp(min(nll, MAX_MEAN_NLL)), float((logits.argmax(-1) == targets).float().mean()))

    def _feed(self, fork: Rows, num_wanted: int) -> Tensor:
        """Feeds what waits, and a fork behind it; hidden states of the last `num_wanted` rows."""
        rows = self._context.branch(fork, num_wanted)
        sequence = self._context.sequence
        self._cache.append(sequence, len(rows))
        batch = RaggedBatch.of(self._cache, [sequence], [len(rows)])
        attention = SdpaAttention(self._cache, batch, self._num_groups)
        hidden: Tensor = self._model.language_model(self._embed(rows), batch.positions, attention)
        self._visual.clear()
        return hidden[len(rows) - num_wanted :]

    def _embed(self, rows: list[int]) -> Tensor:
        """[len(rows), hidden]: token embeddings, and for negative rows the visual tokens they stand for."""
        index = torch.tensor(rows, device=self._model.device)
        embedded = self._model.language_model.embed(index.clamp(min=0))
        if self._visual:
            table = torch.zeros(NUM_SLOTS, *next(iter(self._visual.values())).shape, dtype=embedded.dtype, device=index.device)
            for slot, tokens in self._visual.items():
                table[slot] = tokens
            visual = table.flatten(0, 1).index_select(0, (-1 - index).clamp(min=0))
            embedded = torch.where((index < 0).unsqueeze(-1), visual, embedded)
        return embedded
