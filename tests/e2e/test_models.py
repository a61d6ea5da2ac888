"""`model-info` and `demo-checkpoint`, the model that comes with LiveStar, and what a model chooses for itself."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.checkpoints import RECIPES, write_checkpoint
from tests.e2e.command import Finished, captions, livestar, of_type, watch_records

pytestmark = pytest.mark.e2e

GIB = 2**30

PACKAGED = """
import sys
from pathlib import Path
from importlib import resources
from unittest import mock
from livestar.cli import main
folder = Path(sys.argv.pop(1))
with mock.patch.object(resources, "files", lambda package: folder):
    main()
"""
"""The command, with another folder in place of the installed package's."""


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


def packaged(folder: Path, *arguments: object) -> Finished:
    """The command as it is where the package's files lie in `folder`."""
    return livestar(*arguments, command=(sys.executable, "-c", PACKAGED, str(folder)))


def test_without_a_model_the_packaged_one_watches(tiny: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "assets" / "livestar-mini")
    watch = ("watch", pictures, "--pace", "fast", "--max-new-tokens", 4, "--output", "-")
    given = livestar(*watch, "--model", tiny)
    assert given.status == 0
    for named in ((), ("--model", "livestar-mini")):
        finished = packaged(tmp_path, *watch, *named)
        assert finished.status == 0, finished.err
        assert finished.out == given.out
    assert "vision tower" in packaged(tmp_path, "model-info").out


@pytest.mark.parametrize("words", [("watch", "x.mp4"), ("model-info",)])
def test_where_no_model_is_packaged_the_remedy_is_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    finished = packaged(tmp_path, *words)
    assert finished.status == 2
    assert "livestar-mini is not in this installation" in finished.err
    assert "--model DIR" in finished.err


def test_a_model_chooses_its_frame_rate_and_length_and_options_win(tiny: Path, clip: Path, tmp_path: Path) -> None:
    chosen = shutil.copytree(tiny, tmp_path / "chosen")
    config = json.loads((chosen / "config.json").read_text())
    config["livestar"] |= {"fps": 2, "max_new_tokens": 3, "threshold": 0.5}
    (chosen / "config.json").write_text(json.dumps(config))

    def watched(*options: object) -> list[dict[str, object]]:
        words = ("watch", clip, "--pace", "fast", "--model", chosen, "--trace", "--output", "-", *options)
        finished = livestar(*words)
        assert finished.status == 0, finished.err
        return [json.loads(line) for line in finished.out.splitlines()]

    own, other = watched(), watched("--fps", 1, "--max-new-tokens", 1)
    assert len(of_type(own, "verdict")) == 12
    assert len(of_type(other, "verdict")) == 6
    assert max(len(text) for _, text in captions(own)) > max(len(text) for _, text in captions(other))


@pytest.mark.parametrize(
    ("key", "value"), [("fps", 0), ("fps", "often"), ("fps", 1000), ("max_new_tokens", 0), ("max_new_tokens", 2.5)]
)
def test_a_choice_that_cannot_be_is_named_with_its_file(tiny: Path, tmp_path: Path, key: str, value: object) -> None:
    chosen = shutil.copytree(tiny, tmp_path / "chosen")
    config = json.loads((chosen / "config.json").read_text())
    config["livestar"] |= {key: value}
    (chosen / "config.json").write_text(json.dumps(config))
    finished = livestar("model-info", chosen)
    assert finished.status == 2
    assert f"config.json: livestar: {key} is {value!r}" in finished.err


def test_a_model_of_few_positions_needs_no_budget_given(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["deep"], max_positions=2048, watch=(("max_new_tokens", 16), ("task", "Watch.\n")))
    table = rows(write_checkpoint(tmp_path / "short", recipe))
    assert number(table["in float32"], r"stream of ([\d,]+) tokens") <= 2048
    assert table["its own max_new_tokens"] == "16"


def test_an_adapter_watches_over_its_base(tiny: Path, pictures: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny, tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "../base", "target_modules": ["wo"]}
    (adapter / "adapter_config.json").write_text(json.dumps(values))
    prefix = "base_model.model.language_model.model.layers.0.attention.wo"
    generator = torch.Generator().manual_seed(0)
    pair = {"A": torch.randn(2, 48, generator=generator), "B": torch.randn(48, 2, generator=generator)}
    tensors = {f"{prefix}.lora_{letter}.weight": tensor for letter, tensor in pair.items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    with_adapter, without = watch_records(adapter, pictures), watch_records(base, pictures)
    assert captions(with_adapter) != captions(without)
    save_file({name: 0 * tensor for name, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
    assert watch_records(adapter, pictures) == without
    assert rows(adapter)["adapter"] == f"1 weights changed and 0 tensors replaced, over {base}"
