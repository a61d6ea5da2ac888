"""The engine: many streams, one model, one batch per step.

    engine = Engine(model, tokenizer, EngineConfig(num_kv_tokens=65536))
    engine.open(StreamId("door"), StreamConfig())
    engine.push(StreamId("door"), frame)
    while engine.has_work:
        events = engine.step()

A step encodes the frames that are due, then runs one ragged batch: every stream's next rows, be they a verification, a prefill
or a decode step.  It is synchronous and single-threaded; `livestar.engine.loop` puts a thread and queues around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from livestar.cache.kv_cache import KVCache
from livestar.engine.admission import plan_stream
from livestar.engine.context import StreamContext
from livestar.engine.runner import Chunk, ChunkResult, Runner
from livestar.engine.sampling import DAMAGED, CaptionSampler
from livestar.engine.scheduler import Demand, schedule
from livestar.engine.stream import StreamState, watch_frame
from livestar.engine.work import Generate, Score, Work
from livestar.errors import AtCapacity, EngineFailed, InvalidRequest, LiveStarError, StreamNotFound
from livestar.retention.base import Unit
from livestar.types import StreamEnded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.config import EngineConfig, StreamConfig
    from livestar.gate.threshold import Threshold
    from livestar.model.livestar import LiveStarModel
    from livestar.model.tokenizer import Tokenizer
    from livestar.types import Frame, StreamEvent, StreamId


MAX_MEAN_NLL = 709.0
"""exp of more overflows."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts since the engine was made, and what is in use now."""

    num_streams: int
    num_frames: int
    num_verifications: int
    num_captions: int
    num_steps: int
    num_tokens: int
    """Rows fed to the language model."""
    num_kv_tokens_used: int
    num_kv_tokens: int


class Engine:
    """Serves all streams of one device.  Not thread-safe."""

    def __init__(self, model: LiveStarModel, tokenizer: Tokenizer, config: EngineConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self._cache = KVCache(
            model.config.language,
            num_blocks=-(-config.num_kv_tokens // config.block_size),
            block_size=config.block_size,
            max_sequences=config.max_streams,
            dtype=model.dtype,
            device=model.device,
        )
        self._runner = Runner(model, self._cache, config.max_streams, config.num_workers)
        self._streams: dict[StreamId, StreamState] = {}
        self._num_reserved_blocks = 0
        self._num_held_steps = 0
        self._num_frames = self._num_verifications = self._num_captions = self._num_steps = self._num_tokens = 0

    def shut_down(self) -> None:
        """Ends the engine's workers; it must not be used again."""
        self._runner.close()

    # Streams

    def open(self, stream_id: StreamId, config: StreamConfig, *, threshold: Threshold | None = None) -> None:
        """Admits a stream, with all the KV blocks it can ever need set aside.  `threshold` takes the place of the config's.

        Raises `InvalidRequest` for an id that is open or a config that cannot work, `AtCapacity` where the pool is too small.
        """
        if stream_id in self._streams:
            raise InvalidRequest(f"stream {stream_id!r} is already open; close it or choose another id")
        plan = plan_stream(self.model.config, self.tokenizer, config)
        num_blocks = self._num_blocks(plan.capacity)
        num_free = self._cache.pool.num_blocks - self._num_reserved_blocks
        if num_blocks > num_free:
            raise AtCapacity(
                f"stream {stream_id!r} needs {plan.capacity} KV tokens; {num_free * self.config.block_size} are unreserved; "
                "close a stream, lower --kv-tokens, or give the engine a larger pool"
            )
        context = StreamContext(self._cache, plan.capacity)
        context.commit(Unit("opening", len(plan.opening)), plan.opening)
        self._num_reserved_blocks += num_blocks
        self._streams[stream_id] = StreamState(
            stream_id=stream_id,
            prompt=plan.prompt,
            layout=plan.layout,
            threshold=plan.threshold if threshold is None else threshold,
            retention=plan.retention,
            sampler=CaptionSampler(plan.sampling, self.model.device),
            context=context,
            budget=plan.budget,
        )

    def close(self, stream_id: StreamId) -> StreamEnded:
        """Ends a stream at once and gives its blocks back; a frame under way is dropped."""
        return self._end(self._stream(stream_id), None)

    def can_push(self, stream_id: StreamId) -> bool:
        """Whether the stream has room for its next frame."""
        return self._stream(stream_id).waiting is None

    def push(self, stream_id: StreamId, frame: Frame) -> None:
        """Hands a stream its next frame.  Raises `AtCapacity` while one is waiting, `InvalidRequest` for a wrong picture."""
        stream = self._stream(stream_id)
        if stream.waiting is not None:
            raise AtCapacity(f"stream {stream_id!r} already has a frame waiting; ask can_push first")
        size = self.model.config.vision.image_size
        if frame.image.shape != (size, size, 3) or frame.image.dtype != "uint8":
            raise InvalidRequest(
                f"frame {frame.index} of stream {stream_id!r} is {frame.image.dtype} {frame.image.shape}; "
                f"the model takes uint8 RGB pictures of {size} x {size}"
            )
        if frame.index <= max(stream.last_frame, 0):
            raise InvalidRequest(
                f"frame {frame.index} of stream {stream_id!r} comes after frame {stream.last_frame}; number them upwards from 1"
            )
        stream.waiting = frame

    def is_idle(self, stream_id: StreamId) -> bool:
        """Whether the stream has neither a frame under way nor one waiting."""
        stream = self._stream(stream_id)
        return stream.loop is None and stream.waiting is None

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return any(stream.loop is not None or stream.waiting is not None for stream in self._streams.values())

    @property
    def stats(self) -> EngineStats:
        """Counters and use."""
        pool = self._cache.pool
        return EngineStats(
            num_streams=len(self._streams),
            num_frames=self._num_frames,
            num_verifications=self._num_verifications,
            num_captions=self._num_captions,
            num_steps=self._num_steps,
            num_tokens=self._num_tokens,
            num_kv_tokens_used=(pool.num_blocks - pool.num_free) * self._cache.block_size,
            num_kv_tokens=pool.num_blocks * self._cache.block_size,
        )

    def position(self, stream_id: StreamId) -> tuple[int, float]:
        """Number and media time of the newest frame that a stream has begun to watch; 0 and 0.0 before the first."""
        stream = self._stream(stream_id)
        return stream.last_frame, stream.last_time_s

    def num_context_tokens(self, stream_id: StreamId) -> int:
        """Tokens in a stream's context, forks not counted."""
        return self._stream(stream_id).context.num_committed

    # Steps

    def step(self) -> list[StreamEvent]:
        """Encodes due frames, runs one batch, and returns what came of it.  A failing stream ends; the others go on."""
        events = self._begin_frames()
        streams = sorted((s for s in self._streams.values() if s.work is not None), key=lambda s: s.started)
        demands = [Demand(s.work.num_left, s.work.is_decoding) for s in streams if s.work is not None]
        grants = schedule(demands, self.config.max_batch_tokens)
        granted = [(stream, grant) for stream, grant in zip(streams, grants, strict=True) if grant]
        if not granted:
            return events
        chunks = [_chunk(stream, grant) for stream, grant in granted]
        results = self._runner.run(chunks)
        self._num_steps += 1
        self._num_tokens += sum(grants)
        for (stream, grant), result in zip(granted, results, strict=True):
            events.extend(self._take(stream, grant, result))
        return events

    def _begin_frames(self) -> list[StreamEvent]:
        """Encodes waiting frames of idle streams in one pass and starts on them.

        While captions are decoded, frames are held for a few steps, so that more of them come together: a decoding step costs
        little, and frames in one batch cost less than the same frames in several.
        """
        waiting = [s for s in self._streams.values() if s.loop is None and s.waiting is not None]
        due = sorted(waiting, key=lambda s: s.started)[: self.config.max_encode_frames]  # served longest ago first
        is_decoding = any(s.work is not None and s.work.is_decoding for s in self._streams.values())
        if not due or (is_decoding and self._num_held_steps < self.config.max_held_steps):
            self._num_held_steps += bool(due)
            return []
        self._num_held_steps = 0
        frames = [stream.waiting for stream in due if stream.waiting is not None]
        slots = [self._runner.slot(stream.context.sequence, stream.num_frames) for stream in due]
        self._runner.encode(slots, [torch.from_numpy(frame.image) for frame in frames])
        events: list[StreamEvent] = []
        for stream, frame, slot in zip(due, frames, slots, strict=True):
            stream.waiting = None
            stream.last_frame, stream.last_time_s = frame.index, frame.pts_s
            stream.loop = watch_frame(stream, frame, slot)
            events.extend(self._advance(stream, None))
        return events

    def _take(self, stream: StreamState, grant: int, result: ChunkResult) -> list[StreamEvent]:
        """Books one chunk's result; when the request is answered, resumes the frame."""
        work = stream.work
        assert work is not None
        work.num_fed += grant
        work.nll += result.nll
        if work.num_left:
            return []
        if isinstance(work.request, Score):
            self._num_verifications += 1
            if not math.isfinite(work.nll):
                return [self._end(stream, _damaged())]
            return self._advance(stream, _perplexity(work.nll, len(work.request.fork.targets)))
        assert result.token is not None
        if result.token == DAMAGED:
            return [self._end(stream, _damaged())]
        work.generated.append(result.token)
        if result.token == stream.prompt.stop_id or len(work.generated) == stream.sampler.max_new_tokens:
            self._num_captions += 1
            return self._advance(stream, work.generated)
        try:
            stream.context.extend(result.token)
        except LiveStarError as error:
            return [self._end(stream, error)]
        work.feed.append(result.token)
        return []

    def _advance(self, stream: StreamState, answer: float | list[int] | None) -> list[StreamEvent]:
        """Resumes a stream's frame with the model's answer, up to its next request or its end."""
        assert stream.loop is not None
        stream.work = None
        try:
            if answer is None:
                self._make_room(stream)
                request = next(stream.loop)
            else:
                request = stream.loop.send(answer)
            if isinstance(request, Score):
                feed = stream.context.branch(request.fork.rows, len(request.fork.targets))
            else:
                stream.sampler.start()
                feed = stream.context.branch(request.rows, 1)
        except StopIteration as done:
            stream.loop = None
            stream.num_frames += 1
            self._num_frames += 1
            events: list[StreamEvent] = done.value
            return events
        except LiveStarError as error:
            return [self._end(stream, error)]
        stream.work = Work(request, feed)
        stream.started = self._num_steps
        return []

    def _make_room(self, stream: StreamState) -> None:
        evicted = stream.retention.select(stream.context.units, stream.budget)
        if evicted:
            stream.context.evict(evicted)

    def _end(self, stream: StreamState, error: LiveStarError | None) -> StreamEnded:
        if stream.loop is not None:
            stream.loop.close()
        stream.context.close()
        self._num_reserved_blocks -= self._num_blocks(stream.context.capacity)
        del self._streams[stream.stream_id]
        return StreamEnded(
            stream_id=stream.stream_id,
            frame=stream.last_frame,
            time_s=stream.last_time_s,
            error=None if error is None else str(error),
        )

    def _stream(self, stream_id: StreamId) -> StreamState:
        try:
            return self._streams[stream_id]
        except KeyError:
            raise StreamNotFound(f"there is no stream {stream_id!r}; open it first") from None

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.config.block_size)


def _chunk(stream: StreamState, grant: int) -> Chunk:
    """The next `grant` rows of a stream's work, with the targets that fall on them."""
    work = stream.work
    assert work is not None
    start, stop = work.num_fed, work.num_fed + grant
    targets: Sequence[int] = ()
    if isinstance(work.request, Score):
        all_targets = work.request.fork.targets
        first_scored = len(work.feed) - len(all_targets)
        targets = all_targets[max(start - first_scored, 0) : max(stop - first_scored, 0)]
    wants_token = isinstance(work.request, Generate) and stop == len(work.feed)
    return Chunk(stream.context.sequence, work.feed[start:stop], targets, stream.sampler if wants_token else None)


def _damaged() -> EngineFailed:
    return EngineFailed("the model's output is not a number; its weights are damaged, or need --dtype float32")


def _perplexity(nll: float, num_targets: int) -> float:
    """exp of the mean negative log likelihood, at most the largest float."""
    return math.exp(min(nll / num_targets, MAX_MEAN_NLL))
