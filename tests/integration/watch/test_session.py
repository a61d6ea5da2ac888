"""Sources, readers and the engine in this process."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from livestar.config import GateConfig, MediaConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.errors import InvalidConfig
from livestar.session import Checkpoint, WatchSession, load_checkpoint, resolve_device
from livestar.types import CaptionDone, Notice, StreamEnded, StreamEvent, Verdict
from tests.integration.media.clips import make_clip

pytestmark = pytest.mark.integration

STREAM = StreamConfig(gate=GateConfig(threshold=1.0), sampling=SamplingConfig(max_new_tokens=4))
FAST = MediaConfig(pace="fast")


def watch(
    checkpoint: Checkpoint, *sources: object, media: MediaConfig = FAST, stream: StreamConfig = STREAM
) -> list[StreamEvent]:
    with WatchSession(checkpoint, [str(source) for source in sources], media, stream) as session:
        events = [event for event in session.events() if event is not None]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("engine", "source "))]
    return events


def texts(events: list[StreamEvent], stream_id: str) -> list[tuple[int, str]]:
    return [(event.frame, event.text) for event in events if isinstance(event, CaptionDone) and event.stream_id == stream_id]


def test_sources_of_every_kind_are_watched_to_their_ends(checkpoint: Checkpoint, pictures: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=30, rate=10)
    together = watch(checkpoint, pictures, clip, pictures)
    ended = {event.stream_id: event for event in together if isinstance(event, StreamEnded)}
    assert {stream_id: (end.frame, end.error) for stream_id, end in ended.items()} == {
        "pictures": (8, None),
        "clip": (3, None),
        "pictures-2": (8, None),
    }
    assert texts(together, "pictures") == texts(together, "pictures-2") == texts(watch(checkpoint, pictures), "pictures")


def test_a_session_that_is_left_early_ends_its_threads(checkpoint: Checkpoint, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=100, rate=10)
    media = MediaConfig(pace="realtime", loop=True)
    with WatchSession(checkpoint, [str(clip)] * 3, media, STREAM) as session:
        next(event for event in session.events() if isinstance(event, Verdict))
        left = time.monotonic()
    assert time.monotonic() - left < 3
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("engine", "source "))]


def test_an_error_inside_a_session_ends_its_threads_and_comes_through(checkpoint: Checkpoint, pictures: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        WatchSession(checkpoint, [str(pictures)], MediaConfig(pace="realtime"), STREAM) as session,
    ):
        next(session.events())
        raise ZeroDivisionError
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("engine", "source "))]


def test_frames_that_a_busy_engine_cannot_take_are_dropped_and_counted(checkpoint: Checkpoint, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=240, rate=120, gop=120)
    media = MediaConfig(pace="realtime", fps=120, max_queued_frames=1)
    long = StreamConfig(gate=GateConfig(threshold=1e-9), sampling=SamplingConfig(max_new_tokens=16))
    events = watch(checkpoint, clip, media=media, stream=long)
    seen = [event.frame for event in events if isinstance(event, Verdict)]
    dropped = sum(event.count for event in events if isinstance(event, Notice) and event.code == "frames_dropped")
    assert dropped > 0
    assert dropped + len(seen) == 240
    assert seen == sorted(set(seen))


def test_as_fast_as_possible_drops_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", num_frames=40, rate=20)
    events = watch(checkpoint, clip, media=MediaConfig(pace="fast", fps=20, max_queued_frames=1))
    assert [event.frame for event in events if isinstance(event, Verdict)] == list(range(1, 41))
    assert not [event for event in events if isinstance(event, Notice)]


def test_settings_that_do_not_fit_the_model_are_refused_before_anything_starts(checkpoint: Checkpoint, pictures: Path) -> None:
    with pytest.raises(InvalidConfig, match="give at least"):
        WatchSession(checkpoint, [str(pictures)], FAST, StreamConfig(retention=RetentionConfig(kv_tokens=10)))


@pytest.mark.parametrize(("name", "number"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_a_checkpoint_is_loaded_in_the_number_format_asked_for(tiny: Path, name: str, number: torch.dtype) -> None:
    loaded = load_checkpoint(tiny, dtype=name, device="cpu")  # type: ignore[arg-type]
    assert loaded.model.dtype == number


def test_progress_is_told_up_to_the_end(tiny: Path) -> None:
    told: list[tuple[int, int]] = []
    load_checkpoint(tiny, device="cpu", on_progress=lambda read, total: told.append((read, total)))
    assert [read for read, _ in told] == sorted(read for read, _ in told)
    read, total = told[-1]
    assert 0.8 * total < read <= total


def test_a_device_is_resolved_or_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(InvalidConfig, match="--device cpu"):
        resolve_device("teapot")
