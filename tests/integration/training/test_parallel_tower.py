"""A vision tower that is trained: it sees pictures, has gradients, and is exported; two workers do what one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from livestar.errors import InvalidConfig
from livestar.model.weights import load_model
from tests.integration.training.rooms import RECIPE, config_of, curve, values, weights_in, write_room, write_tiny
from tests.integration.training.workers import run_workers, steps_of
from training.checkpoint import list_checkpoints
from training.log import Silent
from training.pictures import PictureCache, see
from training.prepare import load_base, read_footage
from training.run import train
from training.world import World

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOWER = {"model__train": ["vision_model", "mlp1", "language_model"], "optim__max_steps": 8, "run__dtype": "float32"}
TOLERANCE = 2e-6
WIDTH = RECIPE.vision[0]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_room(tmp_path_factory.mktemp("room"))


def test_pictures_are_kept_and_seen_as_features_are_computed(base: Path, room: Path, tmp_path: Path) -> None:
    model = load_model(base, dtype=torch.float32)
    [video] = read_footage(config_of(base, room, tmp_path / "run", data__holdout=0.0).data).train
    kept = PictureCache(tmp_path / "cache", model, fps=1.0).get(video)
    size = model.config.vision.image_size
    assert kept.features.dtype == torch.uint8 and tuple(kept.features.shape) == (40, size, size * 3)
    assert PictureCache(tmp_path / "cache", model, fps=1.0).find(video) is not None
    seen = see(model, kept.features)
    assert torch.equal(seen, model.features(kept.features.unflatten(2, (-1, 3))))


@pytest.mark.parametrize("more", [{}, {"model__gradient_checkpointing": True}, {"model__precision": "bfloat16"}])
def test_the_tower_is_trained_and_exported(base: Path, room: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    config = config_of(base, room, tmp_path / "run", **TOWER, **more)
    found = weights_in(train(config, World(), Silent()))
    before = load_model(base, dtype=torch.float32).state_dict()
    moved = {name for name in found if not torch.equal(found[name], before[name])}
    assert {name.split(".")[0] for name in moved} == {"vision_model", "mlp1", "language_model"}
    assert len([name for name in moved if name.startswith("vision_model.")]) > 20
    losses = [line["loss"] for line in curve(tmp_path / "run") if "loss" in line]
    assert losses[-1] < losses[0]


def test_a_part_of_the_tower_is_trained_and_the_rest_frozen(base: Path, room: Path, tmp_path: Path) -> None:
    part = "vision_model.encoder.layers.1.mlp"
    found = weights_in(train(config_of(base, room, tmp_path / "run", **{**TOWER, "model__train": [part]}), World(), Silent()))
    before = load_model(base, dtype=torch.float32).state_dict()
    assert {name for name in found if not torch.equal(found[name], before[name])} == {n for n in before if n.startswith(part)}


def test_the_first_step_is_that_of_a_frozen_tower(base: Path, room: Path, tmp_path: Path) -> None:
    """Tokens that are computed in the step give the loss of those that are kept, where they are kept in full."""
    full = tmp_path / "full"
    from livestar.model.weights import save_model

    save_model(load_model(base), full, dtype=torch.float32)
    (full / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    for name, changes in (("frozen", {**TOWER, "model__train": ["mlp1", "language_model"]}), ("trained", TOWER)):
        steps_of(config_of(full, room, tmp_path / name, **{**changes, "optim__max_steps": 1}), World())
    frozen, trained = (curve(tmp_path / name)[0]["loss"] for name in ("frozen", "trained"))
    assert trained == pytest.approx(frozen, rel=1e-6)


def test_two_workers_train_the_tower_as_one_does(base: Path, room: Path, tmp_path: Path) -> None:
    cases = [(name, {**TOWER, "run__sharding": name}) for name in ("none", "fsdp")]
    run_workers(tmp_path / "workers", [(name, values(base, room, tmp_path / name, **changes), 0) for name, changes in cases])
    steps_of(config_of(base, room, tmp_path / "one", **TOWER, optim__accumulate=2), World())
    one = weights_in(list_checkpoints(tmp_path / "one" / "checkpoints")[-1])
    for name, _ in cases:
        two = weights_in(list_checkpoints(tmp_path / name / "checkpoints")[-1])
        assert one.keys() == two.keys()
        far = {key for key in one if float((one[key] - two[key]).abs().max()) > TOLERANCE}
        # A key's bias changes no attention, so its gradient is rounding, which Adam blows up to whole steps.
        assert {key.rpartition("layers.")[2][2:] for key in far} <= {"attn.qkv.bias"}
        for key in far:
            difference = (one[key] - two[key]).abs()
            difference[WIDTH : 2 * WIDTH] = 0
            assert float(difference.max()) <= TOLERANCE


def test_adapters_beside_a_trained_tower_are_refused(base: Path, room: Path, tmp_path: Path) -> None:
    config = config_of(base, room, tmp_path / "run", lora__rank=2, lora__also_train=["vision_model.encoder"])
    with pytest.raises(InvalidConfig, match=r"lora\.also_train names vision_model, .*; leave it out, or set lora\.rank to 0"):
        load_base(config)
