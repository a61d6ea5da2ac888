"""A run's folder is one training's at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from livestar.errors import InvalidConfig, LiveStarError
from training.config import parse_config
from training.lock import locked
from training.log import Silent
from training.run import CONFIG, MODEL, claim, restart, train
from training.world import World

pytestmark = pytest.mark.unit


def test_a_folder_is_held_until_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    refusal = f"another training is going on in {folder}; wait for its end or stop it, or choose another run.output"
    with locked(folder):
        with pytest.raises(InvalidConfig) as refused, locked(folder):
            pass
        assert str(refused.value) == refusal
        with locked(tmp_path / "other"):
            pass
    with pytest.raises(ZeroDivisionError), locked(folder):
        _ = 1 // 0
    with locked(folder):
        pass


def test_a_second_training_and_a_restart_leave_the_folder_as_it_is(tmp_path: Path) -> None:
    config = parse_config({"run": {"output": str(tmp_path)}})
    claim(tmp_path, config)
    (tmp_path / MODEL).mkdir()
    before = (tmp_path / CONFIG).read_bytes()
    other = parse_config({"run": {"output": str(tmp_path)}, "optim": {"seed": 3}})
    with locked(tmp_path):
        with pytest.raises(InvalidConfig, match="another training is going on"):
            train(other, World(), Silent())
        with pytest.raises(InvalidConfig, match="another training is going on"):
            restart(tmp_path)
    assert (tmp_path / CONFIG).read_bytes() == before and (tmp_path / MODEL).exists()
    restart(tmp_path)
    assert not (tmp_path / MODEL).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LiveStarError, match=r"file/run cannot be used for a run \(Not a directory\)"),
        locked(tmp_path / "file/run"),
    ):
        pass
