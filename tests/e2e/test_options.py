"""What every option does, and what the command says where it cannot."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from livestar import __version__
from tests.e2e.command import (
    SCRIPT,
    TIMEOUT_S,
    captions,
    environment,
    errors,
    livestar,
    of_type,
    watch,
    watch_records,
)

pytestmark = pytest.mark.e2e

COMMANDS = ("watch", "train", "evaluate", "data", "model-info", "demo-checkpoint")
FOOTAGE_COMMANDS = ("check", "convert", "show")
"""What `livestar data` can do."""
RETENTIONS = ("none", "window", "peak-end", "peak-end-code", "peak-end-median", "peak-end-prob")


def test_fps_and_start_choose_the_frames(tiny: Path, clip: Path) -> None:
    records = watch_records(tiny, clip, "--fps", "2", "--start", "4")
    assert [verdict["time_s"] for verdict in of_type(records, "verdict")] == pytest.approx([4.0, 4.5, 5.0, 5.5])


def test_a_start_behind_the_end_names_the_length(tiny: Path, clip: Path) -> None:
    records = watch_records(tiny, clip, "--start", "60", status=1)
    assert "6.000 s" in str(errors(records)["clip"])


def test_a_loop_goes_on_until_it_is_interrupted(tiny: Path, clip: Path, tmp_path: Path) -> None:
    written = tmp_path / "events.jsonl"
    words = [*SCRIPT, "watch", str(clip), "--model", str(tiny), "--pace", "fast", "--max-new-tokens", "2", "--loop"]
    process = subprocess.Popen(
        [*words, "--output", str(written)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not written.exists() or written.read_text(encoding="utf-8").count('"looped"') < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - asked < 5
    assert process.returncode == 130
    assert "Traceback" not in out + err


def test_the_prompt_changes_what_is_said(tiny: Path, pictures: Path) -> None:
    told = watch_records(tiny, pictures, "--prompt", "Count the cars.")
    assert captions(told) != captions(watch_records(tiny, pictures))


def test_a_response_rate_sets_the_threshold_by_itself(tiny: Path, clip: Path) -> None:
    verdicts = of_type(watch_records(tiny, clip, "--response-rate", "0.3", "--fps", "10"), "verdict")
    assert len({verdict["threshold"] for verdict in verdicts}) > 1


def test_a_response_rate_and_a_threshold_exclude_each_other(tiny: Path, pictures: Path) -> None:
    finished = watch(tiny, pictures, "--response-rate", "0.3", "--threshold", "1.1")
    assert finished.status == 2
    assert "either a threshold or a response rate" in finished.err


def test_kept_captions_change_what_follows(tiny: Path, pictures: Path) -> None:
    kept = watch_records(tiny, pictures, "--threshold", "0.5", "--keep-captions")
    dropped = watch_records(tiny, pictures, "--threshold", "0.5", "--no-keep-captions")
    assert captions(kept)[0] == captions(dropped)[0]
    assert kept != dropped


@pytest.mark.slow
def test_every_gate_watches_in_its_own_way(tiny: Path, pictures: Path) -> None:
    runs = {gate: watch_records(tiny, pictures, "--gate", gate) for gate in ("compat", "leaf", "scam")}
    numbers = {gate: [v["perplexity"] for v in of_type(records, "verdict")] for gate, records in runs.items()}
    assert all(len(of) == 8 for of in numbers.values())
    assert numbers["compat"] != numbers["leaf"] != numbers["scam"] != numbers["compat"]


@pytest.mark.parametrize("retention", RETENTIONS)
def test_every_retention_is_accepted_and_only_none_runs_full(tiny: Path, clip: Path, retention: str) -> None:
    records = watch_records(
        tiny, clip, "--fps", "5", "--retention", retention, "--kv-tokens", "320", "--gate", "compat", status=retention == "none"
    )
    error = errors(records)["clip"]
    if retention == "none":
        assert error is not None
        assert "--retention" in error or "--kv-tokens" in error
        assert 0 < len(of_type(records, "verdict")) < 30
    else:
        assert error is None
        assert len(of_type(records, "verdict")) == 30


@pytest.mark.slow
def test_sampling_depends_on_nothing_but_the_seed(tiny: Path, pictures: Path) -> None:
    first, again, other = (watch_records(tiny, pictures, "--temperature", "1.5", "--seed", seed) for seed in (3, 3, 4))
    assert first == again
    assert captions(first) != captions(other)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_works_on_a_cpu(tiny: Path, pictures: Path, dtype: str) -> None:
    verdicts = of_type(watch_records(tiny, pictures, "--dtype", dtype, "--device", "cpu"), "verdict")
    assert len(verdicts) == 8


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", ""])
def test_a_device_that_is_not_there_is_named(tiny: Path, pictures: Path, device: str) -> None:
    finished = watch(tiny, pictures, "--device", device)
    assert finished.status == 2
    assert f"device is {device!r}" in finished.err
    assert "--device cpu" in finished.err
    assert len(finished.err.splitlines()) == 1


def test_cuda_is_refused_where_there_is_none(tiny: Path, pictures: Path) -> None:
    finished = livestar(
        *("watch", pictures, "--model", tiny, "--device", "cuda", "--max-new-tokens", "2"), env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert finished.status == 2
    assert "device is 'cuda'" in finished.err
    assert "--device cpu" in finished.err


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--gate", "strict", ("'compat'", "'leaf'", "'scam'")),
        ("--retention", "all", tuple(f"'{name}'" for name in RETENTIONS)),
        ("--pace", "slow", ("'realtime'", "'fast'")),
        ("--dtype", "int8", ("'auto'", "'float32'", "'bfloat16'", "'float16'")),
        ("--fps", "often", ("number",)),
        ("--fps", "0", ("fps", "above 0", "240")),
        ("--fps", "nan", ("fps", "above 0")),
        ("--start", "-1", ("start", "from 0")),
        ("--threshold", "nan", ("threshold", "1.03")),
        ("--response-rate", "1.5", ("response_rate", "between 0 and 1")),
        ("--temperature", "inf", ("temperature", "0 (greedy)")),
        ("--top-p", "0", ("top_p", "at most 1")),
        ("--max-new-tokens", "0", ("max_new_tokens", "1 to 8192")),
        ("--repetition-penalty", "-1", ("repetition_penalty", "1 is off")),
        ("--stall-timeout", "nan", ("stall_timeout", "above 0")),
        ("--max-reconnects", "-1", ("max_reconnects", "0 or more")),
        ("--kv-tokens", "0", ("kv_tokens", "above 0")),
    ],
)
def test_a_value_that_cannot_be_is_answered_with_those_that_can(option: str, value: str, named: tuple[str, ...]) -> None:
    finished = livestar("watch", "anything.mp4", "--model", "anywhere", option, value)
    assert finished.status == 2
    said = " ".join(finished.err.split())
    assert [name for name in (*named,) if name not in said] == []


def test_an_unknown_option_is_named(tiny: Path) -> None:
    finished = livestar("watch", "x.mp4", "--model", tiny, "--frames-per-second", "3")
    assert finished.status == 2
    assert "--frames-per-second" in finished.err


def test_what_is_missing_is_named() -> None:
    finished = livestar("watch")
    assert finished.status == 2
    assert "SOURCE" in finished.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    finished = livestar(command, "--help")
    assert finished.status == 0
    assert f"livestar {command}" in finished.out
    assert finished.err == ""


def test_every_option_of_watch_is_explained() -> None:
    help_text = livestar("watch", "-h").out
    rows = re.findall(r"(--[a-z-]+)[^\n]*", help_text)
    for option in ("--fps", "--gate", "--retention", "--kv-tokens", "--seed", "--dtype", "--device", "--trace", "--output"):
        assert option in rows
    assert "Exit status" in help_text


def test_help_without_a_command_lists_the_commands() -> None:
    for words in ((), ("--help",)):
        finished = livestar(*words)
        assert finished.status == (0 if words else 2)
        assert all(command in finished.said for command in COMMANDS)


def test_version_is_one_line_and_needs_no_model() -> None:
    assert livestar("--version").out == f"livestar {__version__}\n"
    assert livestar("--version", command=(sys.executable, "-m", "livestar.cli")).out == f"livestar {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str) -> None:
    finished = livestar(env={"_LIVESTAR_COMPLETE": f"source_{shell}"})
    assert finished.status == 0
    assert "livestar" in finished.out
    assert "_LIVESTAR_COMPLETE" in finished.out


def test_completion_knows_the_commands_and_options() -> None:
    asked = {"_LIVESTAR_COMPLETE": "complete_bash", "COMP_WORDS": "livestar ", "COMP_CWORD": "1"}
    assert set(livestar(env=asked).out.split()) >= set(COMMANDS)
    for typed, meant in (("watch --ret", "--retention"), ("evaluate --cal", "--calibrate"), ("data con", "convert")):
        assert meant in livestar(env=asked | {"COMP_WORDS": f"livestar {typed}", "COMP_CWORD": "2"}).out.split()


@pytest.mark.parametrize("command", FOOTAGE_COMMANDS)
def test_every_command_on_footage_explains_itself(command: str) -> None:
    assert f"{command} " in livestar("data", "--help").out
    finished = livestar("data", command, "--help")
    assert (finished.status, finished.err) == (0, "")
    assert f"livestar data {command}" in finished.out
