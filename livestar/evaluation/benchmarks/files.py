"""Finding a benchmark's videos, and reading its files, with errors that name them."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from livestar.annotations.sources import VIDEO_SUFFIXES
from livestar.errors import InvalidAnnotation

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FIELD_CHARS = 2**20
"""Longest field of a CSV file."""


class VideoFolder:
    """The videos below a folder, by their paths and names."""

    def __init__(self, root: Path) -> None:
        """Raises `InvalidAnnotation` where it is no folder that can be read."""
        if not root.is_dir():
            raise InvalidAnnotation(f"there is no folder {str(root)!r}; give the folder that holds the benchmark's videos")
        self.root = root
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not path.name.startswith("._"):
                self._by_stem[path.stem].append(path)

    def find(self, name: str) -> Path | None:
        """The video that a benchmark calls `name`: at that path below the folder, at the end of that path, or by its stem."""
        parts = [part for part in PurePosixPath(name).parts if part not in (".", "..", "/")]
        for first in range(len(parts)):
            path = self.root.joinpath(*parts[first:])
            if path.is_file():
                return path
        return self.find_stem(PurePosixPath(name).stem)

    def find_stem(self, stem: str) -> Path | None:
        """The only video of that stem."""
        found = self._by_stem.get(stem, [])
        return found[0] if len(found) == 1 else None

    def find_sample(self, group: str, number: str) -> Path | None:
        """sample_N.mp4 or sample_N/video.mp4; of several the one whose path has the group's name in it."""
        found = [*self._by_stem.get(f"sample_{number}", [])]
        found += [path for path in self._by_stem.get("video", []) if path.parent.name == f"sample_{number}"]
        if len(found) > 1:
            found = [path for path in found if _plain(group) in _plain(str(path.relative_to(self.root)))]
        return found[0] if len(found) == 1 else None


def read_json(path: Path) -> object:
    """A JSON file.  Raises `InvalidAnnotation`."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidAnnotation(f"{path} cannot be read ({error.strerror}); give the benchmark's annotation file") from error
    except (ValueError, RecursionError) as error:
        raise InvalidAnnotation(f"{path} is not JSON ({error}); get it again") from error


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Where each row is, and the row.  Raises `InvalidAnnotation`, also where a column is missing."""
    csv.field_size_limit(MAX_FIELD_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise InvalidAnnotation(f"{path} has no column {missing[0]!r}; is it the benchmark's annotation file?")
            return [
                (f"{path}, line {reader.line_num}", {key: value or "" for key, value in row.items() if isinstance(key, str)})
                for row in reader
            ]
    except OSError as error:
        raise InvalidAnnotation(f"{path} cannot be read ({error.strerror}); give the benchmark's annotation file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidAnnotation(f"{path} is not CSV ({error}); get it again") from error


def text_of(record: object, key: str, where: str) -> str:
    """A string of a record.  Raises `InvalidAnnotation`."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise InvalidAnnotation(f"{where}: {key} is {str(value)[:80]!r}; expected a text")
    return value.strip()


def number_of(record: object, key: str, where: str) -> float:
    """A number from 0 of a record.  Raises `InvalidAnnotation`."""
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e7:
        raise InvalidAnnotation(f"{where}: {key} is {str(value)[:80]!r}; expected a number from 0")
    return float(value)


def list_of(record: object, key: str, where: str) -> list[object]:
    """A list of a record, not empty.  Raises `InvalidAnnotation`."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, list) or not value:
        raise InvalidAnnotation(f"{where}: {key} is {str(value)[:80]!r}; expected a list")
    return value


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
