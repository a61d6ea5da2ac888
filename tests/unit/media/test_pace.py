"""Playing at a source's own speed, on a clock that the test turns."""

from __future__ import annotations

import pytest

from livestar.media.pace import RealTimePacer

pytestmark = pytest.mark.unit


class HandClock:
    """Seconds that pass only by waiting or by `pass_s`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []
        self.is_stopped = False

    def read(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        if not self.is_stopped:
            self.now_s += seconds
        return self.is_stopped


def test_frames_are_held_until_their_media_time() -> None:
    clock = HandClock()
    pacer = RealTimePacer(clock=clock.read, wait=clock.wait)
    assert all(pacer.hold(pts_s) for pts_s in (5.0, 6.0, 7.5))
    assert clock.waits == pytest.approx([1.0, 1.5])
    assert clock.now_s == pytest.approx(1002.5)


def test_the_time_that_decoding_took_is_not_waited_again() -> None:
    clock = HandClock()
    pacer = RealTimePacer(clock=clock.read, wait=clock.wait)
    pacer.hold(0.0)
    clock.pass_s(0.75)
    pacer.hold(1.0)
    assert clock.waits == pytest.approx([0.25])


def test_who_is_late_is_not_held_until_he_has_caught_up() -> None:
    clock = HandClock()
    pacer = RealTimePacer(clock=clock.read, wait=clock.wait)
    pacer.hold(0.0)
    clock.pass_s(2.5)
    assert all(pacer.hold(pts_s) for pts_s in (1.0, 2.0, 3.0))
    assert clock.waits == pytest.approx([0.5])


def test_a_stop_ends_the_waiting() -> None:
    clock = HandClock()
    pacer = RealTimePacer(clock=clock.read, wait=clock.wait)
    pacer.hold(0.0)
    clock.is_stopped = True
    assert not pacer.hold(60.0)
