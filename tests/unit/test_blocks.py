"""The block pool: exact ids, free order, owners."""

from __future__ import annotations

import pytest

from livestar.cache.blocks import BlockPool
from livestar.errors import AtCapacity

pytestmark = pytest.mark.unit


def test_a_fresh_pool_hands_out_blocks_in_order() -> None:
    pool = BlockPool(5)
    assert pool.allocate(2) == [0, 1]
    assert pool.allocate(0) == []
    assert pool.allocate(3) == [2, 3, 4]
    assert pool.num_free == 0


def test_the_block_freed_last_is_handed_out_first() -> None:
    pool = BlockPool(5)
    pool.allocate(4)
    pool.free([1])
    pool.free([3, 0])
    assert pool.num_free == 4
    assert pool.allocate(4) == [0, 3, 1, 4]


def test_too_large_a_request_takes_nothing() -> None:
    pool = BlockPool(3)
    pool.allocate(1)
    with pytest.raises(AtCapacity, match="2 free blocks of 3, 3 are needed") as refused:
        pool.allocate(3)
    assert refused.value.retryable
    assert pool.allocate(2) == [1, 2]


def test_a_shared_block_is_free_only_when_its_last_owner_lets_go() -> None:
    pool = BlockPool(2)
    (block,) = pool.allocate(1)
    assert not pool.is_shared(block)
    pool.share([block])
    pool.share([block])
    assert pool.is_shared(block)
    pool.free([block])
    assert pool.is_shared(block)
    pool.free([block])
    assert not pool.is_shared(block)
    assert pool.num_free == 1
    pool.free([block])
    assert pool.num_free == 2


def test_freeing_or_sharing_a_free_block_is_a_bug() -> None:
    pool = BlockPool(2)
    with pytest.raises(AssertionError, match="block 0 is freed twice"):
        pool.free([0])
    with pytest.raises(AssertionError, match="block 1 is free"):
        pool.share([1])
    (block,) = pool.allocate(1)
    with pytest.raises(AssertionError, match="freed twice"):
        pool.free([block, block])
