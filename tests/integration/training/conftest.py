"""A tiny real model and short real videos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from PIL import Image

from livestar.model.demo import write_demo_checkpoint
from livestar.model.livestar import LiveStarModel
from livestar.model.weights import load_model
from tests.fakes.pictures import picture
from tests.integration.media.clips import make_clip

settings.register_profile("shared-cores", deadline=None, derandomize=True)
settings.load_profile("shared-cores")


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights.  Not to be written to."""
    directory = tmp_path_factory.mktemp("checkpoint") / "demo"
    write_demo_checkpoint(directory)
    return directory


@pytest.fixture
def model(demo_dir: Path) -> LiveStarModel:
    """The model of that checkpoint, in float32."""
    return load_model(demo_dir, dtype=torch.float32)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of video.  Not to be written to."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, 1.png to 12.png.  Not to be written to."""
    directory = tmp_path_factory.mktemp("pictures")
    for number in range(1, 13):
        Image.fromarray(picture(1, number, 64)).save(directory / f"{number}.png")
    return directory
