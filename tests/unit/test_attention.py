"""Ragged batches: positions, slots, grouping, and attention against a loop over sequences."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from livestar.cache.kv_cache import KVCache
from livestar.model.attention import sdpa
from livestar.model.attention.ragged import RaggedBatch
from livestar.model.attention.sdpa import MAX_PADDING, SMALL_GROUP_PAIRS, SdpaAttention, group_by_size
from livestar.model.config import LanguageConfig
from tests.unit.cache_oracle import tiny_cache

pytestmark = pytest.mark.unit

LENGTHS = st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 9000)), min_size=1, max_size=60)


def test_a_batch_knows_where_its_rows_stand_and_where_they_go() -> None:
    cache = tiny_cache(10, 4)
    first, second, third = cache.open(), cache.open(), cache.open()
    cache.append(first, 6)  # blocks 0, 1
    cache.append(second, 3)  # block 2
    cache.append(first, 4)  # block 3
    cache.append(third, 1)  # block 4
    batch = RaggedBatch.of(cache, [second, first, third], [3, 4, 1])
    assert batch.sequences == (second.index, first.index, third.index)
    assert batch.query_lens == (3, 4, 1)
    assert batch.context_lens == (3, 10, 1)
    assert batch.positions.tolist() == [0, 1, 2, 6, 7, 8, 9, 0]
    assert batch.slots.tolist() == [8, 9, 10, 6, 7, 12, 13, 16]


@given(LENGTHS)
def test_every_sequence_is_in_one_group_and_padding_is_bounded(lengths: list[tuple[int, int]]) -> None:
    queries = [query for query, _ in lengths]
    contexts = [query + before for query, before in lengths]
    groups = group_by_size(queries, contexts)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = max(queries[i] for i in group) * max(contexts[i] for i in group) * len(group)
        needed = sum(queries[i] * contexts[i] for i in group)
        assert len(group) == 1 or padded <= max(SMALL_GROUP_PAIRS, MAX_PADDING * needed)


def test_equal_sequences_share_a_group_and_a_long_prefill_stands_alone() -> None:
    assert [sorted(group) for group in group_by_size([1] * 50, [9000] * 50)] == [list(range(50))]
    assert group_by_size([4000, 1, 1], [4000, 900, 900]) == [[0], [1, 2]]


@pytest.mark.parametrize("small_group", [0, SMALL_GROUP_PAIRS])
@pytest.mark.parametrize(("num_kv_heads", "num_groups"), [(1, 1), (2, 3), (3, 1), (1, 4)])
def test_attention_equals_a_loop_over_sequences(
    num_kv_heads: int, num_groups: int, small_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdpa, "SMALL_GROUP_PAIRS", small_group)
    chance, noise = random.Random(num_groups), torch.Generator().manual_seed(num_kv_heads)
    head_dim, num_heads, num_layers = 4, num_kv_heads * num_groups, 2
    config = LanguageConfig(
        hidden_size=num_heads * head_dim,
        intermediate_size=8,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        vocab_size=10,
        rms_norm_eps=1e-5,
        rope_theta=100.0,
        max_position_embeddings=4096,
        bias=False,
    )
    cache = KVCache(config, num_blocks=300, block_size=3, max_sequences=9, dtype=torch.float32)
    sequences = [cache.open() for _ in range(9)]
    held = [[torch.zeros(2, 0, num_kv_heads, head_dim)] * num_layers for _ in sequences]  # keys and values
    for _ in range(8):
        members = chance.sample(range(9), chance.randint(1, 9))
        lens = [chance.choice([1, 1, 1, 2, 5, 17]) for _ in members]
        for i, count in zip(members, lens, strict=True):
            cache.append(sequences[i], count)
        batch = RaggedBatch.of(cache, [sequences[i] for i in members], lens)
        attention = SdpaAttention(cache, batch, num_groups)
        for layer in range(num_layers):
            q = torch.randn(sum(lens), num_heads, head_dim, generator=noise)
            k, v = torch.randn(2, sum(lens), num_kv_heads, head_dim, generator=noise)
            out = attention(layer, q, k, v)
            start = 0
            for i, count in zip(members, lens, strict=True):
                rows = slice(start, start + count)
                held[i][layer] = torch.cat([held[i][layer], torch.stack([k[rows], v[rows]])], dim=1)
                torch.testing.assert_close(out[rows], naive_attention(q[rows], *held[i][layer]), rtol=1e-5, atol=1e-5)
                start += count
        for i in set(range(9)) - set(members):  # a rewind in between
            keep = chance.randint(0, sequences[i].num_tokens)
            cache.truncate(sequences[i], keep)
            held[i] = [both[:, :keep] for both in held[i]]


def naive_attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Row by row and head by head: the last len(q) rows of a sequence."""
    num_groups = q.shape[1] // keys.shape[1]
    out = torch.empty_like(q)
    for row in range(len(q)):
        visible = len(keys) - len(q) + row + 1
        for head in range(q.shape[1]):
            scores = keys[:visible, head // num_groups] @ q[row, head] / q.shape[-1] ** 0.5
            out[row, head] = scores.softmax(0) @ values[:visible, head // num_groups]
    return out
