"""From the first worker of a cluster to the terminal: a file of JSON lines in the run's folder, which all of them see.

Ray shows workers' output of all nodes mixed and late, and calls back on another machine; a file needs no more than the
checkpoints do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training.log import TRAINING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.log import Reporter


class ToFile:
    """A reporter that writes down what it is told; every worker that is started again appends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def stage(self, name: str, done: int, total: int) -> None:
        """A line for a step; what came before them was told by who started the workers."""
        if name == TRAINING:
            self._write(["stage", name, done, total])

    def step(self, record: Mapping[str, float | int]) -> None:
        """A line."""
        self._write(["step", dict(record)])

    def say(self, text: str) -> None:
        """A line."""
        self._write(["say", text])

    def _write(self, call: list[Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(call) + "\n")


class FromFile:
    """Tells a reporter what has come into the file since."""

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self._path = path
        self._reporter = reporter
        self._place = 0
        path.unlink(missing_ok=True)

    def poll(self) -> None:
        """Passes on all whole lines."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._place += len(line)
                name, *arguments = json.loads(line)
                getattr(self._reporter, name)(*arguments)
