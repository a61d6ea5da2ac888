"""The engine on a GPU does what it does on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from livestar.config import GateName
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from tests.checkpoints import RECIPES, SYSTEM_MESSAGE, TASK, write_checkpoint
from tests.fakes.pictures import video
from tests.integration.engine.watching import Loaded, assert_same, stream_config, watch_alone

pytestmark = pytest.mark.gpu


def load(directory: Path, device: str, dtype: torch.dtype) -> Loaded:
    model = load_model(directory, dtype=dtype, device=device)
    return Loaded(model, load_tokenizer(directory, model.config.language.vocab_size), SYSTEM_MESSAGE, TASK)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("gpu") / "small", RECIPES["small"])


@pytest.mark.parametrize("gate", ["compat", "scam", "leaf"])
def test_a_gpu_in_float32_decides_and_says_what_a_cpu_does(directory: Path, gate: GateName) -> None:
    cpu, gpu = load(directory, "cpu", torch.float32), load(directory, "cuda", torch.float32)
    frames = video(3, 20, cpu.image_size)
    config = stream_config(gate)
    assert_same(watch_alone(gpu, frames, config), watch_alone(cpu, frames, config), tolerance=1e-3)


def test_a_gpu_in_bfloat16_gives_the_same_twice(directory: Path) -> None:
    gpu = load(directory, "cuda", torch.bfloat16)
    frames = video(3, 12, gpu.image_size)
    assert_same(watch_alone(gpu, frames, stream_config()), watch_alone(gpu, frames, stream_config()), tolerance=0)
