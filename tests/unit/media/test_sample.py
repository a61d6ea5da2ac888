"""Which pictures become frames, by their timestamps alone."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from livestar.media.sample import Sampler

pytestmark = pytest.mark.unit


def taken(sampler: Sampler, times: Iterable[float | None]) -> list[float]:
    return [pts_s for time_s in times if (pts_s := sampler.take(time_s)) is not None]


def at_rate(rate: float, length_s: float, time_base: float = 0.0) -> list[float]:
    times = [n / rate for n in range(int(length_s * rate))]
    return [round(t / time_base) * time_base for t in times] if time_base else times


def test_a_constant_rate_gives_the_first_picture_at_or_after_each_second() -> None:
    assert taken(Sampler(1.0), at_rate(25, 5)) == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("rate", [30000 / 1001, 24000 / 1001, 60000 / 1001, 25.0, 15.0])
@pytest.mark.parametrize("time_base", [0.0, 1 / 1000, 1 / 90000])
def test_an_hour_at_one_frame_a_second_does_not_drift(rate: float, time_base: float) -> None:
    frames = taken(Sampler(1.0), at_rate(rate, 3600, time_base))
    assert len(frames) == 3600
    assert all(k - 0.0016 <= pts_s < k + 1 / rate + 0.001 for k, pts_s in enumerate(frames))


@pytest.mark.parametrize("rate", [23.976, 25.0, 29.97, 30.0, 50.0, 60.0])
@pytest.mark.parametrize("fps_over_rate", [1.0, 1.7, 4.0])
def test_asking_for_the_sources_own_rate_or_more_gives_every_picture_once(rate: float, fps_over_rate: float) -> None:
    for time_base in (0.0, 1 / 1000, 1 / 90000):
        times = at_rate(rate, 60, time_base)
        assert len(taken(Sampler(rate * fps_over_rate), times)) == len(times)


def test_a_variable_rate_is_sampled_by_time_and_not_by_number() -> None:
    times = [0.0, 0.1, 0.9, 1.3, 1.31, 1.32, 2.0, 2.9, 5.5, 5.6, 6.0]
    assert taken(Sampler(1.0), times) == [0.0, 1.3, 2.0, 5.5, 6.0]


def test_nothing_comes_in_a_burst_after_a_gap() -> None:
    times = at_rate(25, 2) + [60 + t for t in at_rate(25, 3)]
    assert taken(Sampler(2.0), times) == [0.0, 0.52, 1.0, 1.52, 60.0, 60.52, 61.0, 61.52, 62.0, 62.52]


def test_pictures_before_the_start_are_not_wanted() -> None:
    assert taken(Sampler(1.0, start_s=2.5), at_rate(25, 6)) == [2.52, 3.52, 4.52, 5.52]


def test_pictures_without_timestamps_follow_at_the_usual_interval() -> None:
    frames = taken(Sampler(1.0, interval_s=0.04), [None] * 100)
    assert frames == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_a_clock_that_jumps_back_goes_on_from_where_it_was() -> None:
    times = [100 + t for t in at_rate(25, 3)] + at_rate(25, 3)
    sampler = Sampler(1.0)
    sampler.continue_after()
    assert taken(sampler, times) == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_huge_jump_forward_costs_no_time_and_the_wrap_back_neither() -> None:
    times = at_rate(25, 2) + [95443.7 + t for t in at_rate(25, 2)] + [2 + t for t in at_rate(25, 2)]
    assert taken(Sampler(1.0, max_gap_s=10), times) == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_picture_slightly_out_of_order_or_repeated_is_passed_over() -> None:
    assert taken(Sampler(25.0), [0.0, 0.08, 0.04, 0.08, 0.12]) == [0.0, 0.08, 0.12]


def test_a_source_that_is_back_continues_after_the_time_it_was_away() -> None:
    sampler = Sampler(1.0)
    first = taken(sampler, at_rate(25, 2))
    sampler.continue_after(7.0)
    second = taken(sampler, [5000 + t for t in at_rate(25, 2)])
    assert first + second == pytest.approx([0.0, 1.0, 8.96, 9.0, 10.0])


def test_a_source_that_starts_again_continues_without_a_seam() -> None:
    sampler = Sampler(1.0)
    frames = []
    for _ in range(3):
        frames += taken(sampler, at_rate(25, 2))
        sampler.start_again(2.0)
    assert frames == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])


def test_what_is_due_never_rules_out_a_picture_that_would_be_taken() -> None:
    random_times = random.Random(5)
    for fps in (0.3, 1.0, 7.0, 29.97, 240.0):
        sampler, time_s = Sampler(fps, max_gap_s=20), 0.0
        for _ in range(2000):
            due_s = sampler.due_s
            if sampler.take(time_s) is not None:
                assert time_s >= due_s
            time_s += random_times.choice([0.001, 0.033, 0.04, 1.5])


def test_nothing_is_ruled_out_while_the_clock_is_unknown() -> None:
    sampler = Sampler(1.0)
    sampler.continue_after()
    assert sampler.due_s == -math.inf


def test_media_time_only_grows_whatever_the_clock_does() -> None:
    wild = random.Random(7)
    sampler, last_s, time_s, num_taken = Sampler(5.0, max_gap_s=10), -1.0, 0.0, 0
    for _ in range(20_000):
        time_s += wild.choices([0.04, -0.02, -1e5, 1e6, 3.0], [0.96, 0.02, 0.005, 0.005, 0.01])[0]
        pts_s = sampler.take(wild.choices([time_s, None], [0.97, 0.03])[0])
        if pts_s is not None:
            assert pts_s > last_s
            last_s, num_taken = pts_s, num_taken + 1
    assert num_taken > 1000
