"""Policies that know nothing of the content."""

from __future__ import annotations

import pytest

from livestar.errors import InvalidRequest
from livestar.evaluation import floors
from livestar.evaluation.evaluation import evaluate_runs
from livestar.evaluation.runs import response_rate, truth_rate
from livestar.evaluation.scores import floor_scores, score_runs, timing_scores
from livestar.evaluation.table import floor_score
from tests.unit.evaluation.making import event, run

pytestmark = pytest.mark.unit

RUNS = [
    run([event(0, 3), event(3, 8), event(8, 12)], [0.0, 3.0, 8.0], num_frames=12, name="a"),
    run([event(0, 5), event(5, 30)], [0.0, 5.0], num_frames=30, name="b"),
]


def spoken(runs: list) -> list[list[float]]:
    return [[response.time_s for response in one.responses] for one in runs]


def test_silence_says_nothing() -> None:
    assert spoken(floors.silent(RUNS)) == [[], []]


def test_a_metronome_starts_with_the_first_frame() -> None:
    assert spoken(floors.every(RUNS, 4.0))[0] == [0.0, 4.0, 8.0]
    assert floors.frames_every([2.5, 3.0, 3.5, 4.0, 4.5], 1.0) == [2.5, 3.5, 4.5]


def test_a_metronome_speaks_on_the_first_frame_after_its_beat() -> None:
    assert floors.frames_every([0.0, 0.7, 1.4, 2.1, 2.8, 3.5], 1.0) == [0.0, 1.4, 2.1, 3.5]
    assert floors.frames_every([], 1.0) == []


def test_rates_leave_first_frames_out() -> None:
    assert response_rate(RUNS) == 3 / (11 + 29) == truth_rate(RUNS)
    assert response_rate([]) == 0


def test_the_matched_metronome_speaks_as_often_as_the_runs() -> None:
    wanted = [run([event(0, 100)], [float(t) for t in range(0, 100, 7)], num_frames=100)]
    interval_s = floors.matched_interval_s(wanted, response_rate(wanted))
    assert interval_s is not None
    assert len(floors.every(wanted, interval_s)[0].responses) == len(wanted[0].responses)
    assert floors.matched_interval_s(RUNS, 0.0) is None


def test_the_matched_metronome_speaks_as_often_where_videos_of_one_length_lose_a_beat_together() -> None:
    alike = [run([event(0, 60)], [0.0, *range(4, 4 + 5 * (i % 3), 5)], num_frames=60, name=str(i)) for i in range(10)]
    rate = response_rate(alike)
    interval_s = floors.matched_interval_s(alike, rate)
    assert interval_s is not None
    assert response_rate(floors.every(alike, interval_s)) != rate
    assert response_rate(floors.matched(alike, rate)) == rate
    assert spoken(floors.matched(RUNS, 0.0)) == [[0.0], [0.0]]


def test_the_matched_interval_is_the_one_nearest_to_the_rate() -> None:
    alike = [run([event(0, 60)], [0.0, 9.0, 19.0], num_frames=60, name=str(i)) for i in range(9)]
    alike.append(run([event(0, 60)], [0.0, 9.0], num_frames=60, name="last"))  # 19 of 20 beats
    interval_s = floors.matched_interval_s(alike, response_rate(alike))
    assert interval_s is not None
    assert response_rate(floors.every(alike, interval_s)) == 20 / 590


def test_random_frames_are_as_many_as_the_rate_says_and_the_same_for_a_seed() -> None:
    first, again, other = (floors.at_random(RUNS, 0.25, seed) for seed in (1, 1, 2))
    assert spoken(first) == spoken(again) != spoken(other)
    assert sum(map(len, spoken(first))) == 2 + 10
    assert all(times[0] == 0.0 for times in spoken(first))


def test_every_metric_of_when_has_its_floors() -> None:
    scores = score_runs(RUNS)
    found = floor_scores(RUNS)
    assert scores["floors"] == found
    assert set(found) == {"silent", "metronome", "random", "best_metronome", "best_metronome_2s", "best_at_rate", "every"}
    for name in ("silent", "metronome", "random", "best_metronome"):
        floor = found[name]
        assert isinstance(floor, dict)
        assert set(timing_scores(RUNS)) <= set(floor)


def test_the_best_floors_are_the_best() -> None:
    found = floor_scores(RUNS)
    fixed = found["every"]
    assert isinstance(fixed, list)
    best = found["best_metronome"]
    assert isinstance(best, dict)
    assert best["boundary_f1_1s"] == max(found["metronome"]["boundary_f1_1s"], *(one["boundary_f1_1s"] for one in fixed))  # type: ignore[index]
    wide = max(found["metronome"]["boundary_f1_2s"], *(one["boundary_f1_2s"] for one in fixed))  # type: ignore[index]
    assert found["best_metronome_2s"]["boundary_f1_2s"] == wide  # type: ignore[index]
    assert floor_score(found, "best_metronome", "boundary_f1_2s") == wide  # type: ignore[arg-type]
    at_rate = found["best_at_rate"]
    assert at_rate["boundary_f1_2s"] == max(found[name]["boundary_f1_2s"] for name in ("metronome", "random"))  # type: ignore[index]


def test_a_silent_run_has_floors_that_are_silent_after_the_first_frame() -> None:
    found = floor_scores(floors.silent(RUNS))
    assert found["metronome"]["interval_s"] is None  # type: ignore[index]
    assert found["metronome"]["response_rate"] == found["random"]["response_rate"] == 0  # type: ignore[index]


def test_runs_without_a_frame_or_an_event_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"no frame was watched.*--part.*--fps"):
        evaluate_runs([run([event(0, 3)], [], num_frames=0)], settings={})
    with pytest.raises(InvalidRequest, match=r"none of the 12 frames lies in an event.*--part.*--fps"):
        evaluate_runs([run([], [0.0])], settings={})
    assert evaluate_runs([*RUNS, run([], [0.0])], settings={}).scores["num_videos"] == 3
