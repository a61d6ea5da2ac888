"""`livestar train` as a job of a Ray cluster that asks for a token."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import SCRIPT, environment, livestar
from tests.integration.training.ray_home import ray_home
from tests.integration.training.rooms import to_toml, values, write_room, write_tiny

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RAY = str(Path(sys.executable).parent / "ray")
TIMEOUT_S = 200.0


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def cluster() -> Iterator[tuple[dict[str, str], str]]:
    """A cluster of its own: its environment, and where it takes jobs."""
    port = free_port()
    with ray_home(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0") as own:
        command = [RAY, "start", "--head", "--num-cpus=2", "--port=0", f"--dashboard-port={port}", "--include-dashboard=true"]
        subprocess.run(command, env=environment(**own), check=True, capture_output=True, timeout=TIMEOUT_S)
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + TIMEOUT_S
        while not answers(address, own["RAY_AUTH_TOKEN"]):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield own, address


def answers(address: str, token: str) -> bool:
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_a_config_is_trained_as_a_job_of_a_cluster(cluster: tuple[dict[str, str], str], tmp_path: Path) -> None:
    own, address = cluster
    base, room = write_tiny(tmp_path / "tiny"), write_room(tmp_path / "data")
    config = tmp_path / "two.toml"
    config.write_text(to_toml(values(base, room, tmp_path / "two", run__workers=2)))
    submit = [RAY, "job", "submit", "--address", address, "--", *SCRIPT, "train", str(config), "--ray", "auto"]
    done = subprocess.run(submit, env=environment(**own), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert f"the model is in {tmp_path / 'two' / 'model'}" in done.stdout
    assert "is the finished model" in done.stdout
    assert livestar("model-info", tmp_path / "two" / "model").status == 0
