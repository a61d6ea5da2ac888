"""What a run leaves to read: one JSON line per step, TensorBoard curves, and a progress bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS = "metrics.jsonl"


class Reporter(Protocol):
    """Where a run tells a person how far it is."""

    def stage(self, name: str, done: int, total: int) -> None:
        """`done` of `total` in the stage of that name."""
        ...

    def step(self, record: Mapping[str, float | int]) -> None:
        """A step or a measurement of the held-out loss."""
        ...

    def say(self, text: str) -> None:
        """Something that happened."""
        ...


class Silent:
    """A reporter for workers that nobody watches."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def step(self, record: Mapping[str, float | int]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class RunLog:
    """The files of one run; used by the first worker only."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """Goes on behind `step`: what an earlier process wrote beyond it is dropped, since those steps are done again."""
        self._path = folder / METRICS
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._curves = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, record: Mapping[str, float | int]) -> None:
        """Appends a record with its `step`."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in record.items():
            if name != "step":
                self._curves.add_scalar(name, value, int(record["step"]))

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._curves.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a run; a last line that was cut off by a kill is left out."""
    records: list[dict[str, float]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
