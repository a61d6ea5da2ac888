"""The examples of docs/data.md read as the document says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from livestar.annotations import read_annotations

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]


def test_the_examples_of_the_document_read(tmp_path: Path):
    document = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```(?:json|text)\n(.*?)^```$", document, flags=re.DOTALL | re.MULTILINE)
    names = ["video.jsonl", "event.jsonl", "text.txt", "narration.jsonl", "meta.json"]
    read = {}
    for name, example in zip(names, examples, strict=True):
        (tmp_path / name).write_text(example, encoding="utf-8")
        (video,) = read_annotations(tmp_path / name)
        read[name] = [(event.begin_s, event.end_s) for event in video.events]
    assert read == {
        "video.jsonl": [(0, 3.5), (5, 9)],
        "event.jsonl": [(0, 3.5), (5, 9)],
        "text.txt": [(0, 1), (1, 8)],
        "narration.jsonl": [(0, 2), (2, 3)],
        "meta.json": [(0, 2), (2, 3)],
    }
