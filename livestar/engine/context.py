"""A stream's context: units of rows that are there to stay, and behind them a fork that comes and goes.

    |<------------- committed ------------->|
    | opening | frame | frame | caption | frame | verification ...
    |<------- num_cached ------->|<- pending ->|
    |<------------------ in the KV cache ---------------->|

Committed rows enter the cache with the next fork that is laid behind them, so that a silent frame costs one pass and not two.
What the cache already holds behind `num_cached` is kept as far as it equals what is wanted next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestar.cache.eviction import Span
from livestar.errors import ContextFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.cache.kv_cache import KVCache
    from livestar.model.prompt import Rows
    from livestar.retention.base import Unit


class StreamContext:
    """Owns one sequence of the KV cache."""

    def __init__(self, cache: KVCache, capacity: int) -> None:
        """`capacity` is the most rows that the sequence may ever hold, forks included."""
        self._cache = cache
        self.capacity = capacity
        self.sequence = cache.open()
        self.units: list[Unit] = []
        self.num_committed = 0
        self._num_cached = 0
        self._pending: list[int] = []
        self._fork: list[int] = []

    def close(self) -> None:
        """Gives all blocks back."""
        self._cache.close(self.sequence)

    def commit(self, unit: Unit, rows: Rows) -> None:
        """Adds a unit to what stays."""
        assert unit.num_tokens == len(rows)
        self.units.append(unit)
        self._pending.extend(rows)
        self.num_committed += len(rows)

    def branch(self, rows: Rows, num_logits: int) -> list[int]:
        """Lays a fork behind the committed rows; what the cache does not hold yet must now be fed to the model.

        Returns those rows.  At least the last `num_logits` are among them, since their logits are wanted.  Raises
        `ContextFull` where the sequence would outgrow its capacity.
        """
        wanted = [*self._pending, *rows]
        self._check_capacity(self._num_cached + len(wanted))
        num_kept = _common_prefix(wanted, self._fork, limit=len(wanted) - num_logits)
        self._cache.truncate(self.sequence, self._num_cached + num_kept)
        self._num_cached += len(self._pending)
        self._pending = []
        self._fork = list(rows)
        return wanted[num_kept:]

    def extend(self, row: int) -> None:
        """Adds one row to the fork, to be fed next."""
        self._check_capacity(self._num_cached + len(self._fork) + 1)
        self._fork.append(row)

    def evict(self, indices: Sequence[int]) -> None:
        """Removes units, oldest index first, from the context and the cache.  The fork is dropped."""
        chosen = set(indices)
        cached: list[Span] = []
        pending: list[int] = []
        start = 0
        for i, unit in enumerate(self.units):
            stop = start + unit.num_tokens
            if start >= self._num_cached and i not in chosen:
                pending.extend(self._pending[start - self._num_cached : stop - self._num_cached])
            elif start < self._num_cached and i in chosen:
                cached.append(Span(start, stop))
            start = stop
        self._cache.truncate(self.sequence, self._num_cached)
        self._fork = []
        self._cache.evict(self.sequence, cached)
        self.units = [unit for i, unit in enumerate(self.units) if i not in chosen]
        self._num_cached -= sum(span.stop - span.start for span in cached)
        self._pending = pending
        self.num_committed = self._num_cached + len(pending)

    def _check_capacity(self, num_rows: int) -> None:
        if num_rows > self.capacity:
            raise ContextFull(
                f"the context would grow to {num_rows} tokens, over the {self.capacity} set aside for it; "
                "raise --kv-tokens or lower --max-new-tokens"
            )


def _common_prefix(wanted: Sequence[int], held: Sequence[int], limit: int) -> int:
    length = 0
    for a, b in zip(wanted[:limit], held, strict=False):
        if a != b:
            break
        length += 1
    return length
