"""Fixed and calibrated thresholds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.config import GateConfig
from livestar.gate.threshold import (
    CALIBRATION_WINDOW,
    DEFAULT_THRESHOLD,
    MIN_CALIBRATION,
    FixedThreshold,
    RateThreshold,
    ScheduledThreshold,
    make_threshold,
)

pytestmark = pytest.mark.unit


def test_a_config_without_wishes_gives_the_published_threshold() -> None:
    threshold = make_threshold(GateConfig())
    assert isinstance(threshold, FixedThreshold)
    assert threshold.value == DEFAULT_THRESHOLD == 1.03


def test_a_fixed_threshold_never_moves() -> None:
    threshold = make_threshold(GateConfig(threshold=1.06))
    assert isinstance(threshold, FixedThreshold)
    for ratio in (0.1, 9.0, float("inf")):
        threshold.observe(ratio)
    assert threshold.value == 1.06


def test_a_calibrated_threshold_starts_at_the_published_one() -> None:
    threshold = make_threshold(GateConfig(response_rate=0.15))
    assert isinstance(threshold, RateThreshold)
    for _ in range(MIN_CALIBRATION - 1):
        threshold.observe(5.0)
        assert threshold.value == DEFAULT_THRESHOLD
    threshold.observe(5.0)
    assert threshold.value == 5.0


@pytest.mark.parametrize("response_rate", [0.05, 0.15, 0.4, 0.8])
@pytest.mark.parametrize("spread", [0.02, 0.5])
def test_calibration_converges_to_the_rate_asked_for(response_rate: float, spread: float) -> None:
    chance = random.Random(1)
    threshold = RateThreshold(response_rate)
    responses = []
    for _ in range(6000):
        ratio = chance.lognormvariate(-0.05, spread)
        responses.append(ratio > threshold.value)
        threshold.observe(ratio)
    rate = sum(responses[500:]) / len(responses[500:])
    assert rate == pytest.approx(response_rate, rel=0.2)


def test_calibration_follows_a_stream_that_changes() -> None:
    chance = random.Random(2)
    threshold = RateThreshold(0.2)
    responses = []
    for number in range(4000):
        ratio = chance.lognormvariate(0.0 if number < 2000 else 1.0, 0.1)
        responses.append(ratio > threshold.value)
        threshold.observe(ratio)
    after = responses[2000 + CALIBRATION_WINDOW :]
    assert sum(after) / len(after) == pytest.approx(0.2, rel=0.2)


@given(st.floats(0.01, 0.99), st.lists(st.floats(0.01, 100), min_size=MIN_CALIBRATION, max_size=400))
def test_a_calibrated_threshold_lies_among_the_ratios_it_remembers(rate: float, ratios: list[float]) -> None:
    threshold = RateThreshold(rate)
    for ratio in ratios:
        threshold.observe(ratio)
    recent = ratios[-CALIBRATION_WINDOW:]
    assert min(recent) <= threshold.value <= max(recent)


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.4])
def test_calibration_meets_its_rate_where_ratios_depend_on_the_responses(rate: float) -> None:
    """As in a stream: the ratio grows with the age of the caption, and a response begins anew."""
    chance = random.Random(3)
    threshold = RateThreshold(rate)
    num_responses, age = 0, 0
    for _ in range(6000):
        age += 1
        ratio = (1 + 0.02 * min(age, 20)) * chance.lognormvariate(0.0, 0.05)
        responds = ratio > threshold.value
        threshold.observe(ratio)
        num_responses += responds
        age = 0 if responds else age
    assert num_responses / 6000 == pytest.approx(rate, rel=0.1)


def test_a_schedule_speaks_on_its_frames_and_on_no_others() -> None:
    threshold = ScheduledThreshold({2, 5}.__contains__)
    assert [threshold.at(frame) for frame in (2, 5)] == [0.0, 0.0]
    threshold.observe(1.5)
    assert all(not ratio > threshold.at(3) for ratio in (0.5, 1e300))


def test_a_fixed_and_a_calibrated_threshold_are_the_same_for_every_frame() -> None:
    assert FixedThreshold(1.2).at(1) == FixedThreshold(1.2).at(99) == 1.2
    calibrated = RateThreshold(0.2)
    assert calibrated.at(1) == calibrated.value == DEFAULT_THRESHOLD
