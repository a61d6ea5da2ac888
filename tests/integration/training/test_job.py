"""`livestar train` on Ray: two workers on this machine, one of which dies; progress, errors, and being asked to stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.command import SCRIPT, environment
from tests.integration.training.ray_home import left_running, processes_of, ray_home
from tests.integration.training.rooms import config_of, curve, to_toml, values, weights_in, write_room, write_tiny
from training.checkpoint import list_checkpoints, read_progress
from training.log import Silent, read_metrics
from training.run import train
from training.world import World

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TIMEOUT_S = 240.0
WORKER = "ray::RayTrainWorker"
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def own() -> Iterator[dict[str, str]]:
    with ray_home() as own:
        yield own
        assert left_running(own) == []


def start(own: dict[str, str], config: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SCRIPT, "train", config, "--ray", "local", *more],
        env=environment(**own),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(output: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not any(line["step"] >= step for line in read_metrics(output / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def workers(own: dict[str, str]) -> list[psutil.Process]:
    found = [p for p in processes_of(Path(own["RAY_TMPDIR"]).parent) if p.cmdline()[:1] and WORKER in p.cmdline()[0]]
    assert len(found) == 2
    return found


def test_a_worker_that_dies_is_started_again_and_the_run_ends_with_the_same_weights(
    base: Path, tmp_path: Path, own: dict[str, str]
) -> None:
    room = write_room(tmp_path / "data", num_rooms=3)
    changes = {"optim__epochs": 25, "run__evaluate_every": 50, "run__checkpoint_every": 10}
    config = tmp_path / "two.toml"
    config.write_text(to_toml(values(base, room, tmp_path / "two", **changes, run__workers=2)))
    process = start(own, config)
    wait_for_step(tmp_path / "two", 30, process)
    workers(own)[-1].send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    assert re.search(r"goes on behind step \d+0\n", err)
    total = read_progress(list_checkpoints(tmp_path / "two" / "checkpoints")[-1]).step
    assert f"training: {total} of {total} loss" in err and "step 50: held-out loss" in err
    assert f"the model is in {tmp_path / 'two' / 'model'}; watch with it" in out
    assert not re.search(r"(?i)traceback|ray|warn", err), err
    assert not (Path(own["HOME"]) / ".ray" / "auth_token").exists()

    one = config_of(base, room, tmp_path / "one", **changes, optim__accumulate=2)
    train(one, World(), Silent())
    assert [line["step"] for line in curve(tmp_path / "two")] == [line["step"] for line in curve(tmp_path / "one")]
    expected, found = (weights_in(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("one", "two"))
    assert expected.keys() == found.keys()
    assert max(float((expected[name] - found[name]).abs().max()) for name in expected) <= TOLERANCE


def test_a_run_on_ray_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on(
    base: Path, tmp_path: Path, own: dict[str, str]
) -> None:
    room = write_room(tmp_path / "data")
    output = tmp_path / "two"
    config = tmp_path / "two.toml"
    config.write_text(
        to_toml(values(base, room, output, optim__epochs=500, run__workers=2, run__checkpoint_every=10**6, run__evaluate_every=0))
    )
    process = start(own, config)
    wait_for_step(output, 5, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, err
    assert "give the same command again to go on" in err.splitlines()[-1]
    [stopped] = list_checkpoints(output / "checkpoints")
    assert read_progress(stopped).step >= 5


def test_what_is_wrong_is_one_line_before_and_behind_the_start_of_the_workers(
    base: Path, tmp_path: Path, own: dict[str, str]
) -> None:
    room = write_room(tmp_path / "data")
    config = tmp_path / "two.toml"
    config.write_text(to_toml(values(base, room, tmp_path / "two")))
    process = start(own, config, "--set", f"run.workers={(os.cpu_count() or 1) + 1}")
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"error: run\.workers is \d+, but the Ray cluster has \d+ CPUs; lower run\.workers\n", err)

    process = start(own, config, "--set", "run.workers=2", "--set", "optim.learning_rate=1e30", "--restart")
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, err
    assert re.fullmatch(
        r"error: the run failed on its workers: step \d+ has gradients that are no numbers; lower optim\.learning_rate, .*",
        err.splitlines()[-1],
    )
    assert "Traceback" not in err


def test_no_cluster_is_told_in_one_line(base: Path, tmp_path: Path) -> None:
    room = write_room(tmp_path / "data")
    config = tmp_path / "two.toml"
    config.write_text(to_toml(values(base, room, tmp_path / "two")))
    with ray_home() as own:
        done = subprocess.run(
            [*SCRIPT, "train", config, "--ray", "auto"], env=environment(**own), capture_output=True, text=True, timeout=TIMEOUT_S
        )
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: no Ray cluster can be used at 'auto' \(.*\); give --ray local, or .*\n", done.stderr), (
        done.stderr
    )
