"""Many small things, told together."""

from __future__ import annotations

import pytest

from livestar.media.notices import MIN_INTERVAL_S, Tally

pytestmark = pytest.mark.unit


def test_the_first_is_told_at_once_and_the_rest_summed_up() -> None:
    told: list[tuple[str, str, int]] = []
    now_s = [0.0]
    tally = Tally("packets_skipped", on_notice=lambda *notice: told.append(notice), clock=lambda: now_s[0])
    for _ in range(5):
        tally.add(1, "damaged")
    assert told == [("packets_skipped", "damaged", 1)]
    now_s[0] = MIN_INTERVAL_S
    tally.add(2, "damaged")
    assert told[1:] == [("packets_skipped", "damaged", 6)]
    tally.add(3, "damaged")
    tally.flush()
    tally.flush()
    assert told[2:] == [("packets_skipped", "damaged", 3)]


def test_nothing_is_told_of_nothing() -> None:
    told: list[tuple[str, str, int]] = []
    tally = Tally("packets_skipped", on_notice=lambda *notice: told.append(notice), clock=lambda: 0.0)
    tally.add(0, "damaged")
    tally.flush()
    assert told == []
