"""The KV cache: exact blocks, and ten thousand random operations against plain lists."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from livestar.errors import AtCapacity
from tests.unit.cache_oracle import CacheOracle, tiny_cache

pytestmark = pytest.mark.unit


def test_a_sequence_takes_blocks_as_it_grows() -> None:
    cache = tiny_cache(6, 4)
    sequence = cache.open()
    tables = []
    for count in (3, 1, 1, 8):
        cache.append(sequence, count)
        tables.append(list(sequence.block_table))
    assert tables == [[0], [0], [0, 1], [0, 1, 2, 3]]
    assert sequence.num_tokens == 13
    assert cache.block_tables[sequence.index, :4].tolist() == [0, 1, 2, 3]


def test_truncating_frees_whole_blocks_and_they_come_back_in_order() -> None:
    cache = tiny_cache(6, 4)
    first, second = cache.open(), cache.open()
    cache.append(first, 16)
    cache.truncate(first, 5)
    assert first.block_table == [0, 1]
    assert cache.pool.num_free == 4
    cache.append(second, 9)
    assert second.block_table == [2, 3, 4]
    cache.truncate(first, 4)
    assert first.block_table == [0]
    cache.truncate(first, 0)
    assert first.block_table == []
    cache.append(second, 4)
    assert second.block_table == [2, 3, 4, 0]


def test_a_fork_shares_blocks_until_one_side_writes() -> None:
    oracle = CacheOracle(tiny_cache(8, 4))
    trunk = oracle.open()
    oracle.append(trunk, 6)
    branch = oracle.fork(trunk)
    assert branch.sequence.block_table == trunk.sequence.block_table == [0, 1]
    oracle.append(branch, 1)
    assert branch.sequence.block_table == [0, 2]
    oracle.append(trunk, 1)
    assert trunk.sequence.block_table == [0, 1]  # its own again, no copy
    oracle.append(branch, 2)
    assert branch.sequence.block_table == [0, 2, 3]
    oracle.check_blocks()
    oracle.check_contents(trunk)
    oracle.check_contents(branch)


def test_a_fork_at_a_block_boundary_copies_nothing() -> None:
    oracle = CacheOracle(tiny_cache(8, 4))
    trunk = oracle.open()
    oracle.append(trunk, 8)
    branch = oracle.fork(trunk)
    oracle.append(branch, 1)
    oracle.append(trunk, 1)
    assert (trunk.sequence.block_table, branch.sequence.block_table) == ([0, 1, 3], [0, 1, 2])
    oracle.close(trunk)
    assert not any(map(oracle.cache.pool.is_shared, range(8)))
    oracle.check_contents(branch)


def test_rewinding_a_fork_into_shared_rows_and_writing_leaves_the_trunk_alone() -> None:
    oracle = CacheOracle(tiny_cache(8, 4))
    trunk = oracle.open()
    oracle.append(trunk, 7)
    branch = oracle.fork(trunk)
    oracle.truncate(branch, 2)
    oracle.append(branch, 3)
    assert branch.sequence.block_table == [3, 2]  # the copy takes the last of the blocks asked for
    oracle.check_contents(trunk)
    oracle.check_contents(branch)
    oracle.check_blocks()


def test_evicting_closes_the_gap_and_frees_the_trailing_blocks() -> None:
    oracle = CacheOracle(tiny_cache(8, 4))
    twin = oracle.open()
    oracle.append(twin, 15)
    oracle.evict(twin, [(2, 5), (8, 12)])
    assert twin.numbers == [0, 1, 5, 6, 7, 12, 13, 14]
    assert twin.sequence.block_table == [0, 1]
    assert oracle.cache.pool.num_free == 6
    oracle.check_contents(twin)


def test_evicting_from_a_fork_leaves_the_trunk_alone() -> None:
    oracle = CacheOracle(tiny_cache(12, 4))
    trunk = oracle.open()
    oracle.append(trunk, 14)
    branch = oracle.fork(trunk)
    oracle.evict(branch, [(5, 7)])
    assert branch.sequence.block_table[0] == trunk.sequence.block_table[0] == 0
    assert not set(branch.sequence.block_table[1:]) & set(trunk.sequence.block_table[1:])
    for twin in (trunk, branch):
        oracle.check_contents(twin)
    oracle.check_blocks()


def test_evicting_nothing_changes_nothing() -> None:
    oracle = CacheOracle(tiny_cache(8, 4))
    trunk = oracle.open()
    oracle.append(trunk, 6)
    oracle.fork(trunk)
    oracle.evict(trunk, [])
    oracle.evict(trunk, [(3, 3)])
    assert trunk.sequence.block_table == [0, 1]
    assert oracle.cache.pool.num_free == 6


def test_evicting_the_last_rows_is_a_truncation() -> None:
    oracle = CacheOracle(tiny_cache(8, 4))
    twin = oracle.open()
    oracle.append(twin, 10)
    oracle.evict(twin, [(3, 10)])
    assert (twin.sequence.num_tokens, twin.sequence.block_table) == (3, [0])
    oracle.check_contents(twin)


def test_a_full_pool_refuses_and_changes_nothing() -> None:
    oracle = CacheOracle(tiny_cache(3, 4))
    first, second = oracle.open(), oracle.open()
    oracle.append(first, 9)
    assert not oracle.append(second, 1)
    assert not oracle.append(first, 4)
    assert oracle.append(first, 3)
    branch = oracle.fork(first)
    oracle.truncate(branch, 10)
    assert not oracle.append(branch, 1)  # needs a copy of the shared block
    assert not oracle.evict(first, [(0, 1)])
    for twin in oracle.twins:
        oracle.check_contents(twin)


def test_no_more_sequences_than_the_cache_was_made_for() -> None:
    cache = tiny_cache(4, 4, max_sequences=2)
    first, second = cache.open(), cache.open()
    assert (first.index, second.index) == (0, 1)
    with pytest.raises(AtCapacity, match="2 sequences open"):
        cache.open()
    with pytest.raises(AtCapacity):
        cache.fork(first)
    cache.close(first)
    assert cache.open().index == 0


def test_a_sequence_is_never_longer_than_the_model_allows() -> None:
    cache = tiny_cache(100, 4, max_positions=16)
    sequence = cache.open()
    cache.append(sequence, 16)
    with pytest.raises(AtCapacity, match="longer than the 16"):
        cache.append(sequence, 1)
    assert sequence.num_tokens == 16


@pytest.mark.parametrize(("seed", "num_blocks", "block_size"), [(0, 80, 4), (1, 300, 1), (2, 24, 16)])
def test_random_operations_neither_leak_nor_lose_a_row(seed: int, num_blocks: int, block_size: int) -> None:
    chance = random.Random(seed)
    oracle = CacheOracle(tiny_cache(num_blocks, block_size, max_sequences=12))
    num_refused = 0
    for number in range(3400):
        kind = chance.choices(["open", "append", "fork", "truncate", "evict", "close"], [2, 10, 3, 4, 4, 1])[0]
        opens = not oracle.twins or (kind == "open" and len(oracle.twins) < 12)
        twin = oracle.open() if opens else chance.choice(oracle.twins)
        length = len(twin.numbers)
        if kind == "append":
            num_refused += not oracle.append(twin, chance.randint(1, 20))
        elif kind == "fork" and len(oracle.twins) < 12:
            twin = oracle.fork(twin)
        elif kind == "truncate":
            oracle.truncate(twin, chance.randint(0, length))
        elif kind == "evict":
            cuts = sorted(chance.choices(range(length + 1), k=2 * chance.randint(1, 3)))
            num_refused += not oracle.evict(twin, list(zip(cuts[::2], cuts[1::2], strict=True)))
        elif kind == "close":
            oracle.close(twin)
        oracle.check_blocks()
        if twin in oracle.twins:
            oracle.check_contents(twin)
        if number % 100 == 0:
            for other in oracle.twins:
                oracle.check_contents(other)
    assert num_refused > 10  # the pool was full at times
    for twin in list(oracle.twins):
        oracle.check_contents(twin)
        oracle.close(twin)
    assert oracle.cache.pool.num_free == num_blocks
    assert sorted(oracle.cache.pool.allocate(num_blocks)) == list(range(num_blocks))


class CacheMachine(RuleBasedStateMachine):
    """The same operations, chosen by Hypothesis so that a failure is boiled down."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle = CacheOracle(tiny_cache(9, 3, max_sequences=4))

    @precondition(lambda self: len(self.oracle.twins) < 4)
    @rule()
    def open(self) -> None:
        self.oracle.open()

    @precondition(lambda self: self.oracle.twins)
    @rule(which=st.integers(0, 3), count=st.integers(1, 8))
    def append(self, which: int, count: int) -> None:
        self.oracle.append(self.oracle.twins[which % len(self.oracle.twins)], count)

    @precondition(lambda self: 0 < len(self.oracle.twins) < 4)
    @rule(which=st.integers(0, 3))
    def fork(self, which: int) -> None:
        self.oracle.fork(self.oracle.twins[which % len(self.oracle.twins)])

    @precondition(lambda self: self.oracle.twins)
    @rule(which=st.integers(0, 3), place=st.integers(0, 30))
    def truncate(self, which: int, place: int) -> None:
        twin = self.oracle.twins[which % len(self.oracle.twins)]
        self.oracle.truncate(twin, min(place, len(twin.numbers)))

    @precondition(lambda self: self.oracle.twins)
    @rule(which=st.integers(0, 3), start=st.integers(0, 20), count=st.integers(0, 8))
    def evict(self, which: int, start: int, count: int) -> None:
        twin = self.oracle.twins[which % len(self.oracle.twins)]
        start = min(start, len(twin.numbers))
        self.oracle.evict(twin, [(start, min(start + count, len(twin.numbers)))])

    @precondition(lambda self: self.oracle.twins)
    @rule(which=st.integers(0, 3))
    def close(self, which: int) -> None:
        self.oracle.close(self.oracle.twins[which % len(self.oracle.twins)])

    @invariant()
    def both_sides_agree(self) -> None:
        self.oracle.check_blocks()
        for twin in self.oracle.twins:
            self.oracle.check_contents(twin)


CacheMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)
TestCacheMachine = CacheMachine.TestCase
