"""What a run leaves is what it trained: the engine says the same with it as with the model in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from livestar.config import GateConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.errors import InvalidConfig
from livestar.model.config import load_config
from livestar.model.livestar import LiveStarModel
from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from livestar.session import load_checkpoint as load_model_directory
from tests.checkpoints import SYSTEM_MESSAGE, TASK
from tests.fakes.pictures import video
from tests.integration.engine.watching import Loaded, assert_same, numbers, watch_alone
from tests.integration.training.rooms import config_of, weights_in, write_room, write_tiny
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.export import export, stored_dtype
from training.log import Silent
from training.prepare import load_base
from training.run import best_checkpoint, train
from training.step import SequenceModel
from training.world import World

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LORA = {"lora__rank": 4, "lora__also_train": ["mlp1"], "lora__dropout": 0.1, "optim__learning_rate": 1e-2}
WATCH = {"system_message": SYSTEM_MESSAGE, "task": TASK, "threshold": 1.2, "note": "random weights", "max_new_tokens": 9}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny", watch=tuple(WATCH.items()))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_room(tmp_path_factory.mktemp("room"))


def in_memory(config: TrainConfig) -> LiveStarModel:
    """The trained model as the run had it, adapters beside their layers."""
    model, _, _ = load_base(config)
    load_checkpoint(best_checkpoint(Path(config.run.output) / "checkpoints"), SequenceModel(model), None)
    return model.eval().requires_grad_(False)


def watched(model: LiveStarModel, directory: Path, stream: StreamConfig) -> list[Any]:
    loaded = Loaded(model, load_tokenizer(directory, model.config.language.vocab_size), SYSTEM_MESSAGE, TASK)
    return watch_alone(loaded, video(40, 12, loaded.image_size, scene_frames=3), stream)


def stream(**gate: Any) -> StreamConfig:
    """What `livestar watch` asks for without options, but short captions and the first gate named."""
    return StreamConfig(
        gate=GateConfig(**gate),
        retention=RetentionConfig(name="none", kv_tokens=3000),
        sampling=SamplingConfig(max_new_tokens=12),
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="full"),
        pytest.param(LORA, id="merged"),
        pytest.param({**LORA, "lora__merge": False}, id="adapter"),
        pytest.param({"scam__layout": "training", "scam__visibility": "terminal", "data__fps": 0.5}, id="other gate"),
    ],
)
def test_the_engine_says_the_same_with_the_model_as_with_what_was_trained(
    base: Path, room: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = config_of(base, room, tmp_path / "run", **changes, run__dtype="float32")
    directory = train(config, World(), Silent())
    gate = "leaf" if "scam__layout" in changes else "scam"
    explicit = stream(name=gate, threshold=1.01, keep_captions="scam__visibility" in changes)
    expected = watched(in_memory(config), base, explicit)
    found = watched(load_model(directory, dtype=torch.float32), directory, stream(threshold=1.01))  # the rest is the model's own
    assert_same(found, expected)
    untrained = watched(load_model(base, dtype=torch.float32), base, explicit)
    assert numbers(untrained) != pytest.approx(numbers(expected), rel=0.01, nan_ok=True)

    own = load_config(directory)
    assert "threshold" not in own.watch and "note" not in own.watch
    assert own.watch["max_new_tokens"] == 9 and own.watch["task"] == TASK
    assert own.fps == changes.get("data__fps")
    assert (directory / "adapter_config.json").exists() == (changes.get("lora__merge") is False)
    assert (directory / "model.safetensors.index.json").exists() == (changes.get("lora__merge", True))
    if "lora__rank" in changes and changes.get("lora__merge", True):
        beside = watched(load_model(tmp_path / "run" / "adapter", dtype=torch.float32), base, explicit)
        assert_same(beside, expected)


@pytest.mark.parametrize("merge", [True, False])
def test_the_threshold_is_set_for_what_was_trained(base: Path, room: Path, tmp_path: Path, merge: bool) -> None:
    before = (base / "config.json").read_bytes()
    config = config_of(base, room, tmp_path / "run", **LORA, lora__merge=merge, run__calibrate="truth", data__holdout=0.4)
    directory = train(config, World(), Silent())
    own = load_config(directory).watch
    assert isinstance(own["threshold"], float) and own["threshold"] != WATCH["threshold"]
    assert (base / "config.json").read_bytes() == before
    steps = watched(load_model_directory(directory).model, directory, stream())
    silent = [step.perplexity / step.reference for step in steps if step.decision.name == "SILENT"]
    assert silent and all(ratio <= own["threshold"] for ratio in silent)


@pytest.mark.parametrize(("stored", "name"), [(torch.float16, "auto"), (torch.bfloat16, "auto"), (torch.float16, "float32")])
def test_the_number_format_of_the_base_is_kept_unless_another_is_named(
    base: Path, room: Path, tmp_path: Path, stored: torch.dtype, name: str
) -> None:
    from livestar.model.weights import save_model

    own = tmp_path / "own"
    save_model(load_model(base), own, dtype=stored)
    shutil.copy(base / "tokenizer.json", own)
    assert stored_dtype(own) == stored
    directory = train(config_of(own, room, tmp_path / "run", run__dtype=name, optim__max_steps=2), World(), Silent())
    expected = stored if name == "auto" else getattr(torch, name)
    assert {tensor.dtype for tensor in weights_in(directory).values()} == {expected}


def test_weights_beyond_the_number_format_are_refused_and_can_be_stored_in_another(
    base: Path, room: Path, tmp_path: Path
) -> None:
    config = config_of(base, room, tmp_path / "run", run__dtype="float16", optim__max_steps=2)
    model, _, directory = load_base(config)
    weight = model.get_parameter("mlp1.1.weight")
    with torch.no_grad():
        weight[0, 0] = 70000.0
    with pytest.raises(InvalidConfig, match=r"whose range mlp1\.1\.weight exceeds.*--set run\.dtype=bfloat16: the checkpoints"):
        export(model, config, directory, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    export(model, config_of(base, room, tmp_path / "run", run__dtype="bfloat16"), directory, tmp_path / "model")
    assert float(weights_in(tmp_path / "model")["mlp1.1.weight"][0, 0]) == pytest.approx(70000, rel=0.01)


def test_an_adapter_is_fine_tuned_further_in_full_and_not_by_another_adapter(base: Path, room: Path, tmp_path: Path) -> None:
    first = train(config_of(base, room, tmp_path / "first", **LORA, lora__merge=False, optim__max_steps=3), World(), Silent())
    with pytest.raises(InvalidConfig, match=r"model\.base '.*' is an adapter itself; train it in full"):
        train(config_of(first, room, tmp_path / "refused", lora__rank=2), World(), Silent())
    second = train(config_of(first, room, tmp_path / "second", optim__max_steps=3, run__dtype="float32"), World(), Silent())
    assert not (second / "adapter_config.json").exists()
    merged = load_model(first, dtype=torch.float32).state_dict()
    trained = weights_in(second)
    assert merged.keys() == trained.keys()
    assert max(float((merged[name] - trained[name]).abs().max()) for name in merged) < 0.05


def test_an_adapter_of_the_packaged_model_names_it(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.export.mini_directory", lambda: base)
    config = config_of(base, tmp_path / "unused", tmp_path / "run", lora__rank=2, lora__merge=False)
    model, _, directory = load_base(config)
    export(model, config, directory, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == "livestar-mini"
    monkeypatch.undo()
    export(model, config, directory, tmp_path / "model")
    named = json.loads((tmp_path / "model" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(named) == base.resolve()
