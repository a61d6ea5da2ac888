"""Streaming causal attention masks (SCAM): who sees whom among the rows of packed sequences.

A row sees itself and what stands before it in its own sequence, except leaves of which it is no part:

    visible(query, key) = key <= query and same sequence and (leaf[key] == 0 or leaf[key] == leaf[query])

The paper's terminal captions need no rule of their own: they are rows of the trunk (see `training.sequence`).
Source: section 3.1 of the paper; `get_4d_mask` of the released training code, which keeps every caption hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def dense_mask(leaves: Tensor) -> Tensor:
    """One sequence's mask: leaf numbers [L] -> [L, L] bool, True where the query (first axis) sees the key."""
    places = torch.arange(len(leaves), device=leaves.device)
    is_trunk_or_own = (leaves[None, :] == 0) | (leaves[None, :] == leaves[:, None])
    return (places[None, :] <= places[:, None]) & is_trunk_or_own


def mask_mod(sequences: Tensor, leaves: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The same rule over packed rows, as FlexAttention asks for it: sequence numbers and leaf numbers, [T] each."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_trunk_or_own = (leaves[key] == 0) | (leaves[key] == leaves[query])
        return (key <= query) & (sequences[key] == sequences[query]) & is_trunk_or_own

    return visible


def block_mask(sequences: Tensor, leaves: Tensor) -> BlockMask:
    """The mask of packed rows for `flex_attention`; blocks that nobody sees are never computed."""
    num_rows = len(leaves)
    return create_block_mask(mask_mod(sequences, leaves), None, None, num_rows, num_rows, device=str(leaves.device))
