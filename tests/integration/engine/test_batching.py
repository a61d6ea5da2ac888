"""What a stream is told does not depend on who shares its batch, nor on how the rows are cut into batches and blocks."""

from __future__ import annotations

import pytest

from livestar.config import GateName, RetentionConfig, StreamConfig
from livestar.engine.engine import Engine
from livestar.types import Frame, StreamEnded, StreamEvent, StreamId
from tests.fakes.pictures import video
from tests.integration.engine.watching import Loaded, assert_both_decisions, assert_same, steps_of, stream_config, watch_alone

pytestmark = pytest.mark.integration

GATES: tuple[GateName, ...] = ("compat", "scam", "leaf")


def mixed_streams(loaded: Loaded, count: int, num_frames: int) -> dict[StreamId, tuple[StreamConfig, list[Frame]]]:
    """Streams that differ in video, gate, threshold, caption length, retention and length."""
    streams = {}
    for number in range(count):
        retention = RetentionConfig(name="none", kv_tokens=1200)
        if number % 4 == 3:
            retention = RetentionConfig(name="peak-end", kv_tokens=420, num_recent_frames=2)
        config = stream_config(
            GATES[number % 3],
            threshold=0.98 + 0.02 * (number % 5),
            max_new_tokens=6 + number % 7,
            retention=retention,
        )
        streams[StreamId(f"room-{number}")] = config, video(100 + number, num_frames + number % 4, loaded.image_size)
    return streams


def watch_together(
    engine: Engine, streams: dict[StreamId, tuple[StreamConfig, list[Frame]]], steps_between_starts: int
) -> dict[StreamId, list[StreamEvent]]:
    """Opens one stream after the other and pushes each one's frames as fast as it takes them."""
    events: dict[StreamId, list[StreamEvent]] = {stream_id: [] for stream_id in streams}
    left = {stream_id: list(frames) for stream_id, (_, frames) in streams.items()}
    unopened, num_steps = list(streams), 0
    while unopened or engine.has_work or any(left.values()):
        while unopened and num_steps >= (len(streams) - len(unopened)) * steps_between_starts:
            engine.open(unopened[0], streams[unopened[0]][0])
            del unopened[0]
        for stream_id, frames in left.items():
            if stream_id not in unopened and frames and engine.can_push(stream_id):
                engine.push(stream_id, frames.pop(0))
        for event in engine.step():
            assert not isinstance(event, StreamEnded), event
            events[event.stream_id].append(event)
        num_steps += 1
    return events


@pytest.mark.parametrize(
    "settings",
    [
        {"max_batch_tokens": 4096, "block_size": 16, "max_encode_frames": 32},
        {"max_batch_tokens": 60, "block_size": 3, "max_encode_frames": 3},
        {"num_workers": 2},
        {"num_workers": 5, "max_batch_tokens": 200},
    ],
)
def test_sixteen_streams_together_equal_each_alone(small: Loaded, settings: dict[str, int]) -> None:
    streams = mixed_streams(small, 16, 8)
    engine = small.engine(num_kv_tokens=32768, max_streams=16, **settings)
    together = watch_together(engine, streams, steps_between_starts=5)
    for stream_id, (config, frames) in streams.items():
        assert_same(steps_of(together[stream_id]), watch_alone(small, frames, config))
        engine.close(stream_id)
    assert engine.stats.num_kv_tokens_used == 0
    assert engine.stats.num_frames == sum(len(frames) for _, frames in streams.values())
    assert_both_decisions([step for events in together.values() for step in steps_of(events)])


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("max_batch_tokens", [1, 7, 50])
def test_chunks_of_any_size_equal_whole_requests(small: Loaded, gate: GateName, max_batch_tokens: int) -> None:
    frames = video(34, 8, small.image_size, scene_frames=3)
    config = stream_config(gate)
    wanted = watch_alone(small, frames, config)
    assert_same(watch_alone(small, frames, config, max_batch_tokens=max_batch_tokens), wanted)
    assert_both_decisions(wanted)


@pytest.mark.parametrize("block_size", [1, 3, 64])
def test_blocks_of_any_size_give_the_same(small: Loaded, block_size: int) -> None:
    frames = video(39, 16, small.image_size)
    config = stream_config(retention=RetentionConfig(name="peak-end", kv_tokens=420, num_recent_frames=2))
    wanted = watch_alone(small, frames, config)
    assert watch_alone(small, frames, config, block_size=block_size) == wanted
    assert_both_decisions(wanted)


def test_a_run_can_be_repeated_to_the_bit(small: Loaded) -> None:
    frames = video(33, 12, small.image_size)
    assert watch_alone(small, frames, stream_config("scam")) == watch_alone(small, frames, stream_config("scam"))
