"""What happens at the limits: budgets, pools, closing in mid-frame, empty captions, wrong frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from livestar.config import RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.engine import Engine
from livestar.errors import AtCapacity, InvalidConfig, InvalidRequest, StreamNotFound
from livestar.types import CaptionDone, Decision, Notice, StreamEnded, StreamId, Verdict
from tests.fakes.pictures import picture, video
from tests.integration.engine.conftest import LoadRecipe
from tests.integration.engine.watching import Loaded, assert_same, steps_of, stream_config, watch, watch_alone

pytestmark = pytest.mark.integration

A, B = StreamId("a"), StreamId("b")


def run_until_idle(engine: Engine) -> None:
    while engine.has_work:
        engine.step()


# Budgets


@pytest.mark.parametrize("kv_tokens", [1, 40, 150])
def test_a_budget_smaller_than_the_prompt_is_refused_with_the_least_that_works(small: Loaded, kv_tokens: int) -> None:
    engine = small.engine()
    retention = RetentionConfig(name="window", kv_tokens=kv_tokens)
    with pytest.raises(InvalidConfig, match=r"kv_tokens is \d+; .* give at least \d+") as refused:
        engine.open(A, stream_config(retention=retention))
    assert engine.stats.num_streams == 0
    least = re.search(r"at least (\d+)", str(refused.value))
    assert least is not None
    engine.open(A, stream_config(retention=replace(retention, kv_tokens=int(least[1]))))
    with pytest.raises(InvalidConfig):
        engine.open(B, stream_config(retention=replace(retention, kv_tokens=int(least[1]) - 1)))
    watch(engine, A, video(1, 25, small.image_size))
    assert engine.stats.num_frames == 25


def test_a_budget_beyond_the_models_positions_is_refused(small: Loaded) -> None:
    with pytest.raises(InvalidConfig, match="kv_tokens is 40000, but the model's 32768 positions"):
        small.engine().open(A, stream_config(retention=RetentionConfig(kv_tokens=40000)))


def test_captions_that_leave_no_room_are_refused(small: Loaded) -> None:
    config = StreamConfig(sampling=SamplingConfig(max_new_tokens=8192))
    with pytest.raises(InvalidConfig, match="lower --max-new-tokens"):
        small.engine(num_kv_tokens=65536).open(A, config)


def test_a_full_pool_refuses_the_next_stream_and_keeps_nothing_of_it(small: Loaded) -> None:
    engine = small.engine(num_kv_tokens=3600)
    engine.open(A, stream_config())
    with pytest.raises(AtCapacity, match=r"'b' needs .* KV tokens"):
        engine.open(B, stream_config())
    assert engine.stats.num_streams == 1
    with pytest.raises(StreamNotFound):
        engine.push(B, video(1, 1, small.image_size)[0])
    engine.close(A)
    engine.open(B, stream_config())
    frames = video(2, 6, small.image_size)
    assert_same(steps_of(watch(engine, B, frames)), watch_alone(small, frames, stream_config()))


def test_one_stream_too_many_is_refused(small: Loaded) -> None:
    engine = small.engine(max_streams=2)
    config = stream_config(retention=RetentionConfig(kv_tokens=400))
    engine.open(A, config)
    engine.open(B, config)
    with pytest.raises(AtCapacity):
        engine.open(StreamId("c"), config)
    engine.close(A)
    engine.open(StreamId("c"), config)


def test_streams_use_no_more_than_was_set_aside_for_them(small: Loaded) -> None:
    """The pool is just what two streams may need; both run to the end with their longest captions."""
    retention = RetentionConfig(name="peak-end", kv_tokens=420)
    config = stream_config(threshold=0.5, retention=retention, max_new_tokens=40)
    probe = small.engine()
    probe.open(A, config)
    capacity = -(-probe._streams[A].context.capacity // 16) * 16
    engine = small.engine(num_kv_tokens=2 * capacity)
    engine.open(A, config)
    engine.open(B, config)
    frames = {A: video(3, 30, small.image_size), B: video(4, 30, small.image_size)}
    for pair in zip(frames[A], frames[B], strict=True):
        for stream_id, frame in zip((A, B), pair, strict=True):
            engine.push(stream_id, frame)
        run_until_idle(engine)
    assert engine.stats.num_frames == 60


def test_a_stream_without_retention_ends_when_full_and_the_others_go_on(small: Loaded) -> None:
    engine = small.engine()
    engine.open(A, stream_config(retention=RetentionConfig(name="none", kv_tokens=300)))
    engine.open(B, stream_config())
    frames = video(5, 16, small.image_size)
    ended: list[StreamEnded] = []
    events = []
    for frame in frames:
        for stream_id in [B] if ended else [A, B]:
            engine.push(stream_id, frame)
        while engine.has_work:
            for event in engine.step():
                ended.extend([event] if isinstance(event, StreamEnded) else [])
                events.extend([event] if event.stream_id == B else [])
    assert [event.stream_id for event in ended] == [A]
    assert ended[0].error is not None
    assert "retention 'none' evicts nothing" in ended[0].error
    assert 2 < ended[0].frame < 12
    assert ended[0].time_s == ended[0].frame - 1
    with pytest.raises(StreamNotFound):
        engine.push(A, frames[0])
    assert_same(steps_of(events), watch_alone(small, frames, stream_config()))
    engine.close(B)
    assert engine.stats.num_kv_tokens_used == 0


# Opening and closing


def test_an_id_can_be_open_once_and_opened_again_after_close(small: Loaded) -> None:
    engine = small.engine()
    engine.open(A, stream_config())
    with pytest.raises(InvalidRequest, match="'a' is already open"):
        engine.open(A, stream_config())
    assert engine.close(A) == StreamEnded(stream_id=A, frame=0, time_s=0.0)
    with pytest.raises(StreamNotFound, match="'a'"):
        engine.close(A)
    engine.open(A, stream_config())


@pytest.mark.parametrize("num_steps", range(0, 14, 2))
def test_closing_in_mid_frame_frees_every_block(small: Loaded, num_steps: int) -> None:
    engine = small.engine(max_batch_tokens=50)
    engine.open(A, stream_config())
    engine.push(A, video(6, 1, small.image_size)[0])
    for _ in range(num_steps):
        engine.step()
    assert not engine.is_idle(A)
    assert engine.close(A).error is None
    assert engine.step() == []
    assert engine.stats.num_kv_tokens_used == 0
    frames = video(7, 5, small.image_size)
    engine.open(A, stream_config())
    assert_same(steps_of(watch(engine, A, frames)), watch_alone(small, frames, stream_config()))


def test_closing_one_stream_does_not_disturb_another(small: Loaded) -> None:
    engine = small.engine()
    frames = video(8, 10, small.image_size)
    engine.open(A, stream_config())
    engine.open(B, stream_config())
    events = []
    for number, frame in enumerate(frames):
        if number < 5:
            engine.push(A, frame)
        engine.push(B, frame)
        if number == 4:
            events += [event for event in engine.step() if event.stream_id == B]
            engine.close(A)
        while engine.has_work:
            events += [event for event in engine.step() if event.stream_id == B]
    assert_same(steps_of(events), watch_alone(small, frames, stream_config()))


# Frames


def test_a_picture_of_the_wrong_size_or_type_is_refused(small: Loaded) -> None:
    engine = small.engine()
    engine.open(A, stream_config())
    (frame,) = video(9, 1, small.image_size)
    size = small.image_size
    wrong: list[Any] = [
        picture(9, 1, size // 2),
        frame.image[:, :, :2],
        frame.image.astype(np.float32),
        np.zeros((3, size, size), dtype=np.uint8),
    ]
    for image in wrong:
        with pytest.raises(InvalidRequest, match=f"the model takes uint8 RGB pictures of {size} x {size}"):
            engine.push(A, replace(frame, image=image))
    engine.push(A, frame)
    run_until_idle(engine)
    assert engine.stats.num_frames == 1


def test_a_frame_number_can_neither_repeat_nor_go_back(small: Loaded) -> None:
    engine = small.engine()
    engine.open(A, stream_config())
    frames = video(10, 4, small.image_size)
    with pytest.raises(InvalidRequest, match="number them upwards from 1"):
        engine.push(A, replace(frames[0], index=0))
    watch(engine, A, frames[:3])
    for index in (3, 1, -1):
        with pytest.raises(InvalidRequest, match="comes after frame 3"):
            engine.push(A, replace(frames[3], index=index))
    assert [step.frame for step in steps_of(watch(engine, A, frames[3:]))] == [4]


def test_a_second_frame_waits_and_a_third_is_refused(small: Loaded) -> None:
    engine = small.engine()
    engine.open(A, stream_config())
    first, second, third = video(11, 3, small.image_size)
    engine.push(A, first)
    assert not engine.can_push(A)
    with pytest.raises(AtCapacity, match="can_push"):
        engine.push(A, second)
    engine.step()
    assert engine.can_push(A)
    engine.push(A, second)
    assert not engine.is_idle(A)
    with pytest.raises(AtCapacity):
        engine.push(A, third)
    run_until_idle(engine)
    assert engine.is_idle(A)
    assert engine.stats.num_frames == 2


# Empty captions


@pytest.fixture
def eager_to_stop(checkpoint: LoadRecipe) -> Iterator[Loaded]:
    """A model whose likeliest token ends the turn wherever it would begin a caption on a frame of video 12's first scene."""
    loaded = checkpoint("deep")
    seen: list[torch.Tensor] = []
    language = loaded.model.language_model
    first_row = language.model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output[-1].clone()))
    watch_alone(loaded, video(12, 1, loaded.image_size), stream_config(max_new_tokens=1))
    first_row.remove()
    stop = loaded.tokenizer.token_id("<|im_end|>")
    row = language.output.weight[stop].clone()
    with torch.inference_mode():
        language.output.weight[stop] = 3 * seen[0] / seen[0].norm()
    yield loaded
    with torch.inference_mode():
        language.output.weight[stop] = row


def test_an_empty_caption_counts_as_silent_and_the_stream_goes_on(eager_to_stop: Loaded) -> None:
    loaded = eager_to_stop
    engine = loaded.engine()
    engine.open(A, stream_config(threshold=1.0))
    events = watch(engine, A, video(12, 40, loaded.image_size, scene_frames=3))
    notices = [event for event in events if isinstance(event, Notice)]
    captions = [event for event in events if isinstance(event, CaptionDone)]
    verdicts = {event.frame: event for event in events if isinstance(event, Verdict)}
    assert len(verdicts) == 40
    assert captions and all(caption.text for caption in captions)
    assert [notice.code for notice in notices] == ["empty_caption"] * len(notices)
    assert notices[0].frame == 1
    assert verdicts[1] == Verdict(
        stream_id=A,
        frame=1,
        time_s=0.0,
        decision=Decision.SILENT,
        perplexity=None,
        reference_perplexity=None,
        threshold=1.0,
        ratio=None,
    )
    assert all(verdicts[notice.frame].decision is Decision.SILENT for notice in notices)
    assert all(verdicts[caption.frame].decision is Decision.RESPOND for caption in captions)
    later = [notice.frame for notice in notices if notice.frame > captions[0].frame]
    for frame in later:  # the old caption and its reference stay
        assert verdicts[frame].reference_perplexity == verdicts[frame - 1].reference_perplexity
