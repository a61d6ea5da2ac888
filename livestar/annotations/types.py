"""An annotated video: what happens in it, and when.  Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A stretch of a video during which one caption is true."""

    begin_s: float
    """First moment, in seconds since the start of the video."""
    end_s: float
    """First moment after it, in seconds; never before `begin_s`."""
    captions: tuple[str, ...]
    """Paraphrases of one another, at least one; the first is the canonical one."""

    @property
    def caption(self) -> str:
        """The canonical caption."""
        return self.captions[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedVideo:
    """A video and its events, in order and without overlap; between them no caption is known to be true."""

    source: str | tuple[str, ...]
    """Path of a file or a folder of pictures, or the paths of pictures in order."""
    events: tuple[Event, ...]
    duration_s: float | None = None
    """Length of the whole video, in seconds, where the annotation says it."""
    begin_s: float = 0.0
    """Start of the part to use, in seconds; a stream of this video begins there."""
    end_s: float | None = None
    """End of the part to use, in seconds; None is the end of the video."""
    fps: float = 1.0
    """Pictures per second, where `source` is pictures."""
    file: str = ""
    """The annotation file."""
    line: int = 0
    """Line in that file, from 1."""

    @property
    def name(self) -> str:
        """What to call the video in a report."""
        return self.source if isinstance(self.source, str) else self.source[0]
