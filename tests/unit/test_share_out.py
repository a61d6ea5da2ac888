"""How a batch is split between workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.engine.runner import share_out

pytestmark = pytest.mark.unit


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 8))
def test_every_item_is_in_exactly_one_share(costs: list[int], num_shares: int) -> None:
    shares = share_out(costs, num_shares)
    assert sorted(i for share in shares for i in share) == list(range(len(costs)))
    assert len(shares) == min(num_shares, len(costs))


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 8))
def test_no_share_is_heavier_than_the_lightest_by_more_than_one_item(costs: list[int], num_shares: int) -> None:
    totals = [sum(costs[i] for i in share) for share in share_out(costs, num_shares)]
    assert max(totals) - min(totals) <= max(costs)


def test_the_costliest_item_is_placed_first() -> None:
    assert share_out([1, 9, 4, 4], 2) == [[1], [2, 3, 0]]
