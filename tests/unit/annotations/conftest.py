"""Annotation files, written where the test wants them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the test's folder: text as it is, anything else as one JSON value per line."""

    def write_file(name: str, *lines: object) -> Path:
        path = tmp_path / name
        text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return path

    return write_file
