"""The timestamped text format of the published sample: a line with the video's path, then its captions.

    videos/a.mp4
    Timestamp: 00:00:00 Caption: A hand holds a balloon.
    Timestamp: 00:00:07 Caption: Scissors cut the balloon.

A timestamp t is the last whole second of its caption's segment, at one frame per second: segment 0 is frames 0..t0, segment i
is frames t(i-1)+1..t(i).  Frame k stands for the second from k to k+1, so segment i lasts from t(i-1)+1 to t(i)+1 seconds: here
the hand from 0 to 1 s, the scissors from 1 to 8 s.  Source: section E.3 of the published pipeline, `get_formatted_data.py`.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from livestar.annotations.check import check_events, read_captions
from livestar.annotations.lines import read_lines
from livestar.annotations.sources import VIDEO_SUFFIXES, read_source, shown_path
from livestar.annotations.types import AnnotatedVideo, Event
from livestar.config import MAX_SECONDS
from livestar.errors import InvalidAnnotation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from livestar.annotations.problems import Problems

TIMESTAMP = "Timestamp:"
"""What a line with a caption starts with."""

_LINE = re.compile(r"Timestamp:\s*([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])\s+Caption:(.*)")


def read_text(path: Path, problems: Problems) -> tuple[AnnotatedVideo, ...]:
    """The videos of a text file.  The last event of each ends with its own second, whether or not the video goes on."""
    drafts: list[tuple[int, str, list[tuple[int, str, Event]]]] = []
    next_s = 0
    for line, text in read_lines(path, problems):
        if not text.startswith(TIMESTAMP):
            source = _read_path(text, path.parent, line, problems)
            if source is not None:
                drafts.append((line, source, []))
                next_s = 0
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            problems.add(line, "", "is no caption; write Timestamp: HH:MM:SS Caption: what is to be seen")
            continue
        if not drafts:
            problems.add(line, "", "comes before the path of its video; put that in a line before")
            continue
        last_s = 3600 * int(found[1]) + 60 * int(found[2]) + int(found[3])
        if last_s < next_s or last_s >= MAX_SECONDS:
            problems.add(line, "Timestamp", "is not after the one before; put the lines of a video in order, one for each second")
            continue
        captions = read_captions(found[4], line, "Caption", problems)
        if captions:
            drafts[-1][2].append((line, "", Event(begin_s=float(next_s), end_s=float(last_s + 1), captions=captions)))
        next_s = last_s + 1
    for line, source, events in drafts:
        if not events:
            problems.add(line, "", f"{PurePath(source).name} has no caption; add lines that start with {TIMESTAMP}, or remove it")
    return tuple(
        AnnotatedVideo(source=source, events=check_events(events, None, problems), file=str(path), line=line)
        for line, source, events in drafts
    )


def write_text(videos: Iterable[AnnotatedVideo], folder: Path) -> Iterator[str]:
    """The lines of a file in `folder`, with ends rounded to whole seconds.

    The format knows no gaps and no paraphrases: a gap becomes part of the event after it, and an event that is over before its
    first whole second is left out.  Raises `InvalidAnnotation` for a list of pictures, which it cannot name.
    """
    for video in videos:
        if not isinstance(video.source, str):
            raise InvalidAnnotation(
                f"{video.file}:{video.line}: the text format cannot name a list of pictures; convert to events instead"
            )
        yield shown_path(video.source, folder) + "\n"
        for event, last_s in whole_seconds(video):
            clock = f"{last_s // 3600:02d}:{last_s // 60 % 60:02d}:{last_s % 60:02d}"
            yield f"{TIMESTAMP} {clock} Caption: {event.caption}\n"


def whole_seconds(video: AnnotatedVideo) -> Iterator[tuple[Event, int]]:
    """Events that have a whole second of their own, each with its last one."""
    before_s = -1
    for event in video.events:
        last_s = round(event.end_s) - 1
        if last_s > before_s:
            yield event, last_s
            before_s = last_s


def _read_path(text: str, folder: Path, line: int, problems: Problems) -> str | None:
    if "/" not in text and not text.lower().endswith(VIDEO_SUFFIXES):
        problems.add(line, "", f"is neither a caption, which starts with {TIMESTAMP}, nor the path of a video; mend or remove it")
        return None
    source = read_source(text, folder, line, "", problems)
    return source if isinstance(source, str) else None
