"""Plain data that crosses package boundaries.  Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

StreamId = NewType("StreamId", str)
"""Names one live room being watched; unique within an engine."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One sampled picture of a stream."""

    index: int
    """Arrival number within the stream, from 1.  The model sees it as `Frame-<index>`."""
    pts_s: float
    """Media time in seconds since the start of the source."""
    image: NDArray[np.uint8]
    """RGB picture, [height, width, 3]."""


class Decision(StrEnum):
    """What the gate made of a frame."""

    RESPOND = "respond"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """What every event of a stream says: who, which frame, and when in the media."""

    stream_id: StreamId
    frame: int
    """Number of the frame that the event belongs to, from 1; 0 before the first frame."""
    time_s: float
    """Media time of that frame, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionDone(StreamEvent):
    """The assistant spoke: the whole text of a caption."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(StreamEvent):
    """What the gate decided on a frame, and the numbers that it decided on."""

    decision: Decision
    perplexity: float | None
    """Perplexity of the last caption against this frame; None where there was no caption yet."""
    reference_perplexity: float | None
    """Reference perplexity after this frame; None while there is no caption."""
    threshold: float
    """Ratio of perplexity to reference above which the gate responds (the paper's alpha)."""
    ratio: float | None
    """Perplexity over the reference before this frame; None where there was no caption yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(StreamEvent):
    """Something a watcher should know: frames dropped, packets skipped, a source lost and back, an empty caption."""

    code: str
    """Stable name, one of those listed in docs/events.md."""
    message: str
    """What happened and what to do, for a person."""
    count: int = 1
    """How many of them since the last notice of this code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded(StreamEvent):
    """The last event of a stream."""

    error: str | None = None
    """Why it ended early; None at the regular end of the source."""
