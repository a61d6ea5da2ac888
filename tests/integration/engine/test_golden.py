"""What the released code wrote down, on a checkpoint in its own format with the released tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from livestar.config import GateConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.admission import make_prompt
from livestar.model.livestar import LiveStarModel
from livestar.model.tokenizer import Tokenizer, load_tokenizer
from livestar.model.weights import load_model
from livestar.reference import ReleasedLoop
from livestar.types import Frame
from tests.integration.engine.watching import Loaded, Step, assert_same, watch_alone

pytestmark = pytest.mark.integration

CASES = ("case1", "case2")
TOLERANCE = 1e-3
"""Relative; the smallest distance of a perplexity from its threshold is 3.5 times that."""


@pytest.fixture(scope="module")
def golden_model(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveStarModel, Tokenizer]:
    directory = tmp_path_factory.mktemp("golden") / "checkpoint"
    subprocess.run([sys.executable, golden_dir / "make_checkpoint.py", directory], check=True, timeout=120, capture_output=True)
    model = load_model(directory, dtype=torch.float32)
    return model, load_tokenizer(directory, model.config.language.vocab_size)


def read_case(golden_dir: Path, case: str) -> tuple[dict[str, Any], list[Frame]]:
    trace = json.loads((golden_dir / case / "trace.json").read_text())
    paths = sorted((golden_dir / case / "frames").glob("*.png"))
    assert len(paths) == len(trace["frames"])
    pictures = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return trace, [Frame(number, float(number - 1), image) for number, image in enumerate(pictures, 1)]


def expected(trace: dict[str, Any]) -> list[Step]:
    names = ("frame", "decision", "perplexity", "reference_perplexity", "caption")
    return [Step(*(entry[name] for name in names)) for entry in trace["frames"]]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [{}, {"max_batch_tokens": 19, "block_size": 5}])
def test_the_engine_does_what_the_released_code_did(
    golden_dir: Path, golden_model: tuple[LiveStarModel, Tokenizer], case: str, settings: dict[str, int]
) -> None:
    trace, frames = read_case(golden_dir, case)
    config = StreamConfig(
        gate=GateConfig(name="compat", threshold=trace["alpha"]),
        retention=RetentionConfig(name="none"),
        sampling=SamplingConfig(max_new_tokens=trace["max_new_tokens"], repetition_penalty=trace["repetition_penalty"]),
    )
    got = watch_alone(Loaded(*golden_model, "", ""), frames, config, **settings)
    assert_same(got, expected(trace), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_the_released_loop_does_what_the_released_code_did(
    golden_dir: Path, golden_model: tuple[LiveStarModel, Tokenizer], case: str
) -> None:
    model, tokenizer = golden_model
    trace, frames = read_case(golden_dir, case)
    loop = ReleasedLoop(
        model,
        make_prompt(model.config, tokenizer),
        threshold=trace["alpha"],
        max_new_tokens=trace["max_new_tokens"],
        repetition_penalty=trace["repetition_penalty"],
    )
    got = []
    for frame in frames:
        verdict = loop.watch(torch.from_numpy(frame.image))
        got.append(Step(frame.index, verdict.decision, verdict.perplexity, verdict.reference_perplexity, verdict.caption))
    assert_same(got, expected(trace), TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_the_first_frames_visual_tokens_are_the_released_ones(
    golden_dir: Path, golden_model: tuple[LiveStarModel, Tokenizer], case: str
) -> None:
    trace, frames = read_case(golden_dir, case)
    wanted = trace["visual_tokens_frame1"]
    visual = golden_model[0].encode_frames(torch.from_numpy(frames[0].image).unsqueeze(0))[0]
    assert list(visual.shape) == wanted["shape"]
    assert visual[0, :8].tolist() == pytest.approx(wanted["first_token_first8"], rel=1e-4, abs=1e-4)
    assert float(visual.mean()) == pytest.approx(wanted["mean"], rel=1e-4)
    assert float(visual.std()) == pytest.approx(wanted["std"], rel=1e-4)
