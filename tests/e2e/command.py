"""Runs the shipped command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = (str(Path(sys.executable).parent / "livestar"),)
"""As installed beside this Python."""
TIMEOUT_S = 60.0

Record = dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """One thread, no colours, and lines that are not wrapped in the middle of a message."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "300", **more}


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def livestar(*arguments: object, command: Sequence[str] = SCRIPT, env: dict[str, str] | None = None) -> Finished:
    """Runs it to its end.  No traceback may ever be shown."""
    words = [*command, *(str(argument) for argument in arguments)]
    done = subprocess.run(words, capture_output=True, timeout=TIMEOUT_S, env=environment(**(env or {})))
    finished = Finished(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in finished.said, finished.said
    return finished


def watch(model: Path, *arguments: object, max_new_tokens: int = 6, pace: str = "fast") -> Finished:
    """`livestar watch` with short captions, as fast as it goes."""
    return livestar("watch", "--model", model, "--pace", pace, "--max-new-tokens", max_new_tokens, *arguments)


def watch_records(model: Path, *arguments: object, status: int = 0, **more: Any) -> list[Record]:
    """The JSON lines of a watch that ends with `status`, verdicts included."""
    finished = watch(model, "--trace", "--output", "-", *arguments, **more)
    assert finished.status == status, finished.err
    return read_records(finished.out)


def read_records(text: str) -> list[Record]:
    """Every line, as strict JSON: neither NaN nor Infinity."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def of_stream(records: Sequence[Record], stream_id: str) -> list[Record]:
    """One stream's records, without its id, so that streams can be compared."""
    own = [record for record in records if record["stream_id"] == stream_id]
    return [{key: value for key, value in record.items() if key != "stream_id"} for record in own]


def of_type(records: Sequence[Record], kind: str, where: Callable[[Record], bool] = lambda record: True) -> list[Record]:
    return [record for record in records if record["type"] == kind and where(record)]


def captions(records: Sequence[Record]) -> list[tuple[int, str]]:
    return [(record["frame"], record["text"]) for record in of_type(records, "caption")]


def errors(records: Sequence[Record]) -> dict[str, str | None]:
    """How every stream ended."""
    return {record["stream_id"]: record["error"] for record in of_type(records, "end")}


def assert_same_verdicts(got: Sequence[Record], wanted: Sequence[Record], tolerance: float) -> None:
    """Same captions and decisions; perplexities within `tolerance`, relative."""
    assert captions(got) == captions(wanted)
    pairs = list(zip(of_type(got, "verdict"), of_type(wanted, "verdict"), strict=True))
    assert pairs
    for left, right in pairs:
        assert (left["frame"], left["decision"]) == (right["frame"], right["decision"])
        for key in ("perplexity", "reference_perplexity"):
            assert is_close(left[key], right[key], tolerance), (key, left, right)


def is_close(left: float | None, right: float | None, tolerance: float) -> bool:
    if left is None or right is None:
        return left is right
    return abs(left - right) <= tolerance * abs(right)
