"""Watching sources in this process: readers, one engine, and the events that come out.

Readers decode on threads of their own, the engine steps on its own, and `events` is read by the caller's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from livestar.config import EngineConfig
from livestar.engine.admission import plan_stream
from livestar.engine.engine import Engine
from livestar.engine.loop import EngineLoop
from livestar.errors import InvalidConfig
from livestar.media import FrameQueue, SourceReader, stream_id_for
from livestar.media.frame_queue import Overflow
from livestar.model.config import load_config
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model, open_checkpoint
from livestar.types import StreamEnded, StreamId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from livestar.config import DTypeName, MediaConfig, StreamConfig
    from livestar.engine.engine import EngineStats
    from livestar.model.livestar import LiveStarModel
    from livestar.model.tokenizer import Tokenizer
    from livestar.types import StreamEvent

logger = logging.getLogger(__name__)

SMALL_MODEL_WEIGHTS = 100_000_000
"""Weights below which a model's operations are too short to split between cores."""
POLL_S = 0.2
"""Longest wait for an event before the caller gets a turn, in seconds."""
JOIN_S = 5.0
"""Longest wait for a reader that is asked to stop, in seconds; a blocking read may outlast it on its daemon thread."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model and the tokenizer that belongs to it."""

    model: LiveStarModel
    tokenizer: Tokenizer


def load_checkpoint(
    directory: Path, *, dtype: DTypeName = "auto", device: str = "auto", on_progress: Callable[[int, int], None] | None = None
) -> Checkpoint:
    """Loads a checkpoint directory.  `auto` is a GPU in bfloat16 where there is one, else the CPU in float32.

    A small model stays in float32 on a GPU too: it is fast enough there, and its trunk loses some percent in bfloat16.
    Raises `InvalidConfig` for a device that is not there, `InvalidCheckpoint` for a directory that does not hold together.
    """
    place = resolve_device(device)
    tokenizer = load_tokenizer(directory, load_config(directory).language.vocab_size)  # refused before weights are read
    number = getattr(torch, dtype) if dtype != "auto" else _own_dtype(directory, place)
    return Checkpoint(load_model(directory, dtype=number, device=place, on_progress=on_progress), tokenizer)


def _own_dtype(directory: Path, place: torch.device) -> torch.dtype:
    model, _, _ = open_checkpoint(directory)
    return torch.float32 if place.type == "cpu" or is_small(model) else torch.bfloat16


def is_small(model: LiveStarModel) -> bool:
    """Whether a model has fewer weights than `SMALL_MODEL_WEIGHTS`."""
    return sum(p.numel() for p in model.parameters()) < SMALL_MODEL_WEIGHTS


def check_request(directory: Path, stream: StreamConfig) -> None:
    """Refuses what cannot work before any weight is read: a damaged checkpoint, a prompt or budget that does not fit."""
    model, _, _ = open_checkpoint(directory)
    plan_stream(model.config, load_tokenizer(directory, model.config.language.vocab_size), stream)


def resolve_device(name: str) -> torch.device:
    """The torch device of that name; raises `InvalidConfig` where it is not a CPU or GPU of this machine."""
    num_gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if num_gpus else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise InvalidConfig(f"device is {name!r}; give auto, cuda, cuda:N or --device cpu")
    if kind == "cuda" and torch.version.cuda is None:
        raise InvalidConfig(
            f"device is {name!r}, but this PyTorch was built without CUDA; install a CUDA build or use --device cpu"
        )
    if kind == "cuda" and int(index or 0) >= num_gpus:
        raise InvalidConfig(
            f"device is {name!r}, but this machine has {num_gpus} usable GPUs; use --device cpu or a lower number"
        )
    return torch.device(kind if kind == "cpu" else name)


def share_cores(model: LiveStarModel, num_cores: int) -> int:
    """Sets torch's threads for a model on a CPU; returns the workers to give its engine (see `EngineConfig.num_workers`).

    A large model's operations are split between all cores.  A small one's are too short for that, so its streams are split
    instead, each on one core.
    """
    splits_streams = model.device.type == "cpu" and is_small(model)
    if model.device.type == "cpu":
        torch.set_num_threads(1 if splits_streams else num_cores)
    return num_cores if splits_streams else 1


class WatchSession:
    """Several sources on one engine, from open to the last event."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        sources: Sequence[str],
        media: MediaConfig,
        stream: StreamConfig,
        *,
        num_workers: int = 1,
    ) -> None:
        """Raises `InvalidConfig` where the stream's settings and the model do not go together."""
        plan = plan_stream(checkpoint.model.config, checkpoint.tokenizer, stream)
        block_size = 16
        capacity = -(-plan.capacity // block_size) * block_size
        config = EngineConfig(
            num_kv_tokens=capacity * len(sources),
            block_size=block_size,
            max_streams=len(sources),
            num_workers=min(num_workers, len(sources)),
        )
        self._engine = Engine(checkpoint.model, checkpoint.tokenizer, config)
        self._loop = EngineLoop(self._engine)
        self._stream_config = stream
        self.stream_ids: list[StreamId] = []
        self._feeds: list[FrameQueue] = []
        self._readers: list[SourceReader] = []
        for source in sources:
            stream_id = StreamId(stream_id_for(source, self.stream_ids))
            self.stream_ids.append(stream_id)
            overflow: Overflow = "block" if media.pace == "fast" else "drop_oldest"
            feed = FrameQueue(media.max_queued_frames, overflow=overflow, on_change=self._loop.wake)
            self._feeds.append(feed)
            self._readers.append(
                SourceReader(
                    source,
                    config=media,
                    image_size=checkpoint.model.config.vision.image_size,
                    queue=feed,
                    on_notice=self._notifier(stream_id),
                )
            )

    def __enter__(self) -> Self:
        for stream_id, feed in zip(self.stream_ids, self._feeds, strict=True):
            self._loop.admit(stream_id, self._stream_config, feed)
        self._loop.start()
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for reader in self._readers:
            reader.stop()
        if self._loop.stop():
            self._engine.shut_down()
        for reader in self._readers:
            if not reader.join(JOIN_S):
                logger.warning("a source did not stop within %g s; it is left behind", JOIN_S)

    def events(self) -> Iterator[StreamEvent | None]:
        """Events of all streams in order, until every stream has ended; None when there was none for a while."""
        num_open = len(self.stream_ids)
        while num_open:
            was_over = self._loop.is_over
            event = self._loop.next_event(POLL_S)
            if event is None and was_over:
                return
            num_open -= isinstance(event, StreamEnded)
            yield event

    def remaining_events(self) -> Iterator[StreamEvent]:
        """What was still under way when the session was left."""
        while (event := self._loop.next_event(0)) is not None:
            yield event

    @property
    def stats(self) -> EngineStats:
        """The engine's counters."""
        return self._loop.stats

    def _notifier(self, stream_id: StreamId) -> Callable[[str, str, int], None]:
        return lambda code, message, count: self._loop.notify(stream_id, code, message, count)
