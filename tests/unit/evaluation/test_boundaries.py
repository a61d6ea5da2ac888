"""Boundary F1: pairs, tolerances, and what the first frame does not count for."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.evaluation.boundaries import num_matched, score_boundaries
from tests.unit.evaluation.making import event, run

pytestmark = pytest.mark.unit

times = st.lists(st.integers(0, 12).map(float), max_size=4).map(sorted)


def most_pairs(boundaries: list[float], responses: list[float], tolerance_s: float) -> int:
    """By trying every assignment."""
    for size in range(min(len(boundaries), len(responses)), 0, -1):
        for chosen in combinations(boundaries, size):
            for said in permutations(responses, size):
                if all(abs(a - b) <= tolerance_s for a, b in zip(chosen, said, strict=True)):
                    return size
    return 0


@given(times, times, st.sampled_from([0.0, 1.0, 2.0, 5.0]))
def test_as_many_pairs_are_made_as_can_be(boundaries: list[float], responses: list[float], tolerance_s: float) -> None:
    assert num_matched(boundaries, responses, tolerance_s) == most_pairs(boundaries, responses, tolerance_s)


def test_f1_precision_and_recall_by_hand() -> None:
    score = score_boundaries([run([event(0, 3), event(3, 6), event(6, 12)], [0.0, 4.0, 9.0, 10.0])], 1.0)
    assert (score.num_boundaries, score.num_responses) == (2, 3)
    assert score.precision == pytest.approx(1 / 3)
    assert score.recall == pytest.approx(1 / 2)
    assert score.f1 == pytest.approx(2 * 1 / (2 + 3))


def test_the_first_frame_counts_on_neither_side() -> None:
    silent_after_the_first = run([event(0, 3), event(3, 6)], [0.0])
    assert score_boundaries([silent_after_the_first], 1.0)[:3] == (0, 0, 0)
    assert score_boundaries([silent_after_the_first], 1.0).num_responses == 0
    assert score_boundaries([run([event(0, 6)], [0.0])], 1.0).num_boundaries == 0


def test_a_gaps_begin_is_no_boundary() -> None:
    assert score_boundaries([run([event(0, 3), event(5, 8)], [3.0, 5.0])], 0.5) == (2 / 3, 1 / 2, 1.0, 1, 2)


def test_one_response_cannot_be_paired_twice() -> None:
    assert score_boundaries([run([event(0, 3), event(3, 4), event(4, 8)], [3.5])], 1.0).recall == 1 / 2


def test_videos_are_counted_together() -> None:
    good, bad = run([event(0, 3), event(3, 6)], [3.0]), run([event(0, 3), event(3, 6)], [])
    assert score_boundaries([good, bad], 1.0).f1 == pytest.approx(2 / 3)


def test_a_tolerance_is_met_in_spite_of_rounding() -> None:
    assert num_matched([0.1 + 0.2], [1.3], 1.0) == 1
