"""`livestar train` from outside: settings, refusals, what it says, being stopped, and the model that comes of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.command import SCRIPT, environment, livestar, watch_records
from tests.integration.training.rooms import to_toml, values, write_room, write_tiny
from training.checkpoint import list_checkpoints, read_progress
from training.log import read_metrics

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_room(tmp_path_factory.mktemp("room"))


def test_the_configs_that_come_with_it_are_listed_and_shown() -> None:
    listed = livestar("train", "--list")
    assert listed.status == 0
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert {"finetune", "paper", "released-checkpoint", "released-full", "released-lora"} <= set(names)
    shown = livestar("train", "released-lora", "--show", "--set", "optim.learning_rate=1e-4", "--set", "data.files=a.jsonl")
    settings = json.loads(shown.out)
    assert (settings["lora"]["rank"], settings["optim"]["learning_rate"], settings["data"]["files"]) == (16, 1e-4, ["a.jsonl"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "--set", "optim.learning_rat=1"], "there is no key optim.learning_rat; did you mean optim.learning_rate?"),
        (["finetune", "--set", "optim.epochs=-1"], "optim.epochs is -1.0; give a number above 0"),
        (["finetune"], "data.files names no annotations; give some, such as --set data.files=room.events.jsonl"),
        (["no-such-config"], "config 'no-such-config' is neither a file nor one of "),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str, tmp_path: Path, base: Path) -> None:
    more = ["--set", f"run.output={tmp_path / 'run'}", "--set", f"model.base={base}"]
    finished = livestar("train", *arguments, *more)
    assert (finished.status, finished.out) == (2, "")
    assert finished.err.startswith("error: ") and message in finished.err and len(finished.err.splitlines()) == 1


def test_a_room_is_learnt_and_watched_with(base: Path, room: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = tmp_path / "room.toml"
    config.write_text(to_toml(values(base, room, output, optim__epochs=30, run__calibrate="truth")))
    finished = livestar("train", config)
    assert finished.status == 0, finished.err
    said = finished.err.splitlines()
    total = read_progress(list_checkpoints(output / "checkpoints")[-1]).step
    assert said[0] == "looking at the training footage: 1 of 1"
    assert re.fullmatch(rf"training: {total} of {total} loss \d\.\d+", next(line for line in said if line.startswith("training")))
    assert re.search(r"step 4: held-out loss \d+\.\d{4}", finished.err)
    assert re.search(r"threshold \d+\.\d+ is set on held-out footage: it responds to \d+\.\d% of frames", said[-1])
    assert f"the model is in {output / 'model'}; watch with it: livestar watch SOURCE --model {output / 'model'}" in finished.out

    own = json.loads((output / "model" / "config.json").read_text())["livestar"]
    assert own["gate"] == "scam" and own["keep_captions"] is False
    assert f"threshold {own['threshold']:.4f} is set" in said[-1]
    records = watch_records(output / "model", room.parent / "room-0")
    assert {record["threshold"] for record in records if record["type"] == "verdict"} == {own["threshold"]}
    losses = [line["loss"] for line in read_metrics(output / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] / 2

    again = livestar("train", config)
    assert (again.status, len(again.err.splitlines())) == (0, 1)
    assert "is finished; start it anew with --restart" in again.err
    assert again.out == finished.out
    anew = livestar("train", config, "--restart", "--set", "optim.max_steps=2", "--set", "run.calibrate=none")
    assert anew.status == 0 and "training: 2 of 2" in anew.err
    assert {int(line["step"]) for line in read_metrics(output / "metrics.jsonl")} == {1, 2}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_writes_a_checkpoint_and_says_how_to_go_on(
    base: Path, room: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "run"
    config = tmp_path / "room.toml"
    sections = values(base, room, output, optim__epochs=10**5, run__checkpoint_every=10**6, run__evaluate_every=0)
    config.write_text(to_toml(sections))
    process = subprocess.Popen([*SCRIPT, "train", config], env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not read_metrics(output / "metrics.jsonl"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    [newest] = list_checkpoints(output / "checkpoints")
    step = read_progress(newest).step
    assert said.splitlines()[-1] == f"stopped behind step {step}; give the same command again to go on"
    assert max(line["step"] for line in read_metrics(output / "metrics.jsonl")) == step
    assert "Traceback" not in said and not (output / "model").exists()


def test_the_curves_can_be_read_by_tensorboard(base: Path, room: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    output = tmp_path / "run"
    config = tmp_path / "room.toml"
    config.write_text(to_toml(values(base, room, output, run__calibrate="none")))
    assert livestar("train", config, "--set", "optim.max_steps=6").status == 0
    curves = EventAccumulator(str(output / "tensorboard")).Reload()
    for name in ("loss", "learning_rate", "holdout_loss"):
        expected = [(line["step"], line[name]) for line in read_metrics(output / "metrics.jsonl") if name in line]
        assert [(point.step, point.value) for point in curves.Scalars(name)] == [(s, pytest.approx(v)) for s, v in expected]


def test_a_run_is_not_forgotten_for_one_that_cannot_be(base: Path, room: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = tmp_path / "room.toml"
    config.write_text(to_toml(values(base, room, output, optim__max_steps=2)))
    assert livestar("train", config).status == 0
    refused = livestar("train", config, "--restart", "--set", "data.files=mistyped.jsonl")
    assert refused.status == 2 and "mistyped.jsonl" in refused.err
    assert livestar("model-info", output / "model").status == 0
