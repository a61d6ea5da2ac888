"""Every error that LiveStar raises on purpose.  Standard library only.

    LiveStarError
    ├── InvalidRequest        the caller asked for something that cannot be: fix it and ask again
    │   ├── InvalidConfig     a setting, option or configuration file
    │   ├── InvalidCheckpoint a model directory that does not hold together
    │   └── InvalidAnnotation a file that says what happens in a video, and says it wrongly
    ├── SourceError           the video, not the caller
    │   ├── SourceNotFound    nothing there, or it cannot be reached
    │   ├── SourceUnreadable  there, but not a video that can be decoded
    │   ├── SourceTruncated   ended before its own length says
    │   └── SourceStalled     nothing came for too long
    ├── StreamNotFound        no such stream in this engine
    ├── AtCapacity            no room now; `retryable`
    ├── ContextFull           a stream's context budget is used up and nothing may be evicted
    └── EngineFailed          our fault

A message names the thing and the remedy, so that it can be shown to a person as it is.
"""

from __future__ import annotations


class LiveStarError(Exception):
    """Root of the tree."""

    retryable = False
    """Whether the same request may succeed later without being changed."""


class InvalidRequest(LiveStarError, ValueError):
    """The caller asked for something that cannot be."""


class InvalidConfig(InvalidRequest):
    """A setting is out of range or contradicts another."""


class InvalidCheckpoint(InvalidRequest):
    """A model directory is incomplete, damaged, or not of the kind that its config says."""


class InvalidAnnotation(InvalidRequest):
    """An annotation file cannot be read, or says what cannot be; the message names file, line, key and remedy."""


class SourceError(LiveStarError):
    """A video source failed; other streams are not concerned."""


class SourceNotFound(SourceError):
    """There is nothing at this path or address."""

    retryable = True


class SourceUnreadable(SourceError):
    """What is there cannot be decoded as video."""


class SourceTruncated(SourceError):
    """The source ended before its own length says."""


class SourceStalled(SourceError):
    """The source delivered nothing for longer than allowed."""

    retryable = True


class StreamNotFound(InvalidRequest):
    """The engine has no stream of that id."""


class AtCapacity(LiveStarError):
    """There is no room for this now; ask again later."""

    retryable = True


class ContextFull(LiveStarError):
    """A stream's context budget is used up and its retention rule may evict nothing."""


class EngineFailed(LiveStarError):
    """The engine itself failed; this is a defect."""
