"""docs/training.md says what the code does: its settings, recipes, picture of the mask, and commands, which run."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import typing
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.e2e.command import environment
from tests.integration.media.clips import make_clip
from tests.integration.training.rooms import write_tiny
from tests.unit.toy_prompt import toy_prompt
from training import config as settings
from training.config import TrainConfig, named_configs
from training.masks import dense_mask
from training.sequence import Clip, SequenceBuilder, Visibility

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "training.md"
BEGIN = "<!-- settings: written by tests/integration/training/test_run_docs.py -->\n"
END = "<!-- end of settings -->\n"


def table() -> str:
    """The settings as the dataclasses have them, with what stands under each."""
    tree = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    rows = ["| setting | default | |", "|---|---|---|"]
    for section in dataclasses.fields(TrainConfig):
        kind = type(getattr(TrainConfig(), section.name))
        body = classes[kind.__name__].body
        told = {
            field.target.id: ast.literal_eval(below.value)
            for field, below in pairwise(body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr)
        }
        for field in dataclasses.fields(kind):
            value = getattr(kind(), field.name)
            hint = typing.get_type_hints(kind)[field.name]
            others = [choice for choice in typing.get_args(hint) if choice != value] if typing.get_origin(hint) is Literal else []
            shown = ", or ".join(f"`{toml(choice)}`" for choice in (value, *others))
            rows.append(f"| `{section.name}.{field.name}` | {shown} | {' '.join(told[field.name].split())} |")
    return "\n".join(rows) + "\n"


def toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f'"{value}"' if isinstance(value, str) else f"{value:g}"


def test_the_settings_are_those_of_the_code() -> None:
    """`LIVESTAR_WRITE_DOCS=1 pytest` on this test writes them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, written, after = text.partition(BEGIN)[0], text.partition(BEGIN)[2].partition(END)[0], text.partition(END)[2]
    if os.environ.get("LIVESTAR_WRITE_DOCS") == "1":
        DOCUMENT.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    else:
        assert written == table()


def test_the_recipes_are_those_that_come_with_it() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Recipes")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, flags=re.MULTILINE)) == named_configs().keys()


def drawn(visibility: Visibility, labels: list[str]) -> list[str]:
    """Who sees whom of two clips of two frames, as the document draws it."""
    sequence = SequenceBuilder(toy_prompt(2), visibility=visibility).build(range(1, 5), [Clip(0, 2, "a"), Clip(2, 2, "b")])
    ends = [list(rows)[-1] for _, rows in groupby(range(len(sequence.rows)), key=lambda row: sequence.leaves[row])]
    assert len(ends) == len(labels)
    mask = dense_mask(torch.tensor(sequence.leaves))
    return [
        label + " " + " ".join("■" if mask[row, column] else "·" for column in ends[: number + 1])
        for number, (label, row) in enumerate(zip(labels, ends, strict=True))
    ]


def test_the_picture_of_the_mask_is_the_mask() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    head, *rows = re.findall(r"^```text\n(leaf .*?)^```$", text, flags=re.DOTALL | re.MULTILINE)[0].splitlines()
    border = head.index("terminal")
    halves = [[" ".join(line[part].split()) for line in rows] for part in (slice(0, border), slice(border, None))]
    leaf = ["F1", "a", "F2", "a", "F3", "b", "F4", "b"]
    terminal = ["F1", "a", "F2", "a", "A+F3", "b", "F4", "b"]
    assert halves == [[" ".join(leaf), *drawn("leaf", leaf)], [" ".join(terminal), *drawn("terminal", terminal)]]


def test_the_commands_run(tmp_path: Path) -> None:
    write_tiny(tmp_path / "livestar-mini")  # in the working folder, so that it is taken for the packaged one
    make_clip(tmp_path / "room.mp4", num_frames=160, rate=10, gop=10)
    shutil.copy(tmp_path / "room.mp4", tmp_path / "door.mp4")
    events = [f'{{"begin": {b}, "end": {b + 2}, "caption": "Colour {b % 3}."}}\n' for b in range(0, 16, 2)]
    (tmp_path / "room.events.jsonl").write_text("".join(events))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    snippets = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(snippets) == 2
    for snippet in snippets:
        assert "livestar train" in snippet or "livestar watch" in snippet
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", snippet],
            cwd=tmp_path,
            env=environment(PATH=path),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "room" / "model" / "config.json").exists()
