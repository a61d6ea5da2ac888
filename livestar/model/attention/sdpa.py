"""Attention through torch's scaled_dot_product_attention: any device, the reference for the other backends.

Sequences of similar size are padded to a common one and attended together, so that the number of calls does not grow with
the number of streams.  Shapes: n sequences of a group, Q and L its longest query and context, K KV heads, G query heads per
KV head, H head width.  The G heads of a group are folded into the query axis, so keys and values are never repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.cache.kv_cache import KVCache
    from livestar.model.attention.ragged import RaggedBatch

MAX_PADDING = 1.1
"""Most query-key pairs that a group computes, per pair that it needs."""
SMALL_GROUP_PAIRS = 2**12
"""Padded pairs that cost less than one more call, so that tiny sequences are always put together."""


class _Group(NamedTuple):
    num_sequences: int
    rows: Tensor  # which new row each padded query is, [n * Q]
    slots: Tensor  # where each padded context row lies in the pool, [n * L]
    mask: Tensor  # 0 where a query sees a context row, else -inf, [n, 1, G * Q, L]


def group_by_size(query_lens: Sequence[int], context_lens: Sequence[int]) -> list[list[int]]:
    """Splits sequences into groups to pad together, so that padding stays within `MAX_PADDING` or is negligible."""
    order = sorted(range(len(query_lens)), key=lambda i: (query_lens[i], context_lens[i]), reverse=True)
    groups: list[list[int]] = []
    longest_query = longest_context = needed = 0
    for i in order:
        query, context = max(longest_query, query_lens[i]), max(longest_context, context_lens[i])
        pairs = needed + query_lens[i] * context_lens[i]
        padded = query * context * (len(groups[-1]) + 1) if groups else 0
        if groups and (padded <= SMALL_GROUP_PAIRS or padded <= MAX_PADDING * pairs):
            groups[-1].append(i)
            longest_query, longest_context, needed = query, context, pairs
        else:
            groups.append([i])
            longest_query, longest_context, needed = query_lens[i], context_lens[i], query_lens[i] * context_lens[i]
    return groups


class SdpaAttention:
    """Appends one batch's keys and values to the cache and attends to all that each row may see."""

    def __init__(self, cache: KVCache, batch: RaggedBatch, num_groups: int) -> None:
        """`num_groups` is the number of query heads per KV head."""
        self._cache = cache
        self._batch = batch
        groups = group_by_size(batch.query_lens, batch.context_lens)
        starts = [0]
        for length in batch.query_lens:
            starts.append(starts[-1] + length)
        self._groups = [self._prepare(members, starts, num_groups) for members in groups]
        self._order = self._unpad(groups, starts)

    def __call__(self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.index_copy_(0, self._batch.slots, k_TKH)
        values.index_copy_(0, self._batch.slots, v_TKH)
        num_kv_heads = k_TKH.shape[1]
        padded = []
        for group in self._groups:
            n = group.num_sequences
            q = q_TNH.index_select(0, group.rows).unflatten(0, (n, -1)).unflatten(2, (num_kv_heads, -1))  # [n, Q, K, G, H]
            q_nKXH = q.permute(0, 2, 3, 1, 4).flatten(2, 3)
            k_nKLH = keys.index_select(0, group.slots).unflatten(0, (n, -1)).transpose(1, 2)
            v_nKLH = values.index_select(0, group.slots).unflatten(0, (n, -1)).transpose(1, 2)
            out = F.scaled_dot_product_attention(q_nKXH, k_nKLH, v_nKLH, attn_mask=group.mask)
            out = out.unflatten(2, (q.shape[3], q.shape[1]))  # [n, K, G, Q, H]
            padded.append(out.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1, 2))
        return torch.cat(padded).index_select(0, self._order)

    def _prepare(self, members: Sequence[int], starts: Sequence[int], num_groups: int) -> _Group:
        cache, batch = self._cache, self._batch
        device = batch.slots.device
        query_lens = torch.tensor([batch.query_lens[i] for i in members], device=device)
        context_lens = torch.tensor([batch.context_lens[i] for i in members], device=device)
        firsts = torch.tensor([starts[i] for i in members], device=device)
        tables = cache.block_tables[torch.tensor([batch.sequences[i] for i in members], device=device)]
        queries = torch.arange(max(batch.query_lens[i] for i in members), device=device)
        contexts = torch.arange(max(batch.context_lens[i] for i in members), device=device)

        in_query = torch.minimum(queries, query_lens[:, None] - 1)  # padding repeats the last row
        in_context = torch.minimum(contexts, context_lens[:, None] - 1)
        rows = firsts[:, None] + in_query
        slots = tables.gather(1, in_context // cache.block_size) * cache.block_size + in_context % cache.block_size
        last_visible = (context_lens - query_lens)[:, None] + in_query
        hidden = contexts > last_visible[:, :, None]  # [n, Q, L]
        mask = torch.zeros(hidden.shape, dtype=cache.keys.dtype, device=device).masked_fill_(hidden, -torch.inf)
        mask = mask.repeat(1, num_groups, 1).unsqueeze(1)  # once a batch: as booleans every layer would convert it anew
        return _Group(len(members), rows.flatten(), slots.flatten(), mask)

    def _unpad(self, groups: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """For each new row, its place among the groups' padded outputs: [T]."""
        order: list[Tensor] = [torch.empty(0)] * len(self._batch.query_lens)
        offset = 0
        for members in groups:
            width = max(self._batch.query_lens[i] for i in members)
            for place, i in enumerate(members):
                first = offset + place * width
                order[i] = torch.arange(first, first + self._batch.query_lens[i], device=self._batch.slots.device)
            offset += width * len(members)
        return torch.cat(order)
