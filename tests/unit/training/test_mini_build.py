"""The untrained livestar-mini: loads, runs, and is the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from livestar.config import StreamConfig
from livestar.engine.admission import plan_stream
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from training.mini.build import LanguageShape, init_mini, load_trunk
from training.mini.vocabulary import train_vocabulary

pytestmark = pytest.mark.unit

SMALL = LanguageShape(hidden_size=64, intermediate_size=96, num_layers=2, num_heads=4, num_kv_heads=2)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mini") / "full"
    init_mini(directory, tokenizer=train_vocabulary(["A red car drives past."]), gate="scam")
    return directory


def test_it_fits_its_size_and_loads_in_full_precision(mini: Path) -> None:
    assert sum(path.stat().st_size for path in mini.iterdir()) < 20e6
    model = load_model(mini, dtype=torch.float32)
    assert (model.config.vision.image_size, model.config.vision.hidden_size, model.config.vision.grid) == (256, 320, 8)
    assert model.config.language.num_layers == 6
    assert model.encode_frames(torch.zeros(2, 256, 256, 3, dtype=torch.uint8)).shape == (2, 16, 256)


def test_it_is_stored_in_half_precision_with_the_packages_trunk(mini: Path) -> None:
    stored = {name: tensor for path in mini.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for name, tensor in load_trunk().items():
        torch.testing.assert_close(stored[f"vision_model.{name}"].float(), tensor, rtol=1e-3, atol=1e-7)


def test_random_weights_have_the_spread_that_is_meant(mini: Path) -> None:
    state = load_model(mini, dtype=torch.float32).state_dict()
    block = "language_model.model.layers.3"
    for name in (
        f"{block}.attention.wqkv.weight",
        f"{block}.feed_forward.w1.weight",
        "mlp1.1.weight",
        "language_model.output.weight",
    ):
        assert float(state[name].std()) == pytest.approx(state[name].shape[-1] ** -0.5, rel=0.02)
        assert abs(float(state[name].mean())) < 1e-3
    for name in (f"{block}.attention.wo.weight", f"{block}.feed_forward.w2.weight"):
        assert float(state[name].std()) == pytest.approx((12 * state[name].shape[-1]) ** -0.5, rel=0.02)
    for name in (f"{block}.ffn_norm.weight", "language_model.model.norm.weight", "mlp1.0.weight"):
        assert torch.equal(state[name], torch.ones_like(state[name]))
    for name in ("mlp1.0.bias", "mlp1.1.bias", "mlp1.3.bias"):
        assert not state[name].any()


def test_a_stream_of_it_can_be_planned(mini: Path) -> None:
    model = load_model(mini)
    plan = plan_stream(model.config, load_tokenizer(mini, model.config.language.vocab_size), StreamConfig())
    assert plan.prompt.system_message == "You watch a video."
    assert len(plan.opening) < 40
    assert json.loads((mini / "config.json").read_text())["livestar"]["gate"] == "scam"


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path: Path) -> None:
    tokenizer = train_vocabulary(["A red car drives past."], max_ids=400)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        init_mini(tmp_path / name, tokenizer=tokenizer, language=SMALL, seed=seed)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 4
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "same" / name).read_bytes() for name in files)
    weights = "model-00001-of-00001.safetensors"
    assert (tmp_path / "one" / weights).read_bytes() != (tmp_path / "other" / weights).read_bytes()
