"""Tiny checkpoints, made once per run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.checkpoints import RECIPES, write_checkpoint

settings.register_profile("shared-cores", deadline=None, derandomize=True)
settings.load_profile("shared-cores")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products lose by more threads, by a factor where other processes want the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def json_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer.json.  Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("json") / "tiny", RECIPES["small"])


@pytest.fixture(scope="session")
def sentencepiece_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer.model.  Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("sentencepiece") / "tiny", RECIPES["no-groups"])
