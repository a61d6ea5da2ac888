"""Who gets how many rows of the next batch."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.engine.scheduler import Demand, schedule

pytestmark = pytest.mark.unit

DEMANDS = st.lists(
    st.one_of(
        st.just(Demand(1, is_decoding=True)),
        st.builds(Demand, num_tokens=st.integers(1, 500), is_decoding=st.just(False)),
    ),
    max_size=40,
)


@given(DEMANDS, st.integers(1, 600))
def test_grants_fit_the_batch_and_fill_it(demands: list[Demand], max_batch_tokens: int) -> None:
    grants = schedule(demands, max_batch_tokens)
    assert all(0 <= grant <= demand.num_tokens for grant, demand in zip(grants, demands, strict=True))
    assert sum(grants) == min(max_batch_tokens, sum(demand.num_tokens for demand in demands))


@given(DEMANDS, st.integers(1, 600))
def test_the_longest_waiting_always_gets_something(demands: list[Demand], max_batch_tokens: int) -> None:
    grants = schedule(demands, max_batch_tokens)
    waiting = [i for i, demand in enumerate(demands) if not demand.is_decoding]
    if waiting:
        assert grants[waiting[0]] > 0


@given(DEMANDS, st.integers(4, 600))
def test_decoding_comes_before_all_but_the_longest_waiting(demands: list[Demand], max_batch_tokens: int) -> None:
    grants = schedule(demands, max_batch_tokens)
    decoding = [i for i, demand in enumerate(demands) if demand.is_decoding]
    waiting = [i for i, demand in enumerate(demands) if not demand.is_decoding]
    if any(grants[i] == 0 for i in decoding):
        assert all(grants[i] == 0 for i in waiting[1:])
        assert sum(grants[i] for i in waiting[:1]) <= max_batch_tokens // 4


def test_decoding_is_served_in_order_of_arrival() -> None:
    assert schedule([Demand(1, is_decoding=True)] * 5, 3) == [1, 1, 1, 0, 0]


def test_a_long_prefill_never_holds_up_short_work() -> None:
    demands = [Demand(5000, is_decoding=False), *[Demand(8, is_decoding=False)] * 5, Demand(1, is_decoding=True)]
    assert schedule(demands, 64) == [64 - 40 - 1, 8, 8, 8, 8, 8, 1]
    assert schedule([*demands[1:], demands[0]], 64)[:-1] == [8, 8, 8, 8, 8, 1]


def test_one_stream_alone_gets_the_whole_batch() -> None:
    assert schedule([Demand(100, is_decoding=False)], 64) == [64]
    assert schedule([Demand(0, is_decoding=False)], 64) == [0]
    assert schedule([], 64) == []


@pytest.mark.parametrize("max_batch_tokens", [1, 5, 64])
def test_everybody_is_served_in_the_end(max_batch_tokens: int) -> None:
    """A long prefill among short requests that keep coming ends after a bounded time."""
    chance = random.Random(0)
    share = max(1, max_batch_tokens // 4)
    left, arrived = {"long": 600}, 0
    num_ticks = 0
    while "long" in left:
        num_ticks += 1
        assert num_ticks <= 600 // share + 2
        for _ in range(2):
            left[f"short-{arrived}"] = chance.randint(1, 40)
            arrived += 1
        names = list(left)
        grants = schedule([Demand(left[name], is_decoding=False) for name in names], max_batch_tokens)
        for name, grant in zip(names, grants, strict=True):
            left[name] -= grant
        left = {name: count for name, count in left.items() if count}
