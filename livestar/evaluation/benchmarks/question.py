"""What StreamingBench and OVO-Bench ask.  Standard library only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROACTIVE_TOLERANCE_S = 2.0
"""How far from the right moment a proactive output may come (StreamingBench's own)."""
PROACTIVE_PATIENCE_S = 4.0
"""How long after the right moment the published code goes on asking."""
YES_NO = ("Yes", "No")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with choices, asked at a moment of a video; or one that waits for its moment."""

    id: str
    task: str
    video: Path
    text: str
    """What is asked, choices included where there are lettered ones."""
    choices: tuple[str, ...]
    """Possible answers, as the model would say them."""
    answer: int
    """Index of the right choice; for a proactive one that of yes."""
    begin_s: float = 0.0
    """Where watching begins."""
    time_s: float | None = None
    """When it is asked, in seconds of the video; None is the video's end."""
    due_s: float | None = None
    """For a proactive one the right moment, in seconds; it is asked each second from `begin_s` on, until yes is likelier."""


@dataclass(slots=True)
class Benchmark:
    """The questions of a file that can be asked, and why the others cannot."""

    name: str
    questions: list[Question] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason to number of questions."""
