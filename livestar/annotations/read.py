"""Reading annotations of any format, told apart by what is in the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from livestar.annotations.events import read_events
from livestar.annotations.lines import BOM, parse_json
from livestar.annotations.meta import read_meta
from livestar.annotations.problems import Problems
from livestar.annotations.released import read_released
from livestar.annotations.text import TIMESTAMP, read_text
from livestar.errors import InvalidAnnotation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from livestar.annotations.types import AnnotatedVideo

AnnotationFormat = Literal["events", "text", "released", "meta"]

FORMATS = "JSON lines with events, the released JSONL or its meta JSON, or text with Timestamp: lines (docs/data.md)"
HEAD_BYTES = 64 * 2**10
"""How much of a file is looked at to tell its format."""


def read_annotations(path: Path) -> tuple[AnnotatedVideo, ...]:
    """The annotated videos of a file, at least one.

    Raises `InvalidAnnotation`, which names file, line, key and remedy, for the first thing that is wrong.  Videos are not opened.
    """
    return read_with_problems(path, Problems(str(path)))


def read_with_problems(path: Path, problems: Problems) -> tuple[AnnotatedVideo, ...]:
    """As `read_annotations`, with what is wrong noted in `problems`, and only what is right returned."""
    path = Path(path)
    read = {"events": read_events, "text": read_text, "released": read_released, "meta": read_meta}
    file_format = detect_format(path)
    videos = read[file_format](path, problems)
    if file_format != "meta":
        check_unique(videos, problems)
    if not videos and not problems.num_found:
        problems.add(0, "", "holds no video; add one, or leave the file out")
    for video in videos:
        if not video.events and not problems.num_found:
            problems.add(video.line, "events", "is empty, or none lies in the part; annotate at least one event")
    return videos


def detect_format(path: Path) -> AnnotationFormat:
    """Which format a file is in.  Raises `InvalidAnnotation` where it is in none, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES).removeprefix(BOM).decode("utf-8", "replace").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidAnnotation(f"{path} cannot be read ({reason}); give an annotation file") from error
    if not head:
        raise InvalidAnnotation(f"{path} is empty; give {FORMATS}")
    if head.startswith("{"):
        return _json_format(head)
    if any(line.startswith(TIMESTAMP) for line in head.splitlines()):
        return "text"
    raise InvalidAnnotation(f"{path} is in no format that is known here; give {FORMATS}")


def check_unique(videos: Iterable[AnnotatedVideo], problems: Problems) -> None:
    """Notes videos that come twice, unless their parts do not overlap."""
    parts: dict[str | tuple[str, ...], list[AnnotatedVideo]] = {}
    for video in videos:
        others = parts.setdefault(video.source, [])
        twin = next((other for other in others if _overlap(video, other)), None)
        if twin is not None:
            problems.add(video.line, "video", f"{video.name} stands in line {twin.line} already; join them, or remove one")
        others.append(video)


def _overlap(one: AnnotatedVideo, other: AnnotatedVideo) -> bool:
    starts_before_end = other.end_s is None or one.begin_s < other.end_s
    return starts_before_end and (one.end_s is None or other.begin_s < one.end_s)


def _json_format(head: str) -> AnnotationFormat:
    first = head.partition("\n")[0]
    try:
        values = parse_json(first)
    except ValueError:
        # Broken, cut off, or the first of several lines of one object: the keys tell what it was meant to be.
        if any(key in first for key in ('"conversations"', '"image"', '"height_list"')):
            return "released"
        return "meta" if '"annotation"' in head and '"conversations"' not in head else "events"
    if isinstance(values, dict):
        if "conversations" in values:
            return "released"
        if values and all(isinstance(value, dict) and "annotation" in value for value in values.values()):
            return "meta"
    return "events"
