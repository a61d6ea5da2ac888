"""A tiny checkpoint, loaded once per module, and pictures to watch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livestar.session import Checkpoint, load_checkpoint
from tests.checkpoints import RECIPES, write_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", RECIPES["deep"])


@pytest.fixture(scope="session")
def checkpoint(tiny: Path) -> Checkpoint:
    """Not to be changed."""
    return load_checkpoint(tiny, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise, eight pictures."""
    folder = tmp_path_factory.mktemp("sources") / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(7)
    for number in range(8):
        Image.fromarray(noise.integers(0, 256, (56, 56, 3), np.uint8)).save(folder / f"{number}.png")
    return folder
