"""What is wrong with an annotation file: raised at once, or collected to be shown together.  Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from livestar.errors import InvalidAnnotation, LiveStarError

if TYPE_CHECKING:
    from livestar.annotations.types import AnnotatedVideo

E = TypeVar("E", bound=LiveStarError)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    file: str
    line: int
    """Line in the file, from 1; 0 for the file as a whole."""
    key: str
    """What in that line, such as `events[2].end`; empty for the line as a whole."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class Problems:
    """Takes problems as they are found.  Strict by default: the first one is raised."""

    def __init__(self, file: str, *, max_kept: int | None = None) -> None:
        """`max_kept` collects instead: that many are kept, and all are counted."""
        self.file = file
        self._max_kept = max_kept
        self.kept: list[Problem] = []
        self.num_found = 0

    def add(self, line: int, key: str, message: str) -> None:
        """Notes a problem.  Raises `InvalidAnnotation` unless problems are collected."""
        problem = Problem(self.file, line, key, message)
        if self._max_kept is None:
            raise InvalidAnnotation(str(problem))
        self.num_found += 1
        if len(self.kept) < self._max_kept:
            self.kept.append(problem)


def named(error: E, video: AnnotatedVideo) -> E:
    """The same error, with the place of the video in its annotation."""
    if not video.file or str(error).startswith(f"{video.file}:{video.line}: "):
        return error
    return type(error)(f"{video.file}:{video.line}: {error}")
