"""Checkpoints and sources, made once per run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.checkpoints import RECIPES, write_checkpoint
from tests.integration.media.clips import make_clip, picture

NUM_PICTURES = 8


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that says something new now and then.  Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", RECIPES["deep"])


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `livestar demo-checkpoint` writes."""
    from tests.e2e.command import livestar

    directory = tmp_path_factory.mktemp("checkpoint") / "demo"
    assert livestar("demo-checkpoint", directory).status == 0
    return directory


@pytest.fixture(scope="session")
def golden_checkpoint(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the golden traces were written with."""
    directory = tmp_path_factory.mktemp("golden") / "checkpoint"
    subprocess.run([sys.executable, golden_dir / "make_checkpoint.py", directory], check=True, timeout=120, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures that differ."""
    folder = tmp_path_factory.mktemp("sources") / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(5)
    for number in range(NUM_PICTURES):
        image = picture(number * 7, 128, 96)
        if number % 3 == 2:
            image = noise.integers(0, 256, image.shape, np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of video."""
    return make_clip(tmp_path_factory.mktemp("sources") / "clip.mp4", num_frames=60, rate=10, gop=10)
