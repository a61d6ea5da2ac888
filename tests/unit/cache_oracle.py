"""A KV cache beside plain lists of what each sequence ought to hold.

A row's content is a number that no other row has.  Its value is that number; its key is a vector of that number, rotated to
the row's position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from livestar.cache.eviction import Span
from livestar.cache.kv_cache import KVCache, KVSequence
from livestar.errors import AtCapacity
from livestar.model.config import LanguageConfig

HEAD_DIM = 4
THETA = 100.0


def tiny_config(*, max_positions: int = 4096, num_layers: int = 2) -> LanguageConfig:
    return LanguageConfig(
        hidden_size=2 * HEAD_DIM,
        intermediate_size=8,
        num_layers=num_layers,
        num_heads=2,
        num_kv_heads=1,
        vocab_size=10,
        rms_norm_eps=1e-5,
        rope_theta=THETA,
        max_position_embeddings=max_positions,
        bias=False,
    )


def tiny_cache(num_blocks: int, block_size: int, *, max_sequences: int = 8, max_positions: int = 4096) -> KVCache:
    return KVCache(
        tiny_config(max_positions=max_positions),
        num_blocks=num_blocks,
        block_size=block_size,
        max_sequences=max_sequences,
        dtype=torch.float32,
    )


def key_of(numbers: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """[n, HEAD_DIM]: unit vectors that depend on the number, turned to their positions."""
    half = HEAD_DIM // 2
    start = np.outer(numbers % 97, np.arange(1, half + 1)) * 0.37
    frequencies = THETA ** -(np.arange(half) / half)
    angles = start + positions[:, None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


class Twin:
    """One sequence, and the numbers it ought to hold."""

    def __init__(self, sequence: KVSequence, numbers: list[int]) -> None:
        self.sequence = sequence
        self.numbers = numbers


class CacheOracle:
    """Does every operation on both sides."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.twins: list[Twin] = []
        self.num_written = 0

    def open(self) -> Twin:
        self.twins.append(Twin(self.cache.open(), []))
        return self.twins[-1]

    def append(self, twin: Twin, count: int) -> bool:
        """False where the pool refused, which must change nothing."""
        before = (list(twin.sequence.block_table), twin.sequence.num_tokens, self.cache.pool.num_free)
        try:
            self.cache.append(twin.sequence, count)
        except AtCapacity:
            assert (twin.sequence.block_table, twin.sequence.num_tokens, self.cache.pool.num_free) == before
            return False
        rows = np.arange(len(twin.numbers), len(twin.numbers) + count)
        numbers = np.arange(self.num_written, self.num_written + count)
        self.num_written += count
        slots = self.cache.slots(twin.sequence, torch.from_numpy(rows))
        for layer in range(len(self.cache.keys)):
            self.cache.keys[layer, slots, 0] = torch.from_numpy(key_of(numbers + layer, rows)).float()
            self.cache.values[layer, slots, 0] = torch.from_numpy(numbers + layer).float()[:, None]
        twin.numbers.extend(numbers.tolist())
        return True

    def fork(self, twin: Twin) -> Twin:
        self.twins.append(Twin(self.cache.fork(twin.sequence), list(twin.numbers)))
        return self.twins[-1]

    def truncate(self, twin: Twin, num_tokens: int) -> None:
        self.cache.truncate(twin.sequence, num_tokens)
        del twin.numbers[num_tokens:]

    def evict(self, twin: Twin, spans: Sequence[tuple[int, int]]) -> bool:
        before = (list(twin.sequence.block_table), twin.sequence.num_tokens, self.cache.pool.num_free)
        try:
            self.cache.evict(twin.sequence, [Span(*span) for span in spans])
        except AtCapacity:
            assert (twin.sequence.block_table, twin.sequence.num_tokens, self.cache.pool.num_free) == before
            return False
        for start, stop in reversed(spans):
            del twin.numbers[start:stop]
        return True

    def close(self, twin: Twin) -> None:
        self.twins.remove(twin)
        self.cache.close(twin.sequence)

    def check_contents(self, twin: Twin) -> None:
        """Every row's value and, turned to where it now stands, its key."""
        rows, numbers = np.arange(len(twin.numbers)), np.array(twin.numbers, dtype=np.int64)
        assert twin.sequence.num_tokens == len(rows)
        slots = self.cache.slots(twin.sequence, torch.from_numpy(rows))
        for layer in range(len(self.cache.keys)):
            values = self.cache.values[layer, slots, 0].numpy()
            assert (values == (numbers + layer)[:, None]).all()
            np.testing.assert_allclose(self.cache.keys[layer, slots, 0].numpy(), key_of(numbers + layer, rows), atol=1e-3)

    def check_blocks(self) -> None:
        """No block leaked, none owned by more or fewer than hold it, none longer than it needs to be."""
        pool, size = self.cache.pool, self.cache.block_size
        owners = Counter(block for twin in self.twins for block in twin.sequence.block_table)
        assert pool.num_free == pool.num_blocks - len(owners)
        assert [pool.is_shared(block) for block in range(pool.num_blocks)] == [owners[b] > 1 for b in range(pool.num_blocks)]
        assert len({twin.sequence.index for twin in self.twins}) == len(self.twins)
        for twin in self.twins:
            table = twin.sequence.block_table
            assert len(table) == -(-twin.sequence.num_tokens // size)
            assert len(set(table)) == len(table)
            assert self.cache.block_tables[twin.sequence.index, : len(table)].tolist() == table
