"""The engine's thread: order, failure, closing, bounds, and its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from livestar.config import EngineConfig, GateConfig, SamplingConfig, StreamConfig
from livestar.engine.engine import Engine
from livestar.engine.loop import MAX_COMMANDS, EngineLoop
from livestar.errors import AtCapacity, EngineFailed, InvalidRequest, SourceStalled, StreamNotFound
from livestar.media import FrameQueue
from livestar.media.frame_queue import Overflow
from livestar.session import Checkpoint, load_checkpoint
from livestar.types import CaptionDone, Decision, Frame, Notice, StreamEnded, StreamEvent, StreamId, Verdict

pytestmark = pytest.mark.integration

A, B, C = StreamId("a"), StreamId("b"), StreamId("c")
CONFIG = StreamConfig(gate=GateConfig(threshold=1.0), sampling=SamplingConfig(max_new_tokens=4))
WAIT_S = 20.0


def make_frame(number: int, size: int = 56) -> Frame:
    noise = np.random.default_rng(number)
    return Frame(number, float(number - 1), noise.integers(0, 256, (size, size, 3), np.uint8))


@contextmanager
def running(checkpoint: Checkpoint, num_streams: int = 3) -> Iterator[EngineLoop]:
    """A loop that has started; at the end its thread is gone."""
    config = EngineConfig(num_kv_tokens=10000 * num_streams, max_streams=num_streams)
    loop = EngineLoop(Engine(checkpoint.model, checkpoint.tokenizer, config))
    loop.start()
    try:
        yield loop
    finally:
        assert loop.stop(WAIT_S)
        assert "engine" not in [thread.name for thread in threading.enumerate()]


def open_feed(
    loop: EngineLoop, stream_id: StreamId, frames: int = 0, *, overflow: Overflow = "block", max_frames: int = 64
) -> FrameQueue:
    """A stream with frames that wait already."""
    feed = FrameQueue(max_frames, overflow=overflow, on_change=loop.wake)
    for number in range(1, frames + 1):
        feed.put(make_frame(number))
    loop.open(stream_id, CONFIG, feed).result(WAIT_S)
    return feed


def collect(loop: EngineLoop, num_ends: int) -> list[StreamEvent]:
    """Events until so many streams have ended."""
    events: list[StreamEvent] = []
    deadline = time.monotonic() + WAIT_S
    while num_ends:
        assert time.monotonic() < deadline, events
        event = loop.next_event(0.1)
        if event is not None:
            events.append(event)
            num_ends -= isinstance(event, StreamEnded)
    return events


def of(events: list[StreamEvent], stream_id: StreamId) -> list[StreamEvent]:
    return [event for event in events if event.stream_id == stream_id]


def test_the_events_of_a_stream_come_in_order_and_as_they_would_alone(checkpoint: Checkpoint) -> None:
    runs: list[dict[StreamId, list[StreamEvent]]] = []
    for streams in ((A, B, C), (A,)):
        with running(checkpoint) as loop:
            for stream_id in streams:
                open_feed(loop, stream_id, 6).close()
            events = collect(loop, len(streams))
        runs.append({stream_id: of(events, stream_id) for stream_id in streams})
    for own in runs[0].values():
        verdicts = [event for event in own if isinstance(event, Verdict)]
        assert [verdict.frame for verdict in verdicts] == [1, 2, 3, 4, 5, 6]
        assert [event.frame for event in own if isinstance(event, CaptionDone)] == [
            verdict.frame for verdict in verdicts if verdict.decision is Decision.RESPOND
        ]
        assert [event.frame for event in own] == sorted(event.frame for event in own)
        assert own[-1] == StreamEnded(stream_id=own[0].stream_id, frame=6, time_s=5.0)
        assert [event.text for event in own if isinstance(event, CaptionDone)] == [
            event.text for event in runs[1][A] if isinstance(event, CaptionDone)
        ]


def test_a_feed_that_fails_ends_its_stream_with_the_error_after_the_frames_that_came(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        open_feed(loop, A, 3).close(SourceStalled("the camera fell silent"))
        open_feed(loop, B, 3).close()
        events = collect(loop, 2)
    assert [event.frame for event in of(events, A) if isinstance(event, Verdict)] == [1, 2, 3]
    assert of(events, A)[-1] == StreamEnded(stream_id=A, frame=3, time_s=2.0, error="the camera fell silent")
    assert of(events, B)[-1] == StreamEnded(stream_id=B, frame=3, time_s=2.0)


def test_a_feed_that_fails_before_its_first_frame_ends_its_stream_too(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        open_feed(loop, A).close(SourceStalled("nothing"))
        assert collect(loop, 1) == [StreamEnded(stream_id=A, frame=0, time_s=0.0, error="nothing")]


def test_a_picture_of_the_wrong_size_ends_its_stream_alone(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        good = open_feed(loop, A, 3)
        bad = open_feed(loop, B, 1)
        bad.put(make_frame(2, size=40))
        good.close()
        events = collect(loop, 2)
        assert bad.is_finished
    error = of(events, B)[-1]
    assert isinstance(error, StreamEnded)
    assert "the model takes uint8 RGB pictures of 56 x 56" in str(error.error)
    assert of(events, A)[-1] == StreamEnded(stream_id=A, frame=3, time_s=2.0)


def test_closing_a_stream_in_mid_run_leaves_the_others(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        closed, kept = open_feed(loop, A, 50), open_feed(loop, B, 10)
        while not isinstance(loop.next_event(WAIT_S), Verdict):
            pass
        loop.close(A).result(WAIT_S)
        assert closed.is_finished
        kept.close()
        events = collect(loop, 2)
        last = of(events, A)[-1]
        assert isinstance(last, StreamEnded)
        assert last.error is None
        assert 1 <= last.frame < 50
        verdicts = [event for event in of(events, B) if isinstance(event, Verdict)]
        assert verdicts[-1].frame == 10
        deadline = time.monotonic() + WAIT_S
        while loop.stats.num_streams and time.monotonic() < deadline:
            time.sleep(0.01)
        assert loop.stats.num_kv_tokens_used == 0
        with pytest.raises(StreamNotFound, match="'a'"):
            loop.close(A).result(WAIT_S)


def test_an_id_that_is_open_is_refused_on_the_callers_thread(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        open_feed(loop, A)
        with pytest.raises(InvalidRequest, match="already open"):
            open_feed(loop, A)


def test_dropped_frames_are_told_of_and_equal_those_missing(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        feed = open_feed(loop, A, overflow="drop_oldest", max_frames=2)
        for number in range(1, 201):
            feed.put(make_frame(number))
        feed.close()
        events = collect(loop, 1)
    seen = [event.frame for event in events if isinstance(event, Verdict)]
    notices = [event for event in events if isinstance(event, Notice)]
    assert seen[-1] == 200
    assert {notice.code for notice in notices} == {"frames_dropped"}
    assert "--fps" in notices[0].message
    assert sum(notice.count for notice in notices) == 200 - len(seen) == feed.num_dropped > 0


def test_a_notice_takes_its_place_among_the_events(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        feed = open_feed(loop, A, 2)
        while not (isinstance(event := loop.next_event(WAIT_S), Verdict) and event.frame == 2):
            pass
        loop.notify(A, "source_lost", "gone", 1)
        loop.notify(B, "source_lost", "of a stream that is not open", 1)
        feed.close()
        events = collect(loop, 1)
    assert [type(event) for event in events] == [Notice, StreamEnded]
    assert (events[0].frame, events[0].time_s) == (2, 1.0)


def test_a_full_inbox_refuses_and_takes_commands_again_later(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        inside, go_on = threading.Event(), threading.Event()

        def hold() -> bool:
            inside.set()
            return go_on.wait(WAIT_S)

        held = loop.submit(hold)
        assert inside.wait(WAIT_S)
        waiting = [loop.submit(partial(int, number)) for number in range(MAX_COMMANDS)]
        with pytest.raises(AtCapacity, match="try again") as refused:
            loop.submit(lambda: None)
        assert refused.value.retryable
        go_on.set()
        assert held.result(WAIT_S)
        assert [future.result(WAIT_S) for future in waiting] == list(range(MAX_COMMANDS))
        assert loop.submit(lambda: "room").result(WAIT_S) == "room"


def test_a_stop_with_frames_that_wait_is_prompt_and_ends_every_stream(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        feeds = [open_feed(loop, stream_id, 60) for stream_id in (A, B)]
        assert loop.next_event(WAIT_S) is not None
        asked = time.monotonic()
        assert loop.stop(WAIT_S)
        assert time.monotonic() - asked < 2
        events = collect(loop, 2)
        assert {event.stream_id for event in events if isinstance(event, StreamEnded)} == {A, B}
        assert all(feed.is_finished for feed in feeds)


def test_what_waits_for_a_loop_that_is_stopped_is_cancelled(checkpoint: Checkpoint) -> None:
    ran = threading.Event()
    with running(checkpoint) as loop:
        inside, go_on = threading.Event(), threading.Event()

        def hold() -> bool:
            inside.set()
            return go_on.wait(WAIT_S)

        loop.submit(hold)
        assert inside.wait(WAIT_S)
        late = loop.submit(ran.set)
        assert not loop.stop(timeout_s=0.0)
        go_on.set()
        assert loop.stop(WAIT_S)
        assert late.cancelled()
    assert not ran.is_set()


def test_a_model_that_fails_in_a_step_ends_every_stream_with_an_error(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = load_checkpoint(tiny, dtype="float32", device="cpu")
    with running(broken) as loop, caplog.at_level(logging.ERROR):
        feeds = [open_feed(loop, stream_id) for stream_id in (A, B)]
        feeds[0].put(make_frame(1))
        while not isinstance(loop.next_event(WAIT_S), Verdict):
            pass
        loop.submit(lambda: delattr(broken.model.language_model.output, "weight")).result(WAIT_S)
        feeds[1].put(make_frame(1))
        events = collect(loop, 2)
        assert all(feed.is_finished for feed in feeds)
    for stream_id in (A, B):
        (ended,) = of(events, stream_id)
        assert isinstance(ended, StreamEnded)
        assert "the engine failed" in str(ended.error)
    assert "the engine failed" in caplog.text


def test_a_command_for_a_loop_that_is_over_is_refused(checkpoint: Checkpoint) -> None:
    with running(checkpoint) as loop:
        pass
    with pytest.raises(EngineFailed, match="stopped"):
        loop.submit(lambda: None)


def test_stopping_with_unread_events_still_ends_every_stream_at_once(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livestar.engine.loop.MAX_EVENTS", 3)
    with running(checkpoint) as loop:
        for stream_id in (A, B, C):
            open_feed(loop, stream_id, 20)
        deadline = time.monotonic() + WAIT_S
        while loop.stats.num_frames < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        started = time.monotonic()
        assert loop.stop(WAIT_S)
        assert time.monotonic() - started < 5
        events = collect(loop, 3)
    ends = [event for event in events if isinstance(event, StreamEnded)]
    assert {event.stream_id for event in ends} == {A, B, C}
    assert {event.error for event in ends} == {"stopped before the source ended"}


def test_a_close_that_comes_while_another_stream_ends_disturbs_nobody(checkpoint: Checkpoint) -> None:
    config = EngineConfig(num_kv_tokens=30000, max_streams=3)
    loop = EngineLoop(Engine(checkpoint.model, checkpoint.tokenizer, config))

    class ClosesAnother(FrameQueue):
        """Asks for B to be closed when it is itself found to be finished, as a caller's thread may."""

        asked = False

        @property
        def is_finished(self) -> bool:
            if not self.asked:
                self.asked = True
                loop.close(B)
            return super().is_finished

    first = ClosesAnother(4, overflow="block", on_change=loop.wake)
    first.close()
    others = [FrameQueue(4, overflow="block", on_change=loop.wake) for _ in range(2)]
    for stream_id, feed in zip((A, B, C), (first, *others), strict=True):
        loop.admit(stream_id, CONFIG, feed)
    loop.start()
    try:
        ended = {event.stream_id for event in collect(loop, 2)}
        assert ended == {A, B}
        others[1].put(make_frame(1))
        others[1].close()
        last = collect(loop, 1)
        assert [event.error for event in last if isinstance(event, StreamEnded)] == [None]
        assert any(isinstance(event, Verdict) for event in last)
    finally:
        assert loop.stop(WAIT_S)
