"""The engine, which feeds every row once, against twins that prefill the whole dialogue at every step."""

from __future__ import annotations

import pytest
import torch

from livestar.config import GateName
from livestar.engine.admission import make_prompt
from livestar.reference import ReleasedLoop
from tests.checkpoints import RECIPES
from tests.fakes.pictures import video
from tests.integration.engine.conftest import LoadRecipe
from tests.integration.engine.watching import (
    Loaded,
    SlowTwin,
    Step,
    assert_both_decisions,
    assert_same,
    stream_config,
    watch_alone,
)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "threshold", "max_new_tokens", "number"),
    [
        ("small", 1.03, 12, 1),
        ("small", 1.0, 1, 8),
        ("deep", 1.1, 20, 3),
        ("deep", 1.15, 7, 9),
        ("no-groups", 1.0, 16, 5),
        ("no-groups", 0.8, 30, 6),
        ("one-kv-head", 1.03, 9, 7),
    ],
)
def test_the_engine_equals_the_released_loop(
    checkpoint: LoadRecipe, name: str, threshold: float, max_new_tokens: int, number: int
) -> None:
    loaded = checkpoint(name)
    frames = video(number, 22, loaded.image_size)
    prompt = make_prompt(loaded.model.config, loaded.tokenizer)
    loop = ReleasedLoop(loaded.model, prompt, threshold=threshold, max_new_tokens=max_new_tokens)
    wanted = []
    for frame in frames:
        verdict = loop.watch(torch.from_numpy(frame.image))
        wanted.append(Step(frame.index, verdict.decision, verdict.perplexity, verdict.reference_perplexity, verdict.caption))
    got = watch_alone(loaded, frames, stream_config(threshold=threshold, max_new_tokens=max_new_tokens))
    assert_same(got, wanted)
    assert_both_decisions(got)


@pytest.mark.parametrize("keep_captions", [True, False])
@pytest.mark.parametrize("gate", ["compat", "scam", "leaf"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_gate_scores_what_a_prefill_of_its_layout_scores(
    checkpoint: LoadRecipe, name: str, gate: GateName, keep_captions: bool
) -> None:
    loaded = checkpoint(name)
    frames = video(20, 14, loaded.image_size, scene_frames=3)
    twin = SlowTwin(loaded, gate, threshold=1.02, keep_captions=keep_captions, max_new_tokens=9)
    wanted = [twin.watch(frame) for frame in frames]
    config = stream_config(gate, threshold=1.02, keep_captions=keep_captions, max_new_tokens=9)
    assert_same(watch_alone(loaded, frames, config), wanted)
    assert_both_decisions(wanted)


@pytest.mark.parametrize("gate", ["compat", "scam", "leaf"])
def test_the_default_of_keep_captions_is_the_gates_own(small: Loaded, gate: GateName) -> None:
    frames = video(21, 12, small.image_size, scene_frames=2)
    twin = SlowTwin(small, gate)
    assert_same(watch_alone(small, frames, stream_config(gate)), [twin.watch(frame) for frame in frames])
