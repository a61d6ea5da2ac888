"""Defects that were found once, each with the test that found it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.checkpoints import RECIPES, write_checkpoint, write_shards
from tests.e2e.command import SCRIPT, environment
from tests.e2e.test_bad_input import tensors_of
from tests.integration.media.clips import make_clip, make_sound

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("m") / "tiny", RECIPES["deep"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("c") / "clip.mp4", num_frames=60, rate=10)


def ends_with(status: int, *words: object, **env: str) -> str:
    """Runs the command and returns all it printed, which must not be a traceback."""
    done = subprocess.run([*SCRIPT, *map(str, words)], capture_output=True, timeout=60, env=environment(**env))
    printed = (done.stdout + done.stderr).decode(errors="replace")
    assert "Traceback" not in printed
    assert done.returncode == status, printed
    return printed


def watch(model: Path, *words: object) -> tuple[object, ...]:
    return ("watch", "--model", model, "--pace", "fast", "--max-new-tokens", "4", *words)


def with_config(model: Path, directory: Path, **watch: str) -> Path:
    """A copy of a checkpoint with other values in its `livestar` section."""
    shutil.copytree(model, directory)
    config = json.loads((directory / "config.json").read_text())
    config["livestar"].update(watch)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_watch_writes_how_its_streams_ended(
    tiny: Path, clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "e.jsonl"
    words = watch(tiny, clip, clip, "--loop", "--output", output)
    process = subprocess.Popen(
        [*SCRIPT, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 60
    while (not output.exists() or output.read_text().count("looped") < 4) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == 130
    last = {record["stream_id"]: record["type"] for record in map(json.loads, output.read_text().splitlines())}
    assert last == {"clip": "end", "clip-2": "end"}
    assert json.loads(output.read_text().splitlines()[-1])["error"] == "stopped before the source ended"


def test_a_full_disk_is_told(tiny: Path, clip: Path) -> None:
    assert "/dev/full cannot be written" in ends_with(1, *watch(tiny, clip, "--output", "/dev/full"))


def test_a_source_is_never_overwritten(tiny: Path, clip: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copy(clip, tmp_path / "mine.mp4"))
    assert "one of the sources" in ends_with(2, *watch(tiny, mine, "--output", mine))
    assert mine.read_bytes() == clip.read_bytes()


def test_a_source_named_by_a_url_is_never_overwritten(tiny: Path, clip: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copy(clip, tmp_path / "mine.mp4"))
    ends_with(2, *watch(tiny, mine.as_uri(), "--output", mine))
    assert mine.read_bytes() == clip.read_bytes()


def test_a_file_of_the_model_is_never_overwritten(tiny: Path, clip: Path, tmp_path: Path) -> None:
    directory = with_config(tiny, tmp_path / "m")
    before = (directory / "config.json").read_bytes()
    ends_with(2, *watch(directory, clip, "--output", directory / "config.json"))
    assert (directory / "config.json").read_bytes() == before


def test_a_refused_request_leaves_an_old_output_alone(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "e.jsonl"
    output.write_text("old\n")
    ends_with(2, *watch(tmp_path / "nowhere", clip, "--output", output))
    assert output.read_text() == "old\n"


def test_an_output_that_another_process_writes_is_refused(tiny: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "e.jsonl"
    with output.open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        assert "another process" in ends_with(2, *watch(tiny, clip, "--output", output))


def test_a_hundred_sources_with_little_to_say_do_not_block_each_other(tiny: Path, tmp_path: Path) -> None:
    missing = [tmp_path / f"{number}.mp4" for number in range(1200)]
    output = tmp_path / "e.jsonl"
    ends_with(1, *watch(tiny, *missing, "--kv-tokens", "400", "--output", output))
    assert len(output.read_text().splitlines()) == 1200


def test_a_full_standard_output_is_told(tiny: Path, clip: Path) -> None:
    words = [*SCRIPT, *map(str, watch(tiny, clip))]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=60, env=environment())
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"standard output cannot be written" in done.stderr


def test_a_prompt_that_is_not_text_is_refused(tiny: Path, clip: Path) -> None:
    assert "not valid UTF-8" in ends_with(2, *watch(tiny, clip, "--prompt", os.fsdecode(b"\xff")))


@pytest.mark.parametrize("option", ["--fps=1e-300", "--start=1e300", "--stall-timeout=inf"])
def test_numbers_out_of_all_range_are_refused(tiny: Path, clip: Path, option: str) -> None:
    ends_with(2, *watch(tiny, clip, option))


@pytest.mark.parametrize("device", ["hpu", "meta", "xla", "mps", "cpu:x", "nonsense"])
def test_a_device_that_is_none_gets_a_short_answer(tiny: Path, clip: Path, device: str) -> None:
    printed = ends_with(2, *watch(tiny, clip, "--device", device))
    assert "--device cpu" in printed
    assert len(printed) < 200


def test_a_seed_out_of_range_is_refused(tiny: Path, clip: Path) -> None:
    assert "seed" in ends_with(2, *watch(tiny, clip, "--seed", 10**20))


@pytest.mark.parametrize("memory", ["nan", "inf", "-1"])
def test_a_memory_that_is_none_is_refused(tiny: Path, memory: str) -> None:
    assert "--memory" in ends_with(2, "model-info", tiny, "--memory", memory)


@pytest.mark.parametrize("extra", [(), ("--output", "-")])
def test_standard_output_need_not_be_utf8(tiny: Path, clip: Path, extra: tuple[str, ...]) -> None:
    assert ends_with(0, *watch(tiny, clip, "--threshold", "0.1", *extra), PYTHONIOENCODING="latin-1")


def test_a_file_name_that_is_not_utf8_ends_only_its_own_stream(tiny: Path, clip: Path, tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"bad\xff.wav")
    make_sound(tmp_path / "s.wav", "pcm_s16le").rename(name)
    output = tmp_path / "e.jsonl"
    ends_with(1, *watch(tiny, name, clip, "--output", output))
    ends = [record for record in map(json.loads, output.read_text().splitlines()) if record["type"] == "end"]
    assert sorted(record["error"] is None for record in ends) == [False, True]


def test_model_info_prints_brackets_as_they_are(tiny: Path, tmp_path: Path) -> None:
    directory = with_config(tiny, tmp_path / "[v2]", task="Answer in [/INST] form")
    printed = ends_with(0, "model-info", directory)
    assert "[v2]" in printed
    assert "[/INST]" in printed


@pytest.mark.parametrize("command", ["watch", "model-info"])
def test_a_checkpoint_cannot_steer_the_terminal(tiny: Path, clip: Path, tmp_path: Path, command: str) -> None:
    directory = with_config(tiny, tmp_path / "m", note="x\x1b]0;owned\x07\x1b[2J")
    assert "\x1b" not in ends_with(0, *(watch(directory, clip) if command == "watch" else ("model-info", directory)))


@pytest.mark.parametrize(
    "words",
    [
        ("model-info", "no\x1b[31mred"),
        ("watch", "x", "--model", "no\x1b[31m"),
        ("watch", "x", "--model", "m", "--output", "no/\x1b[31m"),
    ],
)
def test_a_path_cannot_steer_the_terminal(words: tuple[str, ...]) -> None:
    assert "\x1b" not in ends_with(2, *words)


def test_an_output_that_is_not_a_number_is_not_called_an_empty_caption(tiny: Path, clip: Path, tmp_path: Path) -> None:
    directory = with_config(tiny, tmp_path / "m")
    tensors = tensors_of(directory)
    tensors["language_model.model.norm.weight"][:] = float("nan")
    write_shards(directory, tensors, 2)
    assert "damaged" in ends_with(1, *watch(directory, clip))
