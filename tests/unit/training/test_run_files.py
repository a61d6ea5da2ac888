"""What a run reads back of itself, damaged in every way: the metrics end there, and the checkpoint is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoint import CheckpointFailed, Progress, check_checkpoint, list_checkpoints, read_progress, save_checkpoint
from training.log import RunLog, read_metrics

pytestmark = pytest.mark.unit

BAD_LINES = [
    b'{"step": 2, "lo',
    b"3",
    b"null",
    b"[]",
    b"{}",
    b'{"loss": 1.0}',
    b'{"step": "2", "loss": 1.0}',
    b'{"step": true, "loss": 1.0}',
    b'{"step": 2.5, "loss": 1.0}',
    b'{"step": 2, "loss": "low"}',
    b'{"step": 2, "loss": [1]}',
    b'{"step": 2, "loss": null}',
    b'{"step": 2, "\xff": 1.0}',
    b"\x00" * 40,
    b"[" * 100_000,
    b"",
]


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_metrics_end_at_the_first_line_that_is_no_record(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.5}\n' + bad + b'\n{"step": 3, "loss": 1.0}\n')
    assert read_metrics(path) == [{"step": 1, "loss": 2.5}]
    log = RunLog(tmp_path, step=9)
    log.write({"step": 2, "loss": 2.0})
    log.close()
    assert read_metrics(path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}]


def saved(folder: Path) -> Path:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    save_checkpoint(folder, model, optimizer, Progress(step=4, epoch=1, batch=2, num_steps=9, best_loss=1.5, best_step=4))
    [path] = list_checkpoints(folder)
    return path


def test_a_sound_checkpoint_is_read(tmp_path: Path) -> None:
    assert check_checkpoint(saved(tmp_path)) == Progress(step=4, epoch=1, batch=2, num_steps=9, best_loss=1.5, best_step=4)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"step": 5}, r"state\.json is of step 5"),
        ({"step": "4"}, "says step is '4'"),
        ({"step": 4.0}, "says step is 4.0"),
        ({"epoch": None}, "says epoch is None"),
        ({"batch": -1}, "says batch is -1"),
        ({"num_steps": True}, "says num_steps is True"),
        ({"num_worse": []}, r"says num_worse is \[\]"),
        ({"best_step": "x"}, "says best_step is 'x'"),
        ({"best_loss": "low"}, "says best_loss is 'low'"),
        ({"best_loss": False}, "says best_loss is False"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_state_of_other_types_or_of_another_step_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = saved(tmp_path)
    state = json.loads((path / "state.json").read_text())
    state["progress"] |= changes
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointFailed, match=why):
        read_progress(path)
    with pytest.raises(CheckpointFailed, match="delete its folder to go on from an older one"):
        check_checkpoint(path)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"[" * 100_000, b"[]", b'{"progress": []}', b'{"progress": "x"}', b'{"progress": null}']
)
def test_a_state_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    path = saved(tmp_path)
    (path / "state.json").write_bytes(text)
    with pytest.raises(CheckpointFailed, match="cannot be read"):
        check_checkpoint(path)
