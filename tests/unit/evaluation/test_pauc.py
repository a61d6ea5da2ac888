"""PAUC: the published staircase, worked out by hand."""

from __future__ import annotations

import pytest

from livestar.annotations.types import Event
from livestar.evaluation.pauc import START_QUALITY, area, score_pauc
from tests.unit.evaluation.making import event, run

pytestmark = pytest.mark.unit

QUALITY = {"wrong": 0.0, "half": 0.5, "right": 1.0}


def grade(_: Event, text: str) -> float:
    return QUALITY[text]


def test_the_published_example() -> None:
    """An event of 10 s with a half right answer after 2 s and a right one after 6 s.

    The published code, with 5 grades: points (2, 2) and (6, 4) move to (1, 2) and (3, 4); the area under 0.5 from 0 to 1,
    2 from 1 to 3 and 4 from 3 to 10 is 0.5 + 4 + 28 = 32.5 of 40.
    """
    said = run([event(0, 10)], [(2.0, "half"), (6.0, "right")])
    assert score_pauc([said], grade) == pytest.approx(32.5 / 40)


def test_saying_nothing_keeps_the_quality_of_the_start() -> None:
    assert score_pauc([run([event(0, 10)], [])], grade) == START_QUALITY == 0.125


def test_right_at_once_is_one_and_right_at_the_end_half_of_the_rest() -> None:
    assert area([(0.0, 1.0)]) == 1.0
    assert area([(1.0, 1.0)]) == pytest.approx(0.5 * START_QUALITY + 0.5)
    assert area([(1.0, 1.0)], late_weight=0.0) == pytest.approx(START_QUALITY)


def test_a_wrong_word_after_a_right_one_costs() -> None:
    right, spoilt = run([event(0, 10)], [(0.0, "right")]), run([event(0, 10)], [(0.0, "right"), (5.0, "wrong")])
    assert score_pauc([spoilt], grade) == pytest.approx(0.25)
    assert score_pauc([right], grade) == 1.0


def test_the_same_words_again_are_no_step() -> None:
    said = run([event(0, 10)], [(0.0, "right"), (4.0, "wrong"), (8.0, "right")])
    assert score_pauc([said], grade) == pytest.approx(0.2)


def test_responses_count_in_their_own_event_and_events_equally() -> None:
    said = run([event(0, 4), event(4, 12)], [(0.0, "right")])
    assert score_pauc([said], grade) == pytest.approx((1.0 + START_QUALITY) / 2)
    assert score_pauc([], grade) is None
