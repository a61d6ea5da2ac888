"""Attention over the packed rows of a training batch, behind the interface of the engine's attention.

Shapes: T rows of all sequences, N query heads, K KV heads, H head width.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from training.masks import block_mask, dense_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestar.model.language import Attention
    from training.batch import Batch


NUM_QUERIES = 256
"""Rows that dense attention takes at a time.  Of the keys it touches only those that some of them see: half of them or fewer."""


class _Part(NamedTuple):
    """Some rows of a sequence, [a], and the rows that any of them sees, [b]."""

    queries: slice
    keys: Tensor
    mask: Tensor  # [a, b] bool


class DenseAttention:
    """Exact, sequence by sequence, with the mask written out; the reference, and the choice on a CPU."""

    def __init__(self, batch: Batch) -> None:
        self._parts = [part for start, stop in batch.spans for part in _parts(batch.leaves[start:stop], start)]

    def __call__(self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        num_groups = q_TNH.shape[1] // k_TKH.shape[1]
        q, k, v = (x.transpose(0, 1) for x in (q_TNH, k_TKH, v_TKH))
        k, v = k.repeat_interleave(num_groups, 0), v.repeat_interleave(num_groups, 0)
        out = [
            F.scaled_dot_product_attention(
                q[None, :, part.queries], k[None].index_select(2, part.keys), v[None].index_select(2, part.keys), part.mask
            )[0]
            for part in self._parts
        ]
        return torch.cat(out, dim=1).transpose(0, 1)


def _parts(leaves: Tensor, first: int) -> list[_Part]:
    """One sequence, whose first row is row `first` of the batch, in parts of `NUM_QUERIES` rows."""
    parts = []
    for number, rows in enumerate(dense_mask(leaves).split(NUM_QUERIES)):
        start = first + number * NUM_QUERIES
        keys = rows.any(0).nonzero().flatten()
        parts.append(_Part(slice(start, start + len(rows)), first + keys, rows[:, keys]))
    return parts


class BlockAttention:
    """FlexAttention over all rows at once: skips the blocks of the mask that nobody sees."""

    def __init__(self, batch: Batch) -> None:
        self._mask = block_mask(batch.sequences, batch.leaves)
        self._attend = _flex_attention(is_compiled=batch.leaves.is_cuda)

    def __call__(self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_TNH, k_TKH, v_TKH))
        out: Tensor = self._attend(q, k, v, block_mask=self._mask, enable_gqa=True)
        return out[0].transpose(0, 1)


@cache
def _flex_attention(*, is_compiled: bool) -> Callable[..., Any]:
    if is_compiled:
        return torch.compile(flex_attention, dynamic=True)
    return flex_attention  # slow, and without gradients on a CPU; there it is only to be compared with


def make_attention(batch: Batch) -> Attention:
    """The attention to train with where the batch is: FlexAttention on a GPU, the dense mask on a CPU."""
    return BlockAttention(batch) if batch.leaves.is_cuda else DenseAttention(batch)
