"""LoRA adapters, against peft's own merge, and every way in which one may not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from livestar.errors import InvalidCheckpoint, InvalidConfig
from livestar.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, base_directory
from livestar.model.config import load_config
from livestar.model.livestar import LiveStarModel
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model, open_checkpoint

pytestmark = pytest.mark.unit

WO = "base_model.model.language_model.model.layers.0.attention.wo"


def write_adapter(base: Path, directory: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Writes a random adapter with peft; returns what peft's own merge makes of the base, in float32."""
    model = load_model(base, dtype=torch.float32)
    chosen: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["wqkv", "wo", "w1", "w2", "w3"]} | settings
    wrapped = get_peft_model(model, LoraConfig(**chosen))
    generator = torch.Generator().manual_seed(5)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    wrapped.save_pretrained(str(directory))
    edit(directory, base_model_name_or_path=f"../{base.name}")
    merged = wrapped.merge_and_unload()
    assert isinstance(wrapped, PeftModel)
    return {name: tensor.clone() for name, tensor in merged.state_dict().items()}


@pytest.fixture
def base(json_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(json_checkpoint, tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    write_adapter(base, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "r": 9},
        {"target_modules": ["wqkv"], "modules_to_save": ["mlp1"]},
        {"target_modules": ["wo", "output"], "lora_alpha": 1, "r": 1},
        {"target_modules": "language_model.*(wqkv|w2)", "modules_to_save": ["norm", "mlp1"]},
    ],
)
def test_loading_equals_pefts_merge(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    wanted = write_adapter(base, tmp_path / "adapter", **settings)
    before = load_model(base, dtype=torch.float32).state_dict()
    got = load_model(tmp_path / "adapter", dtype=torch.float32).state_dict()
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-6)
    changed = {name for name in got if not torch.equal(got[name], before[name])}
    assert "language_model.model.layers.1.attention.wqkv.weight" in changed or "lora_alpha" in settings
    assert ("mlp1.1.weight" in changed) == ("mlp1" in settings.get("modules_to_save", ()))
    assert not any(name.startswith("vision_model") for name in changed - {n for n in changed if "norm" in n})


def test_merging_is_done_in_float32_whatever_the_format(base: Path, tmp_path: Path) -> None:
    wanted = write_adapter(base, tmp_path / "adapter")
    got = load_model(tmp_path / "adapter", dtype=torch.bfloat16).state_dict()
    name = "language_model.model.layers.0.feed_forward.w2.weight"
    torch.testing.assert_close(got[name], wanted[name].to(torch.bfloat16), rtol=0, atol=0.005)
    assert {tensor.dtype for tensor in got.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_model(tmp_path / "adapter").state_dict().values()} == {torch.bfloat16}


def test_an_adapter_of_a_wrapped_part_only_changes_that_part(adapter: Path, base: Path) -> None:
    trim(adapter, lambda tensors: [tensors.pop(name) for name in list(tensors) if not name.startswith(WO)])
    got, before = load_model(adapter).state_dict(), load_model(base).state_dict()
    changed = {name for name in got if not torch.equal(got[name], before[name])}
    assert changed == {WO.removeprefix("base_model.model.") + ".weight"}


def test_what_lies_beside_the_adapter_wins_over_the_base(adapter: Path, base: Path) -> None:
    assert load_config(adapter) == load_config(base)
    assert load_tokenizer(adapter, 403).size == load_tokenizer(base, 403).size
    values = json.loads((base / "config.json").read_text())
    values["livestar"]["threshold"] = 1.5
    (adapter / "config.json").write_text(json.dumps(values))
    assert load_config(adapter).watch["threshold"] == 1.5
    assert load_config(base).watch.get("threshold") is None
    load_model(adapter)


def test_an_adapter_may_lie_in_its_base(base: Path, adapter: Path) -> None:
    wanted = load_model(adapter).state_dict()
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        shutil.copy(adapter / name, base / name)
    for path in (".", "", None):
        edit(base, base_model_name_or_path=path)
        got = load_model(base).state_dict()
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_the_base_may_be_the_packaged_model(adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(adapter, base_model_name_or_path="livestar-mini")
    package = base.parent / "package"
    monkeypatch.setattr("livestar.model.mini.resources.files", lambda name: package)
    with pytest.raises(InvalidConfig, match="livestar-mini is not in this installation"):
        base_directory(adapter)
    shutil.copytree(base, package / "assets" / "livestar-mini")
    assert base_directory(adapter) == package / "assets" / "livestar-mini"
    load_model(adapter)


def edit(directory: Path, **changes: object) -> None:
    path = directory / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def trim(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / ADAPTER_WEIGHTS)
    change(tensors)
    save_file(tensors, directory / ADAPTER_WEIGHTS)


def refused(directory: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as of_headers:
        open_checkpoint(directory)
    with pytest.raises(InvalidCheckpoint) as of_loading:
        load_model(directory)
    assert str(of_headers.value) == str(of_loading.value)
    return str(of_headers.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA', which is not supported"),
        ("bias", "all", "bias is 'all'"),
        ("use_dora", True, "use_dora is True"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'"),
        ("rank_pattern", {"wo": 2}, "rank_pattern is {'wo': 2}"),
        ("alpha_pattern", {"wo": 2}, "alpha_pattern"),
        ("layer_replication", [[0, 1]], "layer_replication"),
        ("trainable_token_indices", [3], "trainable_token_indices"),
        ("r", 0, "r is 0; expected a whole number above 0"),
        ("r", 4.5, "r is 4.5; expected a whole number above 0"),
        ("r", None, "r is None"),
        ("lora_alpha", "big", "lora_alpha is 'big'; expected a number above 0"),
        ("lora_alpha", -1, "lora_alpha is -1"),
        ("r", 5, "has shape [4, 32]; the base and adapter_config.json ask for [5, 32]"),
        ("base_model_name_or_path", "../gone", "is not the directory of a model; write there where the base lies"),
        ("base_model_name_or_path", "some/hub-name", "base_model_name_or_path is 'some/hub-name'"),
        ("base_model_name_or_path", 3, "base_model_name_or_path is 3"),
    ],
)
def test_a_setting_that_is_not_merged_is_refused_and_named(adapter: Path, key: str, value: object, message: str) -> None:
    edit(adapter, **{key: value})
    told = refused(adapter)
    assert message in told
    assert ADAPTER_CONFIG in told


def test_an_adapter_of_an_adapter_is_refused(adapter: Path, base: Path) -> None:
    shutil.copy(adapter / ADAPTER_CONFIG, base / ADAPTER_CONFIG)
    assert "is an adapter itself" in refused(adapter)


def test_a_base_of_another_size_is_refused(adapter: Path, base: Path) -> None:
    trim(adapter, lambda tensors: tensors.update({f"{WO}.lora_B.weight": torch.zeros(16, 4)}))
    assert "lora_B.weight" in (told := refused(adapter))
    assert "has shape [16, 4]" in told
    assert "ask for [32, 4]" in told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base_model.model.language_model.model.layers.7.attention.wo.lora_A.weight", "but no"),
        ("base_model.model.language_model.extra.weight", "for which the base has no tensor"),
        (f"{WO}.lora_magnitude_vector", "for which the base has no tensor"),
        ("base_model.model.mlp1.1.bias", "mlp1.1.bias in"),
    ],
)
def test_a_tensor_that_does_not_belong_is_named(adapter: Path, name: str, message: str) -> None:
    trim(adapter, lambda tensors: tensors.update({name: torch.zeros(4, 4)}))
    told = refused(adapter)
    assert name in told
    assert message in told


def test_a_pair_for_a_layer_that_the_base_lacks_is_named(adapter: Path) -> None:
    pair = {f"base_model.model.language_model.model.layers.7.attention.wo.lora_{x}.weight": torch.zeros(4, 4) for x in "AB"}
    trim(adapter, lambda tensors: tensors.update(pair))
    assert "layers.7.attention.wo" in (told := refused(adapter))
    assert "the adapter is of another model" in told


def test_tensors_of_another_number_format_are_refused(adapter: Path) -> None:
    trim(adapter, lambda tensors: tensors.update({f"{WO}.lora_B.weight": torch.zeros(32, 4, dtype=torch.int8)}))
    assert "is I8; only BF16, F16, F32 can be loaded" in refused(adapter)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_garbled_config_is_named(adapter: Path, content: bytes) -> None:
    (adapter / ADAPTER_CONFIG).write_bytes(content)
    assert ADAPTER_CONFIG in refused(adapter)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: b"\xff" * len(data), None])
def test_damaged_and_missing_weights_are_named(adapter: Path, damage: Callable[[bytes], bytes] | None) -> None:
    path = adapter / ADAPTER_WEIGHTS
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert f"{ADAPTER_WEIGHTS}" in (told := refused(adapter))
    assert "copy it" in told


def test_a_config_beside_the_adapter_must_fit_the_base(adapter: Path, base: Path) -> None:
    values = json.loads((base / "config.json").read_text())
    values["llm_config"]["intermediate_size"] = 96
    (adapter / "config.json").write_text(json.dumps(values))
    assert "feed_forward" in refused(adapter)


def test_a_merged_adapter_is_a_model_like_any_other(adapter: Path) -> None:
    model = load_model(adapter, dtype=torch.float32)
    assert type(model) is LiveStarModel
    assert not any(parameter.requires_grad for parameter in model.parameters())
