"""Which video an annotation is about.  Standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from livestar.annotations.lines import control_character

if TYPE_CHECKING:
    from livestar.annotations.problems import Problems

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ogv", ".ogg", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".3gp",
    ".gif",
)  # fmt: skip
"""What the name of a video beside its annotation ends with; an annotation may name any other file itself."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""As `livestar.media` takes them for pictures."""
EVENTS_SUFFIX = ".events"
"""What stands before .jsonl in the name of an events file that lies beside its video."""
MAX_PICTURES = 10_000_000
"""Pictures of one video."""


def read_source(value: object, folder: Path, line: int, key: str, problems: Problems) -> str | tuple[str, ...] | None:
    """The path of a video or a folder of pictures, or the paths of pictures; None where a problem was noted.

    Relative paths are relative to `folder`.
    """
    if not isinstance(value, list):
        return _read_path(value, folder, line, key, problems)
    if not 1 <= len(value) <= MAX_PICTURES:
        problems.add(line, key, f"lists {len(value)} pictures; give 1 to {MAX_PICTURES}")
        return None
    paths = tuple(_read_path(item, folder, line, f"{key}[{place}]", problems) for place, item in enumerate(value))
    return tuple(path for path in paths if path is not None) if None not in paths else None


def find_sibling(file: Path, problems: Problems) -> str | None:
    """The video that an events file without a name of its video is about; None where a problem was noted.

    clip.events.jsonl is about clip.mp4 or the folder `clip`; events.jsonl about the only video in its folder.  A video that
    is not there is named by its stem, so that only who opens it misses it.
    """
    try:
        entries = sorted(file.parent.iterdir()) if file.parent.is_dir() else []
        stem = file.stem.removesuffix(EVENTS_SUFFIX)
        if file.stem.endswith(EVENTS_SUFFIX) or any(entry.stem == stem and is_video(entry) for entry in entries):
            found = [entry for entry in entries if (entry.stem == stem or entry.name == stem) and is_video(entry)]
            candidates, expected = found or [file.parent / stem], f"one video called {stem}"
        else:
            candidates, expected = [entry for entry in entries if is_video(entry)], "one video"
    except OSError as error:
        problems.add(0, "", f"its folder cannot be read ({error.strerror}); check its permissions")
        return None
    if len(candidates) == 1:
        return str(candidates[0])
    problems.add(0, "", f'names no "video", and beside it is not {expected} but {len(candidates)}; add the key to each line')
    return None


def is_video(path: Path) -> bool:
    """Whether a file has a video's name, or a folder holds a picture."""
    if path.is_dir():
        return any(entry.suffix.lower() in PICTURE_SUFFIXES for entry in path.iterdir())
    return path.suffix.lower() in VIDEO_SUFFIXES


def shown_path(source: str, folder: Path) -> str:
    """The path as a file in `folder` names it: relative where the video lies in or below that folder."""
    path = Path(source)
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except (ValueError, OSError):
        return str(path if path.is_absolute() else path.resolve())


def _read_path(value: object, folder: Path, line: int, key: str, problems: Problems) -> str | None:
    if not isinstance(value, str) or not value.strip():
        problems.add(line, key, "is no path; name a video file, a folder of pictures, or list pictures")
    elif "://" in value:
        problems.add(line, key, "is an address; fetch the video and name the file")
    elif control_character(value) is not None:
        problems.add(line, key, "contains a control character; name a file")
    else:
        return str(folder / value)
    return None
