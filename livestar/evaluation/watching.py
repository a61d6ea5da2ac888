"""Watching annotated videos with an engine, several at once, and noting what was said when.

Each video, or its part, is a stream of its own with a fresh context.  Frames wait for the engine and none is dropped, so the
outcome does not depend on the machine's speed.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from livestar.annotations.sampled import events_of_frames
from livestar.config import EngineConfig, StreamConfig
from livestar.engine.admission import plan_stream
from livestar.engine.engine import Engine
from livestar.engine.loop import EngineLoop
from livestar.errors import EngineFailed, InvalidConfig, LiveStarError
from livestar.evaluation.footage import Footage
from livestar.evaluation.policies import Gate, Policy
from livestar.evaluation.runs import FrameVerdict, Response, VideoRun
from livestar.types import CaptionDone, Decision, Notice, StreamEnded, StreamId, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livestar.annotations.types import AnnotatedVideo, Event
    from livestar.session import Checkpoint

logger = logging.getLogger(__name__)

BLOCK_SIZE = 16
POLL_S = 0.2
"""Longest wait for an event before looking whether the engine still runs, in seconds."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be watched to its end; no metric counts it."""

    name: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What came of watching a set of videos."""

    runs: tuple[VideoRun, ...]
    """In the order of the videos, failures left out."""
    failures: tuple[Failure, ...]
    num_frames: int
    seconds: float
    """Wall time from the first frame to the last, decoding included."""

    @property
    def frames_per_s(self) -> float:
        """Frames of all streams together per second of wall time; 0 where nothing was watched."""
        return self.num_frames / self.seconds if self.seconds > 0 else 0.0


@dataclass(slots=True)
class _Record:
    """What was noted of one stream so far."""

    responses: list[Response] = field(default_factory=list)
    verdicts: list[FrameVerdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None


def video_names(videos: Sequence[AnnotatedVideo]) -> list[str]:
    """A short name for each video: its stem, made unique with -2, -3."""
    names: list[str] = []
    for video in videos:
        stem = Path(video.name).stem if isinstance(video.source, str) else Path(video.name).parent.name
        stem, number = stem or "video", 1
        name = stem
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def run_policy(
    checkpoint: Checkpoint,
    videos: Sequence[AnnotatedVideo],
    policy: Policy | None = None,
    *,
    fps: float,
    stream: StreamConfig | None = None,
    num_streams: int = 8,
    num_workers: int = 1,
) -> list[VideoRun]:
    """Watches videos under a policy (None: the model's own gate) and returns one run for each.

    Raises the error of the first video that cannot be watched.
    """
    footage = Footage(videos, fps=fps, image_size=checkpoint.model.config.vision.image_size)
    watched = watch(checkpoint, footage, policy, stream=stream, num_streams=num_streams, num_workers=num_workers)
    check_failures(watched)
    return list(watched.runs)


def check_failures(watched: Watched) -> None:
    """Raises `LiveStarError` for the first failure, if there was one."""
    for failure in watched.failures:
        raise LiveStarError(f"{failure.name}: {failure.error}")


def watch(
    checkpoint: Checkpoint,
    footage: Footage,
    policy: Policy | None = None,
    *,
    stream: StreamConfig | None = None,
    num_streams: int = 8,
    num_workers: int = 1,
    on_frame: Callable[[], None] | None = None,
) -> Watched:
    """Watches all videos of `footage`, at most `num_streams` at a time in one engine; `on_frame` is called for every frame.

    A video that fails is noted and the others go on.  Raises `InvalidConfig` where settings and model do not go together.
    """
    if num_streams < 1:
        raise InvalidConfig(f"streams is {num_streams}; give at least 1")
    stream = StreamConfig() if stream is None else stream
    num_streams = min(num_streams, len(footage.videos)) or 1
    plan = plan_stream(checkpoint.model.config, checkpoint.tokenizer, stream)
    capacity = -(-plan.capacity // BLOCK_SIZE) * BLOCK_SIZE
    config = EngineConfig(
        num_kv_tokens=capacity * num_streams,
        block_size=BLOCK_SIZE,
        max_streams=num_streams,
        num_workers=min(num_workers, num_streams),
    )
    engine = Engine(checkpoint.model, checkpoint.tokenizer, config)
    session = _Session(EngineLoop(engine), footage, Gate() if policy is None else policy, stream)
    began = time.perf_counter()
    try:
        records = session.run(num_streams, on_frame)
    finally:
        if session.stop():
            engine.shut_down()
    seconds = time.perf_counter() - began
    runs, failures = [], []
    for name, video, record in zip(session.names, footage.videos, records, strict=True):
        if record.error is None:
            runs.append(_make_run(name, video, record, footage.fps))
        else:
            failures.append(Failure(name, record.error))
    num_frames = sum(len(record.verdicts) for record in records)
    return Watched(runs=tuple(runs), failures=tuple(failures), num_frames=num_frames, seconds=seconds)


class _Session:
    """One pass over the footage.  Used by one thread; the loop has its own."""

    def __init__(self, loop: EngineLoop, footage: Footage, policy: Policy, stream: StreamConfig) -> None:
        self._loop = loop
        self._footage = footage
        self._policy = policy
        self._stream = stream
        self.names = video_names(footage.videos)
        self._records = [_Record() for _ in footage.videos]
        self._index = {StreamId(name): i for i, name in enumerate(self.names)}

    def run(self, num_streams: int, on_frame: Callable[[], None] | None) -> list[_Record]:
        """Opens streams as there is room, until every video has ended."""
        self._loop.start()
        waiting = list(range(len(self._records)))[::-1]
        num_open = 0
        while waiting or num_open:
            while waiting and num_open < num_streams:
                self._open(waiting.pop())
                num_open += 1
            was_over = self._loop.is_over
            event = self._loop.next_event(POLL_S)
            if event is None:
                if was_over:
                    raise EngineFailed("the engine stopped before every video had ended; its log has the reason")
                continue
            record = self._records[self._index[event.stream_id]]
            match event:
                case CaptionDone():
                    record.responses.append(Response(event.time_s, event.text))
                case Verdict():
                    record.verdicts.append(_frame_verdict(event))
                    if on_frame is not None:
                        on_frame()
                case Notice():
                    record.notes.append(event.message)
                case StreamEnded():
                    num_open -= 1
                    record.error = event.error
        return self._records

    def stop(self) -> bool:
        """Ends the loop and with it all feeds; False where it still runs."""
        return self._loop.stop()

    def _open(self, index: int) -> None:
        """Opens a video's stream."""
        stream_id = StreamId(self.names[index])
        feed = self._footage.feed(index, on_change=self._loop.wake)
        threshold = self._policy.threshold(stream_id, self._footage.fps)
        self._loop.open(stream_id, self._stream, feed, threshold=threshold).result()


def _frame_verdict(event: Verdict) -> FrameVerdict:
    return FrameVerdict(
        time_s=event.time_s,
        is_response=event.decision is Decision.RESPOND,
        perplexity=event.perplexity,
        reference_perplexity=event.reference_perplexity,
        ratio=event.ratio,
        threshold=event.threshold,
    )


def _make_run(name: str, video: AnnotatedVideo, record: _Record, fps: float) -> VideoRun:
    times = tuple(verdict.time_s for verdict in record.verdicts)
    return VideoRun(
        name=name,
        events=seen_events(video.events, times),
        frame_times_s=times,
        responses=tuple(record.responses),
        frame_interval_s=1 / fps,
        verdicts=tuple(record.verdicts),
        source=video.source,
        pictures_per_s=video.fps,
        notes=tuple(dict.fromkeys(record.notes)),
    )


def seen_events(events: Sequence[Event], frame_times_s: Sequence[float]) -> tuple[Event, ...]:
    """The events of which a frame was seen; no policy could speak of the others."""
    owners = set(events_of_frames(events, frame_times_s))
    return tuple(event for place, event in enumerate(events) if place in owners)
