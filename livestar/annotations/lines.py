"""Annotation files line by line, with bounds, and JSON without its loose ends.  Standard library only."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn

from livestar.errors import InvalidAnnotation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from livestar.annotations.problems import Problems

MAX_LINE_BYTES = 64 * 2**20
"""Longest line read: a day of events is a few MB."""

BOM = b"\xef\xbb\xbf"

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank, without its end.  Raises `InvalidAnnotation` for what is no text file."""
    number = 0
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise InvalidAnnotation(
                        f"{path}:{number}: the line is longer than {MAX_LINE_BYTES // 2**20} MiB; write one video per line"
                    )
                if number == 1:
                    raw = raw.removeprefix(BOM)
                try:
                    text = raw.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    problems.add(number, "", f"byte {error.start + 1} is not UTF-8; save the file as UTF-8")
                    continue
                if text:
                    yield number, text
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidAnnotation(f"{path} cannot be read ({reason}); give an annotation file") from error


def control_character(text: str) -> str | None:
    """The first character of a text that is none to be read: a line break, a control code, half of a pair; or None."""
    found = _CONTROL_CHARACTER.search(text)
    return found.group() if found else None


def parse_json(text: str) -> object:
    """The value of a JSON text.  Raises `ValueError` that says what is wrong; also for NaN, and a key that comes twice."""
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"no JSON: {error.msg} at {place}; mend or remove it") from error
    except RecursionError:
        raise ValueError("nested too deeply; give one object per line") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON knows; give a finite one")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} comes twice in one object; keep one")
    return values
