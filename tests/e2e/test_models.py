"""`model-info` and `demo-checkpoint`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.e2e.command import livestar

pytestmark = pytest.mark.e2e

GIB = 2**30


def rows(directory: Path, *arguments: object) -> dict[str, str]:
    """The table, cell by cell; the terminal is wide enough for one line a row."""
    finished = livestar("model-info", directory, *arguments)
    assert finished.status == 0, finished.err
    cells = [line.strip("│ ").split("│") for line in finished.out.splitlines() if line.startswith("│")]
    return {name.strip(): value.strip() for name, value in cells}


def number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    assert found, (pattern, text)
    return int(found[1].replace(",", ""))


def count(directory: Path, prefix: str = "") -> int:
    """Weights whose names start so, from the files themselves."""
    total = 0
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118  # no dict
                size = 1
                for side in shard.get_slice(name).get_shape():
                    size *= side
                total += size if name.startswith(prefix) else 0
    return total


def assert_table_is_right(directory: Path, table: dict[str, str]) -> None:
    config = json.loads((directory / "config.json").read_text())
    language = config["llm_config"]
    num_weights = count(directory)
    assert number(table["weights"], r"([\d,]+) in") == num_weights
    assert number(table["vision tower"], r"([\d,]+) weights") == count(directory, "vision_model.")
    assert number(table["projector"], r"([\d,]+) weights") == count(directory, "mlp1.")
    assert number(table["language model"], r"([\d,]+) weights") == count(directory, "language_model.")
    assert number(table["vocabulary"], r"([\d,]+)") == language["vocab_size"]
    assert table["tokens of a picture"] == str(config.get("num_tome_tokens", 16))
    head = language["hidden_size"] // language["num_attention_heads"]
    values = 2 * language["num_hidden_layers"] * language["num_key_value_heads"] * head
    for name, size in (("in bfloat16", 2), ("in float32", 4)):
        assert number(table[name], r"KV ([\d,]+) bytes per token") == values * size
        capacity = number(table[name], r"stream of ([\d,]+) tokens")
        assert capacity >= 2000
        fits = int((3 * GIB - num_weights * size) // (values * size * capacity))
        assert number(table[name], r"([\d,]+) streams in 3 GiB") == fits


@pytest.mark.parametrize("variant", ["a", "b"])
def test_the_numbers_of_a_released_format_are_those_of_its_files(golden_dir: Path, tmp_path: Path, variant: str) -> None:
    make = [sys.executable, str(golden_dir / "make_checkpoint.py"), str(tmp_path / "model"), "--variant", variant]
    subprocess.run(make, check=True, timeout=120, capture_output=True)
    assert_table_is_right(tmp_path / "model", rows(tmp_path / "model", "--memory", "3", "--kv-tokens", "2000"))


def test_the_numbers_of_the_demo_are_those_of_its_files(demo: Path) -> None:
    table = rows(demo, "--memory", "3", "--kv-tokens", "2000")
    assert_table_is_right(demo, table)
    assert "random weights" in table["its own note"]


@pytest.mark.slow
def test_a_smaller_memory_holds_fewer_streams_and_none_at_last(tiny: Path) -> None:
    held = [number(rows(tiny, "--memory", memory)["in float32"], r"([\d,]+) streams") for memory in ("1", "0.1", "0")]
    assert held[0] > held[1] > held[2] == 0


@pytest.mark.parametrize(
    ("file", "named"),
    [("config.json", "config.json"), ("tokenizer.json", "tokenizer"), ("model-00002-of-00002.safetensors", "00002")],
)
def test_a_broken_directory_is_refused_with_what_is_missing(tiny: Path, tmp_path: Path, file: str, named: str) -> None:
    shutil.copytree(tiny, tmp_path / "broken")
    (tmp_path / "broken" / file).unlink()
    finished = livestar("model-info", tmp_path / "broken")
    assert finished.status == 2
    assert named in finished.err
    assert str(tmp_path / "broken") in finished.err


def test_a_budget_that_the_model_has_no_positions_for_is_refused(tiny: Path) -> None:
    finished = livestar("model-info", tiny, "--kv-tokens", "1000000")
    assert finished.status == 2
    assert "--kv-tokens" in finished.err


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_demo_checkpoint_depends_on_nothing_but_its_seed(tmp_path: Path, demo: Path) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        assert livestar("demo-checkpoint", tmp_path / "deep" / name, "--seed", seed).status == 0
    same, other = contents(tmp_path / "deep" / "same"), contents(tmp_path / "deep" / "other")
    assert same == contents(demo)
    assert same.keys() == other.keys()
    assert {name for name in same if same[name] != other[name]} == {name for name in same if name.endswith(".safetensors")}


def test_a_demo_checkpoint_says_that_it_is_noise(tmp_path: Path) -> None:
    assert "random weights" in livestar("demo-checkpoint", tmp_path / "demo").out


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_demo_checkpoint_is_not_written_where_a_file_is(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    finished = livestar("demo-checkpoint", tmp_path / place)
    assert finished.status == 2
    assert str(tmp_path / place) in finished.err
    assert "choose another directory" in finished.err
    assert (tmp_path / "file").read_text() == "mine"
