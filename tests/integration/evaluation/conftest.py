"""A demo checkpoint, the shipped film and an annotation of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import livestar
from livestar.annotations.types import AnnotatedVideo
from livestar.evaluation.similarity import SentenceModel
from livestar.model.demo import write_demo_checkpoint
from livestar.session import Checkpoint, load_checkpoint
from tests.unit.evaluation.making import event

FILM = Path(livestar.__file__).parent / "assets" / "french_gp_1906.ogv"
EVENTS = (event(0, 4, "A car is prepared."), event(4, 9, "A car passes the crowd."), event(9, 14, "Another car comes."))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights; not to be written to."""
    directory = tmp_path_factory.mktemp("models") / "demo"
    write_demo_checkpoint(directory)
    return directory


@pytest.fixture(scope="session")
def checkpoint(demo: Path) -> Checkpoint:
    """Not to be changed."""
    return load_checkpoint(demo, dtype="float32", device="cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The command would share out the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sentences() -> SentenceModel:
    return SentenceModel()


@pytest.fixture
def film() -> AnnotatedVideo:
    """The shipped film, 19.2 s, the events of its first 14 s annotated."""
    return AnnotatedVideo(source=str(FILM), events=EVENTS)


@pytest.fixture
def pictures(tmp_path: Path) -> AnnotatedVideo:
    """Four pictures per second for 3 s: 1 s dark, then noise."""
    folder = tmp_path / "room"
    folder.mkdir()
    noise = np.random.default_rng(7)
    for number in range(12):
        image = np.zeros((48, 64, 3), np.uint8) if number < 4 else noise.integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    return AnnotatedVideo(source=str(folder), events=(event(0, 1, "It is dark."), event(1, 3, "Noise.")), fps=4.0)


@pytest.fixture
def annotation(tmp_path: Path) -> Path:
    """An annotation file of the film."""
    events = [{"begin": e.begin_s, "end": e.end_s, "caption": e.caption} for e in EVENTS]
    file = tmp_path / "film.events.jsonl"
    file.write_text(json.dumps({"video": str(FILM), "events": events}) + "\n")
    return file
