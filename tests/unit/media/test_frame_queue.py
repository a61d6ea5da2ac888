"""The bounded queue between reader and engine."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from livestar.errors import SourceStalled
from livestar.media.frame_queue import FrameQueue
from livestar.types import Frame

pytestmark = pytest.mark.unit

TIMEOUT_S = 5.0


def frame(index: int) -> Frame:
    return Frame(index, float(index), np.zeros((1, 1, 3), np.uint8))


def indices(queue: FrameQueue) -> list[int]:
    found = []
    while (next_frame := queue.poll()) is not None:
        found.append(next_frame.index)
    return found


def test_frames_come_out_in_the_order_they_went_in() -> None:
    queue = FrameQueue(3, overflow="drop_oldest")
    for index in (1, 2, 3):
        assert queue.put(frame(index))
    assert len(queue) == 3
    assert indices(queue) == [1, 2, 3]
    assert queue.poll() is None
    assert queue.num_dropped == 0


def test_a_full_queue_drops_its_oldest_frames_and_counts_them() -> None:
    queue = FrameQueue(2, overflow="drop_oldest")
    for index in range(1, 6):
        queue.put(frame(index))
    assert indices(queue) == [4, 5]
    assert queue.num_dropped == 3


def test_a_blocking_queue_loses_nothing_and_never_holds_more_than_its_limit() -> None:
    queue = FrameQueue(2, overflow="block")
    producer = threading.Thread(target=lambda: [queue.put(frame(index)) for index in range(1, 51)])
    producer.start()
    found: list[int] = []
    while len(found) < 50:
        assert len(queue) <= 2
        found += indices(queue)
    producer.join(TIMEOUT_S)
    assert found == list(range(1, 51))
    assert queue.num_dropped == 0


@pytest.mark.parametrize("release", ["cancel", "close"])
def test_a_producer_that_waits_for_room_is_released(release: str) -> None:
    queue = FrameQueue(1, overflow="block")
    queue.put(frame(1))
    answers: list[bool] = []
    producer = threading.Thread(target=lambda: answers.append(queue.put(frame(2))))
    producer.start()
    getattr(queue, release)()
    producer.join(TIMEOUT_S)
    assert answers == [False]


def test_a_closed_queue_still_gives_what_waits_and_is_finished_after_it() -> None:
    queue = FrameQueue(2, overflow="drop_oldest")
    error = SourceStalled("camera delivered nothing for 10 s")
    queue.put(frame(1))
    queue.close(error)
    queue.close()
    assert not queue.put(frame(2))
    before = queue.is_finished
    assert indices(queue) == [1]
    assert (before, queue.is_finished) == (False, True)
    assert queue.error is error


def test_a_cancelled_queue_is_finished_at_once_and_takes_no_more() -> None:
    queue = FrameQueue(2, overflow="drop_oldest")
    queue.put(frame(1))
    queue.cancel()
    assert queue.is_finished
    assert queue.poll() is None
    assert not queue.put(frame(2))


def test_the_owner_is_told_of_every_put_and_of_the_close_outside_the_lock() -> None:
    lengths: list[tuple[int, bool]] = []
    queue = FrameQueue(2, overflow="drop_oldest", on_change=lambda: lengths.append((len(queue), queue.is_finished)))
    queue.put(frame(1))
    queue.put(frame(2))
    queue.poll()
    queue.poll()
    queue.close()
    assert lengths == [(1, False), (2, False), (0, True)]


def test_a_queue_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FrameQueue(0, overflow="block")
