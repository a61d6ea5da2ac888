"""Two workers, replicated or sharded, do what one worker does; real processes that talk by gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from livestar.model.weights import load_model
from tests.integration.training.rooms import config_of, curve, values, weights_in, write_room, write_tiny
from tests.integration.training.workers import run_workers, steps_of
from training.checkpoint import list_checkpoints, read_progress
from training.config import TrainConfig, parse_config
from training.dataset import StreamDataset
from training.feed import Feed
from training.log import Silent
from training.loop import Trainer
from training.optim import make_optimizer
from training.parallel import distribute
from training.prepare import load_base, make_feed, prompt_of, read_footage
from training.step import SequenceModel
from training.world import World

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOLERANCE = 2e-6
"""Largest difference of a weight behind all steps, in which weights move by up to 2e-2; sums of floats come in another order."""
NUM_STEPS = 12
COMMON = {"optim__max_steps": NUM_STEPS, "run__evaluate_every": 4}
SHARDED = {"run__sharding": "fsdp"}
CASES: dict[str, dict[str, Any]] = {
    "replicated": {},
    "sharded": SHARDED,
    "accumulate": {"optim__accumulate": 2, "scam__weigh_clips": False},
    "sharded-lora": {**SHARDED, "lora__rank": 4, "lora__also_train": ["mlp1"], "lora__dropout": 0.0},
    "sharded-checkpointed": {**SHARDED, "model__gradient_checkpointing": True},
    "sharded-half": {**SHARDED, "model__precision": "bfloat16"},
}
"""Settings of two workers; one worker accumulates twice as many batches."""
HANDED_ON = {"to-one": SHARDED, "to-two": SHARDED, "lora-to-one": CASES["sharded-lora"]}
"""Runs of which the first half is done by as many workers, and the second by others."""


class Place:
    """Where a module's runs are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = write_tiny(folder / "tiny")
        self.room = write_room(folder / "data", num_rooms=3)

    def values(self, name: str, settings: dict[str, Any], num_workers: int) -> dict[str, dict[str, Any]]:
        accumulate = settings.get("optim__accumulate", 1) * 2 // num_workers
        changes = {**COMMON, **settings, "optim__accumulate": accumulate}
        return values(self.base, self.room, self.folder / name, **changes)

    def one(self, name: str, settings: dict[str, Any], stop_behind: int = 0) -> None:
        steps_of(self.config(name, settings), World(), stop_behind)

    def config(self, name: str, settings: dict[str, Any], num_workers: int = 1) -> TrainConfig:
        return parse_config(self.values(name, settings, num_workers))

    def newest(self, name: str) -> dict[str, torch.Tensor]:
        path = list_checkpoints(self.folder / name / "checkpoints")[-1]
        assert read_progress(path).step == NUM_STEPS
        return weights_in(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """All runs of two workers, done one after the other in the same two processes."""
    place = Place(tmp_path_factory.mktemp("parallel"))
    two = [(name, place.values(f"two-{name}", settings, 2), 0) for name, settings in CASES.items()]
    two += [(name, place.values(name, HANDED_ON[name], 2), 5) for name in ("to-one", "lora-to-one")]
    place.one("to-two", HANDED_ON["to-two"], stop_behind=5)
    two += [("to-two", place.values("to-two", HANDED_ON["to-two"], 2), 0)]
    run_workers(place.folder / "workers", two)
    return place


def assert_near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    far = {name: float((one[name] - other[name]).abs().max()) for name in one}
    assert {name: distance for name, distance in far.items() if not distance <= TOLERANCE} == {}


@pytest.mark.parametrize("name", CASES)
def test_two_workers_end_with_the_weights_of_one_with_twice_the_batches(place: Place, name: str) -> None:
    place.one(f"one-{name}", CASES[name])
    one, two = place.newest(f"one-{name}"), place.newest(f"two-{name}")
    assert_near(one, two)
    untrained = load_model(place.base, dtype=torch.float32).state_dict()
    moved = [(one[f"model.model.{key}"] - tensor).abs().max() for key, tensor in untrained.items() if f"model.model.{key}" in one]
    assert "lora" in name or max(moved) > 1000 * TOLERANCE
    single, double = curve(place.folder / f"one-{name}"), curve(place.folder / f"two-{name}")
    assert [line["step"] for line in single] == [line["step"] for line in double]
    for a, b in zip(single, double, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", HANDED_ON)
def test_a_run_goes_on_with_another_number_of_workers(place: Place, name: str) -> None:
    if name.endswith("to-one"):
        place.one(name, HANDED_ON[name])
    place.one(f"alone-{name}", HANDED_ON[name])
    assert_near(place.newest(f"alone-{name}"), place.newest(name))


def feed_of(place: Place, world: World, config: TrainConfig) -> Feed:
    model, tokenizer, _ = load_base(config)
    footage = read_footage(config.data)
    return make_feed(config, model, prompt_of(model, tokenizer), footage, world, Silent(), dtype=torch.float32)


def test_workers_share_the_very_batches_that_one_worker_takes_and_nobody_counts_twice(place: Place) -> None:
    config = place.config("feed", {})
    alone = feed_of(place, World(), config)
    dataset = alone.train
    assert isinstance(dataset, StreamDataset)
    for size, accumulate in [(2, 1), (2, 2), (3, 1), (3, 2)]:
        workers = [Feed(**{**fields(alone), "world": World(rank=rank, size=size)}) for rank in range(size)]
        assert {worker.steps_per_epoch(accumulate) for worker in workers} == {alone.steps_per_epoch(accumulate * size)}
        epoch = batch = 0
        while epoch < 2:
            expected, place_behind = alone.next_step(epoch, batch, accumulate * size)
            found = [worker.next_step(epoch, batch, accumulate) for worker in workers]
            assert {behind for _, behind in found} == {place_behind}
            assert len({len(batches) for batches, _ in found}) == 1
            dealt = [batches[turn] for turn in range(len(found[0][0])) for batches, _ in found]
            assert [b.ids.tolist() for b in dealt if b.weights.any()] == [b.ids.tolist() for b in expected]
            assert all(not b.weights.any() for b in dealt[len(expected) :])
            epoch, batch = place_behind
        held = [list(worker.holdout_batches()) for worker in workers]
        whole = sum(float(b.weights.sum()) for b in alone.holdout_batches())
        assert sum(float(b.weights.sum()) for batches in held for b in batches) == pytest.approx(whole)
        assert len({len(batches) for batches in held}) == 1
    assert any(len(dataset.batches(epoch)) % 2 for epoch in range(2)), "no epoch came out uneven"


def fields(feed: Feed) -> dict[str, Any]:
    return {name: getattr(feed, name) for name in feed.__dataclass_fields__}


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradient_checkpointing_gives_the_same_gradients(place: Place, dropout: float) -> None:
    gradients = []
    for is_on in (False, True):
        settings = {"model__gradient_checkpointing": is_on, "lora__rank": 4, "lora__dropout": dropout}
        config = place.config("gradients", settings)
        model, _, _ = load_base(config)
        feed = feed_of(place, World(), config)
        sequences = SequenceModel(model)
        kept = {name for name, parameter in sequences.named_parameters() if parameter.requires_grad}
        trainer = Trainer(
            config=config,
            world=World(),
            model=distribute(sequences, config, World()),
            feed=feed,
            folder=place.folder / "unused",
            reporter=Silent(),
        )
        batches, _ = feed.next_step(0, 0, 2)
        optimizer = make_optimizer(trainer.model, config.optim)
        optimizer.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]  # the step's gradients stay
        trainer._step(batches, 1.0, optimizer, 0)
        gradients.append({name: p.grad.clone() for name, p in sequences.named_parameters() if p.grad is not None})
        assert gradients[-1].keys() == kept
    assert [name for name in gradients[0] if not torch.equal(gradients[0][name], gradients[1][name])] == []
    assert any(gradient.any() for gradient in gradients[0].values())


def test_bfloat16_is_computed_in_and_not_stored(place: Place) -> None:
    place.one("one-half", {"model__precision": "bfloat16"})
    place.one("one-full", {})
    half, full = place.newest("one-half"), place.newest("one-full")
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}
    losses = [[line["loss"] for line in curve(place.folder / name) if "loss" in line] for name in ("one-half", "one-full")]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)
    assert half.keys() == full.keys()


def test_the_frozen_tower_does_not_travel(place: Place) -> None:
    config = config_of(place.base, place.room, place.folder / "tower")
    model, _, _ = load_base(config)
    sequences = SequenceModel(model)
    distribute(sequences, config, World())
    assert not any("vision_model" in name for name, _ in sequences.named_parameters())
