"""What a run leaves to read: one JSON line per step, and curves for TensorBoard.

Nothing is written in the background, so that a disk that fills is noticed at the step where it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]  # ships no stubs
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from livestar.errors import LiveStarError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

METRICS, CURVES = "metrics.jsonl", "tensorboard"
TRAINING = "training"
"""What the stage of the steps is called."""


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
        """Goes on behind `step`: what an earlier process wrote beyond it is dropped, since those steps are done again.

        Raises `LiveStarError` where the folder takes no more.
        """
        self._path = folder / METRICS
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        fresh = self._path.with_name(METRICS + ".partial")
        try:
            fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            fresh.replace(self._path)
            self._file = self._path.open("a", encoding="utf-8")
            self._curves = Curves(folder / CURVES, step)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise self._failed(error) from error

    def write(self, record: Mapping[str, float | int]) -> None:
        """Appends a record with its `step`.  Raises `LiveStarError` where the disk takes no more."""
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            self._curves.write(record)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Closes the files; every line has been written out already."""
        for file in (self._file, self._curves):
            try:
                file.close()
            except OSError:  # what was buffered has failed before, and been told
                continue

    def _failed(self, error: OSError) -> LiveStarError:
        return LiveStarError(
            f"{self._path} cannot be written ({error.strerror}); make room there and give the same command again to go on"
        )


class Curves:
    """The same numbers in a file that TensorBoard shows."""

    def __init__(self, folder: Path, step: int) -> None:
        """Curves go on behind `step`; TensorBoard drops what earlier files say beyond it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("wb")
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._add(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, record: Mapping[str, float | int]) -> None:
        """Adds a point to every curve of the record."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in record.items() if name != "step"]
        self._add(Event(wall_time=time.time(), step=int(record["step"]), summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a run, up to the first line that is none: one that was cut off by a kill, or damaged."""
    records: list[dict[str, float]] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):  # of UTF-8 too
            break
        if not _is_record(record):
            break
        records.append(record)
    return records


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and type(value.get("step")) is int and all(type(v) in (int, float) for v in value.values())
