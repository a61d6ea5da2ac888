"""The pool that KV blocks come from and go back to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestar.errors import AtCapacity

if TYPE_CHECKING:
    from collections.abc import Iterable


class BlockPool:
    """Counts the owners of each block.  A block is free when nobody owns it; the one freed last is handed out first."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_owners = [0] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that nobody owns."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Takes `count` free blocks, or none at all: raises `AtCapacity` when there are fewer."""
        if count > len(self._free):
            raise AtCapacity(
                f"the KV pool has {len(self._free)} free blocks of {self.num_blocks}, {count} are needed; enlarge it"
            )
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._num_owners[block] = 1
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Adds an owner to each block."""
        for block in blocks:
            assert self._num_owners[block] > 0, f"block {block} is free"
            self._num_owners[block] += 1

    def free(self, blocks: Iterable[int]) -> None:
        """Takes an owner from each block; those without any go back to the pool."""
        for block in blocks:
            assert self._num_owners[block] > 0, f"block {block} is freed twice"
            self._num_owners[block] -= 1
            if self._num_owners[block] == 0:
                self._free.append(block)

    def is_shared(self, block: int) -> bool:
        """Whether more than one sequence reads the block, so that none may write it."""
        return self._num_owners[block] > 1
