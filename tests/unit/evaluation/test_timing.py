"""TimDiff, TimRedun and TimCover by hand."""

from __future__ import annotations

import pytest

from livestar.evaluation.scores import redundancy, repetition
from livestar.evaluation.timing import score_timing, score_video
from tests.unit.evaluation.making import event, run

pytestmark = pytest.mark.unit

# The released segments [0, 0], [1, 4], [5, 9] of whole seconds.
EVENTS = [event(0, 1), event(1, 5), event(5, 10)]


def test_the_first_response_in_each_event_counts_and_a_missed_one_costs_its_length() -> None:
    scores = score_video(run(EVENTS, [0.0, 3.0, 4.0]))
    assert scores.tim_diff == pytest.approx((0 + 2 + 4) / 3)  # nothing in [5, 9]: 9 - 5
    assert scores.tim_diff_sum == pytest.approx((0 + (2 + 3) + 4) / 3)
    assert scores.tim_redun == pytest.approx((0 + 1 + 1) / 3)
    assert scores.tim_cover == pytest.approx(2 / 3)


def test_means_are_over_videos_not_over_events() -> None:
    one, two = run(EVENTS, [0.0, 1.0, 5.0]), run([event(0, 4)], [2.0])
    assert score_timing([one, two]).tim_diff == pytest.approx((0 + 2) / 2)


def test_at_another_frame_rate_a_missed_event_costs_as_much_as_a_response_on_its_last_frame() -> None:
    missed = run([event(0, 2)], [], fps=2.0)
    late = run([event(0, 2)], [1.5], fps=2.0)
    assert score_video(missed).tim_diff == score_video(late).tim_diff == 1.5


def test_an_end_belongs_to_the_next_event() -> None:
    assert score_video(run([event(0, 5), event(5, 10)], [5.0])).tim_cover == 0.5
    assert score_video(run([event(0, 5), event(5, 10)], [5.0])).tim_diff == (4 + 0) / 2


def test_no_video_and_no_event_score_nothing() -> None:
    assert score_timing([]) == (0, 0, 0, 0)
    assert score_video(run([], [1.0])) == (0, 0, 0, 0)


def test_redundancy_is_the_share_of_responses_that_an_event_did_not_need() -> None:
    assert redundancy([run(EVENTS, [0.0, 1.0, 2.0, 3.0])]) == 2 / 4
    assert redundancy([run(EVENTS, [])]) == 0


def test_repetition_is_the_share_of_responses_that_say_the_same_again() -> None:
    assert repetition([run(EVENTS, [(0.0, "a dog"), (1.0, "a  dog"), (2.0, "a cat")])]) == 1 / 2
