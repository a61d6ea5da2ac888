"""Checkpoints made once per run and loaded in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from livestar.model.tokenizer import load_tokenizer
from livestar.model.weights import load_model
from tests.checkpoints import RECIPES, SYSTEM_MESSAGE, TASK, write_checkpoint
from tests.integration.engine.watching import Loaded

LoadRecipe = Callable[[str], Loaded]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LoadRecipe:
    """Loads the tiny checkpoint of a name in `tests.checkpoints.RECIPES`."""
    loaded: dict[str, Loaded] = {}

    def load(name: str) -> Loaded:
        if name not in loaded:
            directory = write_checkpoint(tmp_path_factory.mktemp("checkpoints") / name, RECIPES[name])
            model = load_model(directory, dtype=torch.float32)
            tokenizer = load_tokenizer(directory, model.config.language.vocab_size)
            loaded[name] = Loaded(model, tokenizer, SYSTEM_MESSAGE, TASK)
        return loaded[name]

    return load


@pytest.fixture
def small(checkpoint: LoadRecipe) -> Loaded:
    """The checkpoint that most tests are content with."""
    return checkpoint("small")
