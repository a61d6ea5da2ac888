"""Runs one ragged batch through the model.  The only place where tensors of rows are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from livestar.engine.sampling import sample
from livestar.model.attention.ragged import RaggedBatch
from livestar.model.attention.sdpa import SdpaAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestar.cache.kv_cache import KVCache, KVSequence
    from livestar.engine.sampling import CaptionSampler
    from livestar.model.livestar import LiveStarModel

NUM_LIVE_FRAMES = 2
"""Frames of a stream whose visual tokens may still have to be fed: the new one, and the one before if it is pending."""


class Chunk(NamedTuple):
    """New rows of one sequence."""

    sequence: KVSequence
    rows: Sequence[int]
    targets: Sequence[int]
    """What the last len(targets) rows are scored against."""
    sampler: CaptionSampler | None
    """Chooses a token after the last row, if one is wanted."""


class ChunkResult(NamedTuple):
    """What came of a chunk."""

    nll: float
    """Sum of the negative log likelihoods of its targets."""
    token: int | None


class Runner:
    """The model, its cache, and the visual tokens that wait to be fed."""

    def __init__(self, model: LiveStarModel, cache: KVCache, max_sequences: int) -> None:
        self.model = model
        self.cache = cache
        config = model.config
        num_lines = max_sequences * NUM_LIVE_FRAMES * config.num_visual_tokens
        self._visual = torch.zeros(num_lines, config.language.hidden_size, dtype=model.dtype, device=model.device)
        self._num_groups = config.language.num_heads // config.language.num_kv_heads

    def slot(self, sequence: KVSequence, num_frames: int) -> int:
        """Where the visual tokens of a sequence's next frame go, after `num_frames`.

        NOTE: frames are counted as watched; their own numbers have gaps where some were dropped.
        """
        return sequence.index * NUM_LIVE_FRAMES + num_frames % NUM_LIVE_FRAMES

    @torch.inference_mode()
    def store(self, slots: Sequence[int], visual_tokens: Tensor) -> None:
        """Keeps frames' visual tokens [n, num_visual_tokens, hidden] until they are fed."""
        table = self._visual.unflatten(0, (-1, self.model.config.num_visual_tokens))
        table[torch.tensor(slots, device=table.device)] = visual_tokens.to(table.dtype)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> list[ChunkResult]:
        """Appends each chunk's rows to its sequence and computes what it asks for."""
        for chunk in chunks:
            self.cache.append(chunk.sequence, len(chunk.rows))
        batch = RaggedBatch.of(self.cache, [c.sequence for c in chunks], [len(c.rows) for c in chunks])
        attention = SdpaAttention(self.cache, batch, self._num_groups)
        embedded = self._embed([row for chunk in chunks for row in chunk.rows])
        hidden = self.model.language_model(embedded, batch.positions, attention)
        nll = self._score(hidden, chunks)
        tokens = self._sample(hidden, chunks)
        return [ChunkResult(n, t) for n, t in zip(nll, tokens, strict=True)]

    def _embed(self, rows: list[int]) -> Tensor:
        """[T, hidden]: token embeddings, and for negative rows the visual tokens they stand for."""
        index = torch.tensor(rows, device=self.model.device)
        is_visual = index < 0
        embedded = self.model.language_model.embed(index.clamp(min=0))
        if min(rows) < 0:
            visual = self._visual.index_select(0, (-1 - index).clamp(min=0))
            embedded = torch.where(is_visual.unsqueeze(-1), visual, embedded)
        return embedded

    def _score(self, hidden: Tensor, chunks: Sequence[Chunk]) -> list[float]:
        """Each chunk's summed negative log likelihood."""
        rows: list[int] = []
        targets: list[int] = []
        stop = 0
        for chunk in chunks:
            stop += len(chunk.rows)
            rows.extend(range(stop - len(chunk.targets), stop))
            targets.extend(chunk.targets)
        if not rows:
            return [0.0] * len(chunks)
        wanted = hidden.index_select(0, torch.tensor(rows, device=hidden.device))
        expected = torch.tensor(targets, device=hidden.device)
        nll = self.model.language_model.nll(wanted, expected)
        sums: list[float] = torch.stack([part.sum() for part in nll.split([len(c.targets) for c in chunks])]).tolist()
        return sums

    def _sample(self, hidden: Tensor, chunks: Sequence[Chunk]) -> list[int | None]:
        """The next token of each chunk that wants one."""
        last_rows, samplers, stop = [], [], 0
        for chunk in chunks:
            stop += len(chunk.rows)
            if chunk.sampler is not None:
                last_rows.append(stop - 1)
                samplers.append(chunk.sampler)
        if not samplers:
            return [None] * len(chunks)
        logits = self.model.language_model.logits(hidden.index_select(0, torch.tensor(last_rows, device=hidden.device)))
        tokens = iter(sample(logits, samplers))
        return [None if chunk.sampler is None else next(tokens) for chunk in chunks]
