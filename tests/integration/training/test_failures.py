"""What can go wrong in a run: one line that names it and the remedy, nothing half-written, and the run can go on."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from livestar.errors import InvalidAnnotation, InvalidConfig, LiveStarError, SourceUnreadable
from tests.e2e.command import SCRIPT, environment
from tests.integration.training.rooms import (
    assert_same,
    config_of,
    curve,
    to_toml,
    values,
    weights_in,
    write_room,
    write_tiny,
)
from tests.integration.training.workers import StopBehind
from training.checkpoint import CheckpointFailed, check_checkpoint, list_checkpoints, step_of
from training.log import Silent
from training.run import Stopped, restart, train
from training.world import World

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LORA = {"lora__rank": 2, "lora__dropout": 0.1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_room(tmp_path_factory.mktemp("room"))


def with_little_room(config: Path, num_bytes: int) -> str:
    """`livestar train` where no file may be larger; returns the only line of its error."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))  # noqa: E731
    done = subprocess.run(
        [*SCRIPT, "train", config], env=environment(), capture_output=True, text=True, timeout=120, preexec_fn=limit
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [done.stderr.splitlines()[-1]]
    return errors[0]


@pytest.mark.parametrize(
    ("num_bytes", "changes", "message"),
    [
        pytest.param(
            100_000, {}, "checkpoint {run}/checkpoints/step-00000006 cannot be written (File too large", id="checkpoint"
        ),
        pytest.param(3000, {"run__checkpoint_every": 90}, "{run}/metrics.jsonl cannot be written (File too large", id="metrics"),
        pytest.param(50_000, LORA, "the model cannot be written to {run} (File too large", id="export"),
    ],
)
def test_a_disk_that_fills_leaves_older_checkpoints_and_the_run_goes_on_when_there_is_room(
    base: Path, room: Path, tmp_path: Path, num_bytes: int, changes: dict[str, Any], message: str
) -> None:
    changes = {"optim__epochs": 15, "run__evaluate_every": 0, **changes}
    whole = train(config_of(base, room, tmp_path / "whole", **changes), World(), Silent())
    with pytest.raises(Stopped):
        train(config_of(base, room, tmp_path / "run", **changes), World(), Silent(), stop=StopBehind(5))
    checkpoints = tmp_path / "run" / "checkpoints"
    before = {step_of(path) for path in list_checkpoints(checkpoints)}
    config = tmp_path / "run.toml"
    config.write_text(to_toml(values(base, room, tmp_path / "run", **changes)))

    error = with_little_room(config, num_bytes)
    assert error.startswith("error: " + message.format(run=tmp_path / "run"))
    assert "make room there and give the same command again" in error
    left = [path for path in (tmp_path / "run").rglob("*") if path.name.endswith(".partial")]
    assert left == [] and not (tmp_path / "run" / "model").exists()
    after = [check_checkpoint(path).step for path in list_checkpoints(checkpoints)]
    assert ("model" in message or before <= set(after)) and after

    train(config_of(base, room, tmp_path / "run", **changes), World(), Silent())
    assert_same(weights_in(tmp_path / "run" / "model"), weights_in(whole))
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_a_disk_that_fills_with_visual_tokens(base: Path, room: Path, tmp_path: Path) -> None:
    sections = values(base, room, tmp_path / "run", data__cache=str(tmp_path / "cache"))
    config = tmp_path / "run.toml"
    config.write_text(to_toml(sections))
    error = with_little_room(config, 20_000)
    assert error.startswith(f"error: visual tokens cannot be written to {tmp_path / 'cache'} (File too large); make room")
    assert list((tmp_path / "cache").iterdir()) == []
    train(config_of(base, room, tmp_path / "run", data__cache=str(tmp_path / "cache")), World(), Silent())


def damage_tensors(path: Path) -> None:
    data = bytearray((path / "state.safetensors").read_bytes())
    data[-1000] ^= 1
    (path / "state.safetensors").write_bytes(data)


def cut_tensors(path: Path) -> None:
    data = (path / "state.safetensors").read_bytes()
    (path / "state.safetensors").write_bytes(data[: len(data) // 2])


def empty_state(path: Path) -> None:
    (path / "state.json").write_text("{}")


def spoil_state(path: Path) -> None:
    (path / "state.json").write_text('{"progress": {"step": 4')


def lose_tensors(path: Path) -> None:
    (path / "state.safetensors").unlink()


class Said(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("damage", [damage_tensors, cut_tensors, empty_state, spoil_state, lose_tensors])
def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(base: Path, room: Path, tmp_path: Path, damage: Any) -> None:
    config = config_of(base, room, tmp_path / "run", run__evaluate_every=0)
    with pytest.raises(Stopped):
        train(config, World(), Silent(), stop=StopBehind(7))
    older, newest = list_checkpoints(tmp_path / "run" / "checkpoints")
    damage(newest)
    with pytest.raises(CheckpointFailed, match="delete its folder to go on from an older one"):
        check_checkpoint(newest)
    said = Said()
    model = train(config, World(), said)
    assert said.lines[0].startswith(f"checkpoint {newest} cannot be read (")
    assert said.lines[0].endswith("; an older one, or the beginning, is taken instead")
    assert said.lines[1] == f"goes on behind step {step_of(older)}"
    whole = train(config_of(base, room, tmp_path / "whole", run__evaluate_every=0), World(), Silent())
    assert_same(weights_in(model), weights_in(whole))
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_without_any_sound_checkpoint_the_run_begins_anew(base: Path, room: Path, tmp_path: Path) -> None:
    config = config_of(base, room, tmp_path / "run", run__evaluate_every=0, run__keep_checkpoints=1)
    with pytest.raises(Stopped):
        train(config, World(), Silent(), stop=StopBehind(5))
    [only] = list_checkpoints(tmp_path / "run" / "checkpoints")
    cut_tensors(only)
    whole = train(config_of(base, room, tmp_path / "whole", run__evaluate_every=0), World(), Silent())
    assert_same(weights_in(train(config, World(), Silent())), weights_in(whole))


def annotated(room: Path, folder: Path, **changes: Any) -> Path:
    """The room's annotation with its first two events changed."""
    line = json.loads(room.read_text())
    line["video"] = str(room.parent / line["video"])
    line |= {key: value for key, value in changes.items() if key == "video"}
    for name in ("first", "second"):
        line["events"][name == "second"] |= changes.get(name, {})
    path = folder / "wrong.events.jsonl"
    path.write_text(json.dumps(line) + "\n")
    return path


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"first": {"caption": "  "}}, InvalidAnnotation, r"wrong\.events\.jsonl:1: .*caption"),
        ({"first": {"begin": 3.0, "end": 1.0}}, InvalidAnnotation, r"wrong\.events\.jsonl:1: .*end"),
        ({"second": {"begin": 0.5}}, InvalidAnnotation, r"wrong\.events\.jsonl:1: "),
        ({"second": {"begin": 4.0, "end": 4000.0}}, InvalidAnnotation, r"wrong\.events\.jsonl:1: "),
        ({"video": "nowhere.mp4"}, LiveStarError, r"nowhere\.mp4"),
    ],
    ids=["empty caption", "end before begin", "out of order", "past the end", "no video"],
)
def test_a_wrong_annotation_is_named_before_anything_is_computed(
    base: Path, room: Path, tmp_path: Path, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    config = config_of(base, annotated(room, tmp_path, **changes), tmp_path / "run", data__cache=str(tmp_path / "cache"))
    with pytest.raises(kind, match=message):
        train(config, World(), Silent())
    assert not list(tmp_path.glob("cache/*")) and not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("is_known", [True, False], ids=["duration known", "duration to be measured"])
def test_a_corrupt_video_is_named_or_left_out(base: Path, room: Path, tmp_path: Path, is_known: bool) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nonsense" * 100)
    event = {"begin": 0, "end": 2, "caption": "A dog runs in."}
    both = tmp_path / "both.events.jsonl"
    good = json.loads(room.read_text())
    good["video"] = str(room.parent / good["video"])
    bad: dict[str, object] = {"video": "bad.mp4", "events": [event]}
    if is_known:
        bad["duration"] = 4.0
    both.write_text("\n".join(json.dumps(line) for line in (good, bad)) + "\n")
    config = config_of(base, both, tmp_path / "run", data__cache=str(tmp_path / "cache"))
    with pytest.raises(SourceUnreadable, match=r"both\.events\.jsonl:2: .*bad\.mp4 is not a video"):
        train(config, World(), Silent())
    config = config_of(base, both, tmp_path / "skipped", data__on_bad="skip", data__cache=str(tmp_path / "cache"))
    train(config, World(), Silent())


def test_a_run_that_cannot_be_written_is_refused_before_anything_is_computed(base: Path, room: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = config_of(base, room, tmp_path / "file" / "run", data__cache=str(tmp_path / "cache"))
    with pytest.raises(LiveStarError, match=r"file/run cannot be used for a run \(Not a directory\); choose another run\.output"):
        train(config, World(), Silent())
    assert not (tmp_path / "cache").exists()


def test_a_folder_with_a_config_that_is_none_is_refused(base: Path, room: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"scripts": {}}')
    with pytest.raises(InvalidConfig, match=r"run/config\.json is not the config of a run .*; choose another run\.output, or"):
        train(config_of(base, room, tmp_path / "run"), World(), Silent())
    assert (tmp_path / "run" / "config.json").read_text() == '{"scripts": {}}'
    (tmp_path / "run" / "model").mkdir()
    with pytest.raises(InvalidConfig, match="is not the config of a run"):
        restart(tmp_path / "run")
    restart(tmp_path)  # holds no run, so that there is nothing to forget
    assert (tmp_path / "run" / "model").exists()


def test_numbers_that_are_none_end_the_run_at_once(base: Path, room: Path, tmp_path: Path) -> None:
    config = config_of(base, room, tmp_path / "run", optim__learning_rate=1e30, optim__warmup=0.0)
    with pytest.raises(LiveStarError, match=r"step \d+ has gradients that are no numbers; lower optim\.learning_rate"):
        train(config, World(), Silent())
    assert not (tmp_path / "run" / "model").exists()
