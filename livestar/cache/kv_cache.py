"""Keys and values of every layer, for many sequences, in blocks.

A sequence's rows are dense and its positions contiguous: row i stands at position i.  It grows with `append`, is rewound with
`truncate`, branches with `fork` (blocks are shared until one side writes), and loses rows from its middle with `evict`, which
closes the gap.  Block tables are kept as one tensor beside the lists, so that a tick costs host work only for new tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from livestar.cache.blocks import BlockPool
from livestar.cache.eviction import Span, surviving_rows
from livestar.errors import AtCapacity
from livestar.model.language import rope_angles, rope_frequencies, rotate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestar.model.config import LanguageConfig


@dataclass(slots=True, eq=False)
class KVSequence:
    """One sequence in the cache.  Only the `KVCache` that opened it changes it."""

    index: int
    """Row of the sequence in `KVCache.block_tables`."""
    block_table: list[int]
    num_tokens: int = 0


class KVCache:
    """The pool's tensors and every operation on sequences in them."""

    def __init__(
        self,
        config: LanguageConfig,
        *,
        num_blocks: int,
        block_size: int,
        max_sequences: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.block_size = block_size
        self.pool = BlockPool(num_blocks)
        shape = (config.num_layers, num_blocks * block_size, config.num_kv_heads, config.head_dim)
        try:
            self.keys = torch.zeros(shape, dtype=dtype, device=device)
            self.values = torch.zeros(shape, dtype=dtype, device=device)
        except (RuntimeError, MemoryError) as error:
            gib = 2 * dtype.itemsize * shape[0] * shape[1] * shape[2] * shape[3] / 2**30
            raise AtCapacity(f"a KV pool of {gib:.1f} GiB does not fit on {device}; use fewer streams or --kv-tokens") from error
        max_blocks = min(num_blocks, -(-config.max_position_embeddings // block_size))
        self.block_tables = torch.zeros(max_sequences, max_blocks, dtype=torch.int64, device=device)
        self._frequencies = rope_frequencies(config, torch.device(device))
        self._free_indices = list(range(max_sequences - 1, -1, -1))

    def open(self) -> KVSequence:
        """A new, empty sequence.  Raises `AtCapacity` when `max_sequences` are open."""
        if not self._free_indices:
            raise AtCapacity(f"the KV cache has {len(self.block_tables)} sequences open, the most it was made for")
        return KVSequence(self._free_indices.pop(), [])

    def close(self, sequence: KVSequence) -> None:
        """Gives the sequence's blocks back; it must not be used again."""
        self.truncate(sequence, 0)
        self._free_indices.append(sequence.index)

    def fork(self, sequence: KVSequence) -> KVSequence:
        """A second sequence with the same rows, sharing blocks until either writes into them."""
        copy = self.open()
        self.pool.share(sequence.block_table)
        self._extend_table(copy, sequence.block_table)
        copy.num_tokens = sequence.num_tokens
        return copy

    def append(self, sequence: KVSequence, count: int) -> None:
        """Makes room for `count` more rows, whose contents the caller writes.  Raises `AtCapacity`, changing nothing."""
        start, stop = sequence.num_tokens, sequence.num_tokens + count
        num_blocks = -(-stop // self.block_size)
        if num_blocks > self.block_tables.shape[1]:
            raise AtCapacity(
                f"a sequence of {stop} tokens is longer than the {self.block_tables.shape[1] * self.block_size} it may have"
            )
        first = start // self.block_size
        tail = sequence.block_table[first : first + 1] if start % self.block_size else []
        num_copies = int(any(map(self.pool.is_shared, tail)))
        blocks = self.pool.allocate(num_blocks - len(sequence.block_table) + num_copies)
        if num_copies:
            self._replace(sequence, first, blocks.pop())
        self._extend_table(sequence, blocks)
        sequence.num_tokens = stop

    def truncate(self, sequence: KVSequence, num_tokens: int) -> None:
        """Forgets the rows from `num_tokens` on; blocks that become empty go back to the pool."""
        assert 0 <= num_tokens <= sequence.num_tokens, (num_tokens, sequence.num_tokens)
        keep = -(-num_tokens // self.block_size)
        self.pool.free(reversed(sequence.block_table[keep:]))
        del sequence.block_table[keep:]
        sequence.num_tokens = num_tokens

    def evict(self, sequence: KVSequence, spans: Sequence[Span]) -> None:
        """Removes rows [start, stop) of each span and closes the gaps.

        Surviving rows keep their order; each moves down by the rows removed before it, its key rotated back by as many
        positions (rotations compose), so that positions stay contiguous.  Blocks that become empty go back to the pool.
        """
        first, kept = surviving_rows(spans, sequence.num_tokens)
        if first == sequence.num_tokens:
            return
        self._make_writable(sequence, first // self.block_size, sequence.num_tokens)
        device = self.keys.device
        sources = torch.tensor(kept, dtype=torch.int64, device=device)
        targets = torch.arange(first, first + len(kept), device=device)
        old, new = self.slots(sequence, sources), self.slots(sequence, targets)
        angles = rope_angles(targets, self._frequencies) - rope_angles(sources, self._frequencies)
        cos, sin = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
        for keys, values in zip(self.keys, self.values, strict=True):  # layer by layer: the copy below stays small
            keys[new] = rotate(keys[old], cos, sin)
            values[new] = values[old]  # the right side is a copy, so rows may overlap
        self.truncate(sequence, first + len(kept))

    def slots(self, sequence: KVSequence, rows: Tensor) -> Tensor:
        """Where rows [n] of a sequence lie in the pool: [n] int64."""
        blocks = self.block_tables[sequence.index, rows // self.block_size]
        return blocks * self.block_size + rows % self.block_size

    def _make_writable(self, sequence: KVSequence, first_block: int, num_tokens: int) -> None:
        """Replaces shared blocks from `first_block` on by copies of its own."""
        last_block = -(-num_tokens // self.block_size)
        shared = [i for i in range(first_block, last_block) if self.pool.is_shared(sequence.block_table[i])]
        for position, block in zip(shared, self.pool.allocate(len(shared)), strict=True):
            self._replace(sequence, position, block)

    def _replace(self, sequence: KVSequence, position: int, block: int) -> None:
        """Puts a copy of a sequence's block at `position` into `block`, and owns that instead."""
        old = sequence.block_table[position]
        source = slice(old * self.block_size, (old + 1) * self.block_size)
        target = slice(block * self.block_size, (block + 1) * self.block_size)
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]
        self.pool.free([old])
        sequence.block_table[position] = block
        self.block_tables[sequence.index, position] = block

    def _extend_table(self, sequence: KVSequence, blocks: Sequence[int]) -> None:
        if blocks:
            start = len(sequence.block_table)
            sequence.block_table.extend(blocks)
            self.block_tables[sequence.index, start : start + len(blocks)] = torch.tensor(blocks, device=self.block_tables.device)
