"""A thread around the engine, with one inbox and one outbox.

    caller threads ── submit ──▶ inbox ─▶ ┌─────────────┐
    reader threads ── FrameFeed ────────▶ │ loop thread │ ─▶ outbox ── next_event ──▶ one consumer
                                          └─────────────┘
The loop thread alone touches the engine.  Each round it runs what the inbox holds, takes at most one frame from each feed whose
stream has room, and makes one step; with nothing to do it sleeps until somebody wakes it.  Frames are pulled, never pushed: what
comes too late is dropped by its feed, before it costs anything.

Bounds: the inbox holds `MAX_COMMANDS`, then `submit` raises `AtCapacity`.  The outbox holds `MAX_EVENTS`, then the engine waits
for its consumer, since no event may be lost; feeds meanwhile drop or hold back frames, as they were made to.  When it stops, one
last event of each stream comes on top.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from livestar.errors import AtCapacity, EngineFailed, LiveStarError, StreamNotFound
from livestar.types import Notice, StreamEnded

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestar.config import StreamConfig
    from livestar.engine.engine import Engine, EngineStats
    from livestar.gate.threshold import Threshold
    from livestar.types import Frame, StreamEvent, StreamId

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_COMMANDS = 256
MAX_EVENTS = 1024
IDLE_S = 0.5
"""Longest sleep without being woken, in seconds."""
FULL_S = 0.02
"""How often to look whether a full outbox has room, in seconds."""


class FrameFeed(Protocol):
    """Where a stream's frames come from; `livestar.media.FrameQueue` is one.  Thread-safe."""

    def poll(self) -> Frame | None:
        """The next frame, or None; never blocks."""
        ...

    def cancel(self) -> None:
        """Nobody wants frames any more."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether no frame waits and none will come."""
        ...

    @property
    def error(self) -> LiveStarError | None:
        """Why it finished early."""
        ...

    @property
    def num_dropped(self) -> int:
        """Frames dropped so far."""
        ...


class EngineLoop:
    """Runs an engine on a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inbox: queue.Queue[Callable[[], None]] = queue.Queue(MAX_COMMANDS)
        self._outbox: queue.Queue[StreamEvent] = queue.Queue()  # bounded by `_publish`, which lets ends through
        self._is_over = False
        self._door = threading.Lock()
        self._feeds: dict[StreamId, FrameFeed] = {}
        self._num_dropped: dict[StreamId, int] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stats = engine.stats

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Ends after the step under way, closing every stream; False if the thread still runs after `timeout_s`."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Tells the loop that there is something to do; feeds call it."""
        self._wake.set()

    def submit(self, command: Callable[[], T]) -> Future[T]:
        """Runs `command` on the loop's thread, between two steps.

        Raises `AtCapacity` when too many wait, `EngineFailed` when the loop is over.
        """
        future: Future[T] = Future()

        def run() -> None:
            if self._stop.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            try:
                future.set_result(command())
            except Exception as error:  # the caller's to handle, on the caller's thread
                future.set_exception(error)

        with self._door:
            if self._is_over:
                raise EngineFailed("the engine has stopped; make a new one")
            try:
                self._inbox.put_nowait(run)
            except queue.Full:
                raise AtCapacity(f"{MAX_COMMANDS} commands wait for the engine; try again") from None
        self._wake.set()
        return future

    def open(
        self, stream_id: StreamId, config: StreamConfig, feed: FrameFeed, *, threshold: Threshold | None = None
    ) -> Future[None]:
        """Opens a stream that is fed by `feed` until that is finished; `threshold` takes the place of the config's."""
        return self.submit(lambda: self.admit(stream_id, config, feed, threshold=threshold))

    def admit(self, stream_id: StreamId, config: StreamConfig, feed: FrameFeed, *, threshold: Threshold | None = None) -> None:
        """As `open`, at once.  For streams that are there from the beginning: only before `start`."""
        self._engine.open(stream_id, config, threshold=threshold)
        self._feeds[stream_id] = feed
        self._num_dropped[stream_id] = 0

    def close(self, stream_id: StreamId) -> Future[None]:
        """Ends a stream at once; its `StreamEnded` comes through the outbox."""
        return self.submit(lambda: self._finish(self._engine.close(stream_id)))

    def notify(self, stream_id: StreamId, code: str, message: str, count: int) -> None:
        """Puts a notice among a stream's events, in order; dropped, with a log line, when the inbox is full."""

        def command() -> None:
            if stream_id in self._feeds:
                self._publish(self._notice(stream_id, code, message, count))

        try:
            self.submit(command)
        except (AtCapacity, EngineFailed):
            logger.warning("a notice of stream %s was dropped: %s", stream_id, message)

    def next_event(self, timeout_s: float) -> StreamEvent | None:
        """The oldest event not yet taken, or None after `timeout_s`."""
        try:
            return self._outbox.get(timeout=timeout_s) if timeout_s else self._outbox.get_nowait()
        except queue.Empty:
            return None

    @property
    def is_over(self) -> bool:
        """Whether no further event will come; those that came can still be taken."""
        return self._is_over

    @property
    def stats(self) -> EngineStats:
        """The engine's counters after its last step."""
        return self._stats

    # On the loop's thread

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.clear()
                if not self._round():
                    self._wake.wait(IDLE_S)
            reason = "stopped before the source ended"
        except Exception:
            logger.exception("the engine failed")
            reason = str(EngineFailed("the engine failed; its log has the reason. Please report it"))
        finally:
            self._stop.set()
        for stream_id in list(self._feeds):
            try:
                ended = self._engine.close(stream_id)
            except StreamNotFound:  # it ended in the step that failed
                ended = StreamEnded(stream_id=stream_id, frame=0, time_s=0.0)
            self._finish(replace(ended, error=reason))
        with self._door:
            self._is_over = True
        self._run_commands()  # cancels what nobody will run

    def _round(self) -> bool:
        """One round; False where there was nothing to do."""
        is_busy = self._run_commands()
        for stream_id, feed in list(self._feeds.items()):
            is_busy |= self._feed(stream_id, feed)
        if self._engine.has_work:
            is_busy = True
            for event in self._engine.step():
                if isinstance(event, StreamEnded):
                    self._finish(event)
                else:
                    self._publish(event)
        self._stats = self._engine.stats
        return is_busy

    def _run_commands(self) -> bool:
        is_busy = False
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return is_busy
            command()
            is_busy = True

    def _feed(self, stream_id: StreamId, feed: FrameFeed) -> bool:
        """Moves a frame from a feed to its stream, or ends the stream after its last frame."""
        if stream_id not in self._feeds or not self._engine.can_push(stream_id):
            return False  # a command that another stream's end let in may have closed it
        frame = feed.poll()
        num_dropped = feed.num_dropped - self._num_dropped[stream_id]
        if num_dropped:
            self._num_dropped[stream_id] += num_dropped
            message = (
                "frames came faster than they could be watched, and the oldest were dropped; lower --fps or watch fewer streams"
            )
            self._publish(self._notice(stream_id, "frames_dropped", message, num_dropped))
        if frame is not None:
            try:
                self._engine.push(stream_id, frame)
            except LiveStarError as error:
                self._finish(replace(self._engine.close(stream_id), error=str(error)))
            return True
        if feed.is_finished and self._engine.is_idle(stream_id):
            self._run_commands()  # the source's last notices
            if stream_id not in self._feeds:
                return True
            ended = self._engine.close(stream_id)
            self._finish(ended if feed.error is None else replace(ended, error=str(feed.error)))
            return True
        return False

    def _finish(self, ended: StreamEnded) -> None:
        feed = self._feeds.pop(ended.stream_id, None)
        self._num_dropped.pop(ended.stream_id, None)
        if feed is not None:
            feed.cancel()
        self._publish(ended)

    def _publish(self, event: StreamEvent) -> None:
        """Hands an event to the consumer; waits while `MAX_EVENTS` are unread, but not to stop.  No event is dropped."""
        while self._outbox.qsize() >= MAX_EVENTS and not self._stop.wait(FULL_S):
            pass
        self._outbox.put(event)

    def _notice(self, stream_id: StreamId, code: str, message: str, count: int) -> Notice:
        frame, time_s = self._engine.position(stream_id)
        return Notice(stream_id=stream_id, frame=frame, time_s=time_s, code=code, message=message, count=count)
