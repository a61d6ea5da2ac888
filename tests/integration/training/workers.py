"""Runs in two processes that talk by gloo, as Ray Train has them, without Ray.

    python -m tests.integration.training.workers RANK SIZE FOLDER

`FOLDER/cases.json` lists what to run: a name, a config, and the step behind which to stop.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.e2e.command import environment
from training.config import TrainConfig, parse_config
from training.log import Silent
from training.prepare import read_footage
from training.run import run_steps
from training.stop import StopRequest
from training.world import World

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 200


class StopBehind(StopRequest):
    """Asks to stop once so many steps of this process are done; 0 never does."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self._left = num_steps + 1 if num_steps else -1

    def __call__(self) -> bool:
        self._left -= 1
        return self._left == 0


def steps_of(config: TrainConfig, world: World, stop_behind: int = 0) -> None:
    """All steps of a run, without what comes before and after."""
    run_steps(config, read_footage(config.data), world, Silent(), time.monotonic(), StopBehind(stop_behind))


def run_workers(folder: Path, cases: list[tuple[str, dict[str, Any], int]], size: int = 2) -> None:
    """Runs the cases one after the other in `size` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", "tests.integration.training.workers"]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(size), str(folder)],
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [worker.communicate(timeout=TIMEOUT_S)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * size, "\n".join(said)


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=size)
    for _, sections, stop_behind in json.loads((folder / "cases.json").read_text()):
        steps_of(parse_config(sections), World(rank=rank, size=size), stop_behind)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
