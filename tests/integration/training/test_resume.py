"""A run that is killed and started again ends as if nothing had happened: the same weights, the same curve."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livestar.errors import InvalidConfig, LiveStarError
from tests.e2e.command import SCRIPT, environment
from tests.integration.training.rooms import assert_same, config_of, curve, to_toml, values, weights_in, write_room, write_tiny
from tests.integration.training.workers import StopBehind
from training.checkpoint import list_checkpoints, read_progress, step_of
from training.log import Silent, read_metrics
from training.loop import Trainer
from training.run import Stopped, train
from training.world import World

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TIMEOUT_S = 120.0
LONG = {"optim__epochs": 20, "run__evaluate_every": 30, "run__checkpoint_every": 7}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_room(tmp_path_factory.mktemp("room"))


class Said(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def kill_when(config: Path, is_time: Callable[[], bool]) -> int:
    """Starts `livestar train` and kills it as soon as `is_time`; returns its status."""
    process = subprocess.Popen([*SCRIPT, "train", config], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and not is_time():
        assert time.monotonic() < deadline, "the run came to nothing"
        time.sleep(0.001)
    process.kill()
    _, said = process.communicate()
    assert b"Traceback" not in said, said.decode()
    return process.returncode


def run_command(config: Path) -> str:
    done = subprocess.run([*SCRIPT, "train", config], env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


def num_steps(output: Path) -> int:
    return max((int(line["step"]) for line in read_metrics(output / "metrics.jsonl")), default=0)


def assert_whole(found: list[dict[str, float]]) -> None:
    """Every step once, in order."""
    steps = [line["step"] for line in found if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    measured = [line["step"] for line in found if "holdout_loss" in line]
    assert measured == sorted(set(measured))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({**LONG, "optim__accumulate": 2, "optim__epochs": 30, "data__max_first_frame": 90}, id="accumulate"),
        pytest.param({**LONG, "lora__rank": 4, "lora__dropout": 0.3, "lora__also_train": ["mlp1"]}, id="lora"),
    ],
)
def test_a_run_killed_at_any_step_ends_with_the_same_weights_and_curve(
    base: Path, room: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = train(config_of(base, room, tmp_path / "whole", **changes), World(), Silent())
    total = num_steps(tmp_path / "whole")
    assert total >= 60
    output = tmp_path / "killed"
    config = tmp_path / "killed.toml"
    config.write_text(to_toml(values(base, room, output, **changes)))
    draw = random.Random(os.urandom(8))
    for first, last in ((1, total // 3), (total // 3 + 8, 2 * total // 3)):
        step = draw.randrange(first, last)
        status = kill_when(config, lambda step=step: num_steps(output) >= step)  # type: ignore[misc]
        assert status == -signal.SIGKILL, f"it was to be killed at step {step} of {total}"
        assert not (output / "model").exists()
    assert "goes on behind step" in run_command(config)
    assert_same(weights_in(output / "model"), weights_in(whole))
    assert_whole(curve(output))
    assert curve(output) == curve(tmp_path / "whole")


def test_a_run_killed_while_a_checkpoint_is_written_goes_on_from_the_one_before(base: Path, room: Path, tmp_path: Path) -> None:
    changes = {"optim__epochs": 8, "run__checkpoint_every": 1, "run__evaluate_every": 0}
    whole = train(config_of(base, room, tmp_path / "whole", **changes), World(), Silent())
    output = tmp_path / "killed"
    config = tmp_path / "killed.toml"
    config.write_text(to_toml(values(base, room, output, **changes)))
    checkpoints = output / "checkpoints"
    assert kill_when(config, lambda: num_steps(output) >= 5 and any(checkpoints.glob("*.partial"))) == -signal.SIGKILL
    half = checkpoints / "step-00009999.partial"  # whatever the kill left, this one is half
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"\x10\x00")
    run_command(config)
    assert not list(checkpoints.glob("*.partial"))
    assert_same(weights_in(output / "model"), weights_in(whole))
    assert curve(output) == curve(tmp_path / "whole")


def test_a_finished_run_is_left_alone(base: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(base, room, tmp_path / "run")
    model = train(config, World(), Silent())
    before = {path: path.stat().st_mtime_ns for path in sorted(model.iterdir())}
    monkeypatch.setattr(Trainer, "run", None)  # no step, and nothing that leads to one
    monkeypatch.setattr("training.run.load_base", None)
    said = Said()
    assert train(config, World(), said) == model
    assert len(said.lines) == 1 and "is finished; start it anew with --restart" in said.lines[0]
    assert {path: path.stat().st_mtime_ns for path in sorted(model.iterdir())} == before


def test_a_run_that_lost_its_model_makes_it_again_from_its_checkpoints(base: Path, room: Path, tmp_path: Path) -> None:
    """As when it is killed between its last step and the model's name."""
    config = config_of(base, room, tmp_path / "run")
    model = train(config, World(), Silent())
    weights, metrics = weights_in(model), curve(tmp_path / "run")
    model.rename(tmp_path / "run" / "model.partial")
    assert train(config, World(), Silent()) == model
    assert_same(weights_in(model), weights)
    assert curve(tmp_path / "run") == metrics


def test_a_run_that_stopped_early_stays_stopped(base: Path, room: Path, tmp_path: Path) -> None:
    changes = {"optim__learning_rate": 0.05, "optim__epochs": 30, "run__patience": 2, "run__evaluate_every": 2}
    config = config_of(base, room, tmp_path / "run", **changes)
    said = Said()
    model = train(config, World(), said)
    newest = read_progress(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert newest.step < newest.num_steps and newest.num_worse == 2
    assert newest.step == newest.best_step + 4
    assert f"stopped early: the held-out loss was lowest at step {newest.best_step}" in said.lines
    assert {step_of(path) for path in list_checkpoints(tmp_path / "run" / "checkpoints")} >= {newest.step, newest.best_step}
    weights, metrics = weights_in(model), curve(tmp_path / "run")
    (model / "config.json").unlink()  # so that it is not yet finished
    train(config, World(), Silent())
    assert_same(weights_in(model), weights)
    assert curve(tmp_path / "run") == metrics


def test_the_best_checkpoint_becomes_the_model(base: Path, room: Path, tmp_path: Path) -> None:
    config = config_of(base, room, tmp_path / "run", optim__learning_rate=0.05, optim__epochs=30, run__evaluate_every=2)
    model = train(config, World(), Silent())
    losses = {line["holdout_loss"]: line["step"] for line in curve(tmp_path / "run") if "holdout_loss" in line}
    checkpoints = tmp_path / "run" / "checkpoints"
    assert losses[min(losses)] < max(losses.values())
    best = weights_in(checkpoints / f"step-{int(losses[min(losses)]):08d}")
    for name, tensor in weights_in(model).items():
        trained = best.get(f"model.model.{name}")
        assert (trained is None) == name.startswith("vision_model.")
        assert trained is None or (trained.to(tensor.dtype) == tensor).all()


@pytest.mark.parametrize("steps", [2, 5])
def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_first(base: Path, room: Path, tmp_path: Path, steps: int) -> None:
    config = config_of(base, room, tmp_path / "asked", run__checkpoint_every=100, run__evaluate_every=0)
    with pytest.raises(Stopped, match=rf"stopped behind step {steps}; give the same command again to go on"):
        train(config, World(), Silent(), stop=StopBehind(steps))
    assert [step_of(path) for path in list_checkpoints(tmp_path / "asked" / "checkpoints")] == [steps]
    train(config, World(), Silent())
    config = config_of(base, room, tmp_path / "whole", run__evaluate_every=0)
    assert_same(weights_in(train(config, World(), Silent())), weights_in(tmp_path / "asked" / "model"))


def test_the_number_of_steps_in_a_time_is_settled_once(base: Path, room: Path, tmp_path: Path) -> None:
    config = config_of(base, room, tmp_path / "run", optim__epochs=10_000, optim__max_minutes=0.03, run__evaluate_every=50)
    began = time.monotonic()
    with pytest.raises(Stopped):
        train(config, World(), Silent(), stop=StopBehind(8), started=began)
    settled = read_progress(list_checkpoints(tmp_path / "run" / "checkpoints")[-1]).num_steps
    assert 8 < settled < 10_000
    train(config, World(), Silent())
    assert read_progress(list_checkpoints(tmp_path / "run" / "checkpoints")[-1]).step == settled == num_steps(tmp_path / "run")


def test_the_number_of_steps_is_written_down_as_soon_as_it_is_settled(base: Path, room: Path, tmp_path: Path) -> None:
    often = {"run__checkpoint_every": 10**6, "run__keep_checkpoints": 9, "run__evaluate_every": 0}
    config = config_of(base, room, tmp_path / "run", optim__epochs=10_000, optim__max_minutes=0.05, **often)
    with pytest.raises(Stopped):
        train(config, World(), Silent(), stop=StopBehind(9), started=time.monotonic())
    settled, asked = [read_progress(path) for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert (settled.step, asked.step) == (6, 9)
    assert settled.num_steps == asked.num_steps > 9


def test_a_folder_with_a_run_of_other_settings_is_refused(base: Path, room: Path, tmp_path: Path) -> None:
    config = config_of(base, room, tmp_path / "run")
    with pytest.raises(Stopped):
        train(config, World(), Silent(), stop=StopBehind(2))
    other = config_of(base, room, tmp_path / "run", optim__learning_rate=1e-3, optim__seed=4)
    with pytest.raises(InvalidConfig, match=r"run holds a run with another optim\.learning_rate, optim\.seed; choose another"):
        train(other, World(), Silent())
    may_change = config_of(base, room, tmp_path / "run", run__checkpoint_every=50, data__cache=str(tmp_path / "other"))
    train(may_change, World(), Silent())


def test_a_run_that_never_came_to_a_checkpoint_may_be_given_other_settings(base: Path, room: Path, tmp_path: Path) -> None:
    with pytest.raises(LiveStarError):
        train(config_of(base, room.parent / "mistyped.jsonl", tmp_path / "run"), World(), Silent())
    train(config_of(base, room, tmp_path / "run", optim__max_steps=2), World(), Silent())


def test_paths_mean_the_same_from_any_folder(base: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(base, room, tmp_path / "run")
    with pytest.raises(Stopped):
        train(config, World(), Silent(), stop=StopBehind(2))
    monkeypatch.chdir(room.parent)
    shorter = config_of(base, Path(room.name), tmp_path / "run", data__cache="cache")
    train(shorter, World(), Silent())
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["files"] == [str(room)]


def test_sequences_of_a_pass_are_bounded_by_the_config(base: Path, room: Path, tmp_path: Path) -> None:
    steps = {}
    for most in (0, 1):
        config = config_of(base, room, tmp_path / str(most), optim__max_batch_sequences=most, optim__max_batch_tokens=4000)
        train(config, World(), Silent())
        steps[most] = num_steps(tmp_path / str(most))
    assert steps[1] >= 3 * steps[0]
