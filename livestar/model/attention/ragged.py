"""The shape of one batch: new rows of several sequences, appended to what the cache holds of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestar.cache.kv_cache import KVCache, KVSequence


@dataclass(frozen=True, slots=True)
class RaggedBatch:
    """New rows of `n` sequences, T in all, one sequence after the other; the cache already has room for them."""

    sequences: tuple[int, ...]
    """Each sequence's row in `KVCache.block_tables`."""
    query_lens: tuple[int, ...]
    """New rows of each sequence."""
    context_lens: tuple[int, ...]
    """Rows of each sequence, the new ones included."""
    positions: Tensor
    """Where each new row stands in its sequence: [T] int64."""
    slots: Tensor
    """Where each new row's keys and values go in the pool: [T] int64."""

    @classmethod
    def of(cls, cache: KVCache, sequences: Sequence[KVSequence], query_lens: Sequence[int]) -> Self:
        """The batch of the last `query_lens[i]` rows of `sequences[i]`."""
        device = cache.block_tables.device
        lens = torch.tensor(query_lens, device=device)
        firsts = torch.tensor([s.num_tokens - n for s, n in zip(sequences, query_lens, strict=True)], device=device)
        starts = lens.cumsum(0) - lens
        positions = torch.arange(sum(query_lens), device=device) + (firsts - starts).repeat_interleave(lens)
        owners = torch.tensor([s.index for s in sequences], device=device).repeat_interleave(lens)
        slots = cache.block_tables[owners, positions // cache.block_size] * cache.block_size + positions % cache.block_size
        return cls(
            sequences=tuple(s.index for s in sequences),
            query_lens=tuple(query_lens),
            context_lens=tuple(s.num_tokens for s in sequences),
            positions=positions,
            slots=slots,
        )
