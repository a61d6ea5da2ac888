"""Defects that were found once, each with the test that found it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from livestar.config import GateConfig, GateName, RetentionConfig, SamplingConfig
from livestar.engine.admission import resolve_gate
from livestar.engine.sampling import CaptionSampler, sample
from livestar.errors import InvalidCheckpoint
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from livestar.retention.base import Unit
from livestar.retention.make import make_retention
from livestar.types import StreamId
from tests.checkpoints import RECIPES, SYSTEM_MESSAGE, TASK, write_checkpoint
from tests.fakes.pictures import video
from tests.integration.engine.watching import Loaded, SlowTwin, assert_same, stream_config, watch, watch_alone
from tests.unit.test_weights import rewrite

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    directory = write_checkpoint(tmp_path_factory.mktemp("x") / "small", RECIPES["small"])
    model = load_model(directory, dtype=torch.float32)
    return Loaded(model, load_tokenizer(directory, model.config.language.vocab_size), SYSTEM_MESSAGE, TASK)


@pytest.mark.parametrize(
    ("gate", "retention", "kv_tokens", "frames"),
    [
        ("scam", RetentionConfig(name="peak-end", kv_tokens=260, num_recent_frames=1), 260, (1, 30)),
        ("compat", RetentionConfig(name="peak-end-prob", kv_tokens=520, window_frames=10), 520, (40, 300)),
    ],
)
def test_a_clip_whose_caption_is_not_yet_in_the_cache_can_be_evicted(
    loaded: Loaded, gate: GateName, retention: RetentionConfig, kv_tokens: int, frames: tuple[int, int]
) -> None:
    config = stream_config(
        gate, threshold=1.0 if gate == "compat" else None, max_new_tokens=4 if gate == "compat" else 30, retention=retention
    )
    assert len(watch_alone(loaded, video(*frames, loaded.image_size), config)) == frames[1]


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_frames_that_skip_numbers_are_seen_as_what_they_are(loaded: Loaded, stride: int) -> None:
    frames = [replace(frame, index=stride * frame.index) for frame in video(22, 14, loaded.image_size)]
    twin = SlowTwin(loaded, "compat")
    assert_same(watch_alone(loaded, frames, stream_config("compat")), [twin.watch(frame) for frame in frames])


def test_prob_copes_with_frames_that_have_no_perplexity() -> None:
    units = [Unit("opening", 60), *[Unit("frame", 24, 1, n, float("inf")) for n in range(1, 60)]]
    evicted = make_retention(RetentionConfig(name="peak-end-prob")).select(units, 1000)
    assert 60 + 24 * (59 - len(evicted)) <= 1000


def test_the_turn_that_the_opening_began_is_ended_even_without_its_frame(loaded: Loaded) -> None:
    engine = loaded.engine()
    stream_id = StreamId("a")
    engine.open(stream_id, stream_config("leaf", retention=RetentionConfig(name="window", kv_tokens=400)))
    for frame in video(1, 30, loaded.image_size):
        watch(engine, stream_id, [frame])
    state = engine._streams[stream_id]
    kinds = [unit.kind for unit in state.context.units]
    assert min(unit.frame for unit in state.context.units if unit.kind == "frame") > 1  # frame 1 is gone
    assert kinds[:3] == ["opening", "opening", "frame"]
    assert state.context.units[1].num_tokens == len(state.prompt.turn_end)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<img>"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": {"special": True}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": "<img>"}}),
        ("added_tokens.json", {"<img>": "many"}),
        ("added_tokens.json", {"<img>": None}),
        ("added_tokens.json", {"<img>": -3}),
        ("added_tokens.json", {"<img>": 1.5}),
    ],
)
def test_tokenizer_files_of_another_shape_are_invalid_checkpoints(tmp_path: Path, file: str, content: dict[str, object]) -> None:
    directory = write_checkpoint(tmp_path, RECIPES["no-groups"])
    (directory / file).write_text(json.dumps(content))
    with pytest.raises(InvalidCheckpoint):
        load_tokenizer(directory, 426)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_tensor_of_another_dtype_is_refused_or_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    directory = write_checkpoint(tmp_path, RECIPES["small"])
    name = "language_model.model.layers.0.attention.wqkv.weight"
    rewrite(directory, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    try:
        model = load_model(directory)
    except InvalidCheckpoint:
        return
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_progress_ends_at_all_there_is(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_model(write_checkpoint(tmp_path, RECIPES["small"]), on_progress=lambda read, total: calls.append((read, total)))
    assert calls[-1][0] == calls[-1][1]


def test_no_stream_is_served_twice_before_another_is_served_once(loaded: Loaded) -> None:
    engine = loaded.engine(num_kv_tokens=200_000, max_streams=12, max_encode_frames=4)
    frames = {StreamId(f"s{i}"): iter(video(i, 6, loaded.image_size)) for i in range(12)}
    for stream_id in frames:
        engine.open(stream_id, stream_config(threshold=1e9, max_new_tokens=1))
    seen = dict.fromkeys(frames, 0)
    while min(seen.values()) < 5:
        for stream_id, rest in frames.items():
            if engine.can_push(stream_id) and (frame := next(rest, None)) is not None:
                engine.push(stream_id, frame)
        for event in engine.step():
            seen[event.stream_id] = event.frame
        assert max(seen.values()) - min(seen.values()) <= 2


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 1e-300])
def test_a_tiny_temperature_is_nearly_greedy(temperature: float) -> None:
    sampler = CaptionSampler(SamplingConfig(temperature=temperature, max_new_tokens=8), torch.device("cpu"))
    logits = torch.zeros(5, 1000)
    logits[:, 7] = 10
    assert [sample(row.unsqueeze(0), [sampler])[0] for row in logits] == [7] * 5


def test_a_checkpoints_own_threshold_holds_for_its_gate_named_or_not() -> None:
    assert resolve_gate(GateConfig(), {"threshold": 0.5}).threshold == 0.5
    assert resolve_gate(GateConfig(name="compat"), {"threshold": 0.5}).threshold == 0.5
    assert resolve_gate(GateConfig(name="leaf"), {"threshold": 0.5}).threshold is None
    for bad in (-1, True, float("inf"), "x"):
        with pytest.raises(InvalidCheckpoint):
            resolve_gate(GateConfig(), {"threshold": bad})
