"""LoRA from training to loading: what is trained, what is written, and that the engine's weights are what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from livestar.errors import InvalidConfig
from livestar.model.livestar import LiveStarModel
from livestar.model.weights import load_model
from livestar.reference import PlainCache
from training.config import LoraConfig
from training.lora import add_lora, save_adapter

pytestmark = pytest.mark.unit


def trained(base: Path, config: LoraConfig) -> LiveStarModel:
    """The base with adapters, everything that has a gradient moved."""
    model = load_model(base, dtype=torch.float32)
    add_lora(model, config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


@torch.no_grad()
def outputs(model: LiveStarModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of some tokens, and visual tokens of some features."""
    ids = torch.arange(20)
    hidden = model.language_model(model.language_model.embed(ids), ids, PlainCache())
    return model.language_model.logits(hidden), model.project(torch.linspace(-1, 1, 64).expand(1, 16, 64))


def test_the_adapters_and_nothing_else_have_gradients(json_checkpoint: Path) -> None:
    model = load_model(json_checkpoint, dtype=torch.float32)
    add_lora(model, LoraConfig(rank=2, targets=("wqkv", "w2"), also_train=("mlp1",)))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len([name for name in names if ".lora_" in name]) == 2 * 2 * model.config.language.num_layers
    assert {name.split(".")[0] for name in names} == {"language_model", "mlp1"}
    assert all(".lora_" in name or name.startswith("mlp1.modules_to_save.") for name in names)


@pytest.mark.parametrize("also_train", [(), ("mlp1",)])
def test_what_is_loaded_is_what_was_trained(json_checkpoint: Path, tmp_path: Path, also_train: tuple[str, ...]) -> None:
    base = shutil.copytree(json_checkpoint, tmp_path / "base")
    config = LoraConfig(rank=3, alpha=5.0, also_train=also_train)
    model = trained(base, config)
    save_adapter(model, config, tmp_path / "adapter", base="../base")
    wanted, got = outputs(model), outputs(load_model(tmp_path / "adapter", dtype=torch.float32))
    before = outputs(load_model(base, dtype=torch.float32))
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(got[0], before[0], atol=1e-2)
    assert torch.equal(got[1], before[1]) == (not also_train)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["inference_mode"] is True


def test_a_layer_that_the_model_does_not_have_is_named(json_checkpoint: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"lora\.targets names 'q_proj'"):
        add_lora(load_model(json_checkpoint), LoraConfig(rank=2, targets=("wo", "q_proj")))
