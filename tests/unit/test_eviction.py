"""Which rows stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.cache.eviction import Span, surviving_rows

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("spans", "num_tokens", "expected"),
    [
        ([], 5, (5, [])),
        ([(2, 2)], 5, (5, [])),
        ([(0, 2)], 5, (0, [2, 3, 4])),
        ([(3, 5)], 5, (3, [])),
        ([(0, 5)], 5, (0, [])),
        ([(1, 2), (2, 3)], 5, (1, [3, 4])),
        ([(1, 1), (2, 3), (4, 4), (6, 8)], 9, (2, [3, 4, 5, 8])),
    ],
)
def test_rows_behind_the_first_cut_survive_in_order(
    spans: list[tuple[int, int]], num_tokens: int, expected: tuple[int, list[int]]
) -> None:
    assert surviving_rows([Span(*span) for span in spans], num_tokens) == expected


@pytest.mark.parametrize("spans", [[(3, 4), (1, 2)], [(0, 3), (2, 4)], [(4, 6)], [(3, 2)]])
def test_spans_that_overlap_or_reach_beyond_the_end_are_a_bug(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(AssertionError):
        surviving_rows([Span(*span) for span in spans], 5)


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(40, 50))
def test_nothing_survives_that_was_cut_and_all_else_does(cuts: list[int], num_tokens: int) -> None:
    cuts = sorted(cuts[: len(cuts) // 2 * 2])
    spans = [Span(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    first, kept = surviving_rows(spans, num_tokens)
    gone = {row for start, stop in spans for row in range(start, stop)}
    assert [*range(first), *kept] == [row for row in range(num_tokens) if row not in gone]
    assert first == min(gone, default=num_tokens)
