"""How long a video lasts."""

from __future__ import annotations

from pathlib import Path

from livestar.config import MediaConfig
from livestar.errors import SourceNotFound, SourceUnreadable
from livestar.media.decode import VideoInput
from livestar.media.source import Source, SourceKind, classify, list_pictures


def measure_duration(source: str | tuple[str, ...], fps: float = 1.0) -> float:
    """Seconds that a video lasts, by reading it to its end without decoding; pictures last 1 / `fps` each.

    Raises `SourceError` for a source that is missing, damaged, cut off or live.
    """
    if not isinstance(source, str):
        for path in source:
            if not Path(path).is_file():
                raise SourceNotFound(f"there is no picture {path!r}; get it again, or leave it out of the annotation")
        return len(source) / fps
    classified = classify(source)
    if classified.kind is SourceKind.PICTURES:
        return len(pictures_of(classified)) / fps
    with VideoInput.open(classified, MediaConfig(pace="fast")) as video:
        if video.is_live:
            raise SourceUnreadable(f"{classified.name} is live and has no length; record it to a file")
        return video.measure()


def pictures_of(source: Source) -> list[Path]:
    """The pictures of a folder in order, at least one.  Raises `SourceUnreadable`."""
    try:
        paths = list_pictures(source.location)
    except OSError as error:
        raise SourceUnreadable(f"{source.name} may not be read ({error.strerror}); check its permissions") from error
    if not paths:
        raise SourceUnreadable(f"{source.name} is a folder without pictures; put png, jpg, webp or bmp files in it")
    return paths
