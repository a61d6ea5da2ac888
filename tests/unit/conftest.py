"""Tiny checkpoints, made once per run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.checkpoints import RECIPES, write_checkpoint

settings.register_profile("shared-cores", deadline=None, derandomize=True)
settings.load_profile("shared-cores")


@pytest.fixture(scope="session")
def json_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer.json.  Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("json") / "tiny", RECIPES["small"])


@pytest.fixture(scope="session")
def sentencepiece_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer.model.  Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("sentencepiece") / "tiny", RECIPES["no-groups"])
