"""How much memory loading takes, measured in a fresh process on a checkpoint big enough to tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import Recipe, write_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
PROBE = """
import json, sys, threading, time
import psutil, torch
from livestar.model.weights import load_model

torch.set_num_threads(1)
own = psutil.Process()
def private():
    info = own.memory_full_info()
    return info.uss
dtype = getattr(torch, sys.argv[3]) if sys.argv[3] != "stored" else None
load_model(sys.argv[1], dtype=dtype)  # what loading imports and allocates whatever the size
before, peak, done = private(), 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, private())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
model = load_model(sys.argv[2], dtype=dtype)
done.set()
watcher.join()
weights = sum(p.nbytes for p in model.parameters())
print(json.dumps({"grown": max(peak, private()) - before, "weights": weights}))
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(seed=9, language=(1024, 3072, 16, 4, 8), vision=(16, 32, 2, 2), num_shards=6)
    return write_checkpoint(tmp_path_factory.mktemp("memory") / "big", recipe)


@pytest.mark.parametrize("dtype", ["stored", "float32", "float16"])
def test_loading_holds_no_more_than_the_model_and_one_shard(big: Path, tmp_path: Path, dtype: str) -> None:
    tiny = write_checkpoint(tmp_path, Recipe())
    run = subprocess.run([sys.executable, "-c", PROBE, tiny, big, dtype], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout)
    shard = max(path.stat().st_size for path in big.glob("*.safetensors"))
    assert measured["weights"] > 150e6
    assert measured["grown"] < measured["weights"] + shard + 20e6
