"""The project's own format: JSON lines that say when each event begins and ends, in seconds.  See docs/data.md.

A line is a video, {"video": "clip.mp4", "events": [{"begin": 0.0, "end": 3.5, "caption": "A dog runs in."}, ...]}, or one
event, {"begin": 0.0, "end": 3.5, "caption": ...}, of the video that "video" names or that lies beside the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from livestar.annotations.check import check_events, read_captions, read_seconds
from livestar.annotations.lines import parse_json, read_lines
from livestar.annotations.part import clip_events
from livestar.annotations.sources import find_sibling, read_source, shown_path
from livestar.annotations.types import AnnotatedVideo, Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from livestar.annotations.problems import Problems

MIN_FPS, MAX_FPS = 0.001, 240.0
"""Pictures per second of a folder."""

Object = dict[str, object]


@dataclass(slots=True)
class _Draft:
    """A video while its lines are read."""

    source: str | tuple[str, ...]
    line: int
    events: list[tuple[int, str, Event]] = field(default_factory=list)
    settings: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """`duration`, `fps` and `part` as far as they were given."""
    is_whole: bool = False
    """Whether one line holds all of its events."""


def read_events(path: Path, problems: Problems) -> tuple[AnnotatedVideo, ...]:
    """The videos of an events file, in the order of their first lines."""
    drafts: list[_Draft] = []
    loose: dict[str | tuple[str, ...], _Draft] = {}
    sibling: str | None = None
    for line, text in read_lines(path, problems):
        values = _read_object(text, line, problems)
        if values is None:
            continue
        if "video" in values:
            source = read_source(values["video"], path.parent, line, "video", problems)
        else:
            source = sibling = sibling or find_sibling(path, problems)
        if source is None:
            continue
        draft = loose.get(source) if "events" not in values else None
        if draft is None:
            draft = _Draft(source, line, is_whole="events" in values)
            drafts.append(draft)
            if not draft.is_whole:
                loose[source] = draft
        _read_settings(values, draft, line, problems)
        draft.events.extend(_read_events(values, line, problems))
    return tuple(_finish(draft, path, problems) for draft in drafts)


def write_events(videos: Iterable[AnnotatedVideo], folder: Path) -> Iterator[str]:
    """A line for every video, of a file in `folder`."""
    for video in videos:
        values: Object = {
            "video": shown_path(video.source, folder)
            if isinstance(video.source, str)
            else [shown_path(picture, folder) for picture in video.source]
        }
        if video.duration_s is not None:
            values["duration"] = video.duration_s
        if video.fps != 1.0:
            values["fps"] = video.fps
        if video.begin_s > 0 or video.end_s is not None:
            values["part"] = [video.begin_s, video.end_s]
        values["events"] = [
            {
                "begin": event.begin_s,
                "end": event.end_s,
                "caption": event.caption if len(event.captions) == 1 else list(event.captions),
            }
            for event in video.events
        ]
        yield json.dumps(values, ensure_ascii=False) + "\n"


def _read_object(text: str, line: int, problems: Problems) -> Object | None:
    try:
        values = parse_json(text)
    except ValueError as error:
        problems.add(line, "", str(error))
        return None
    if not isinstance(values, dict):
        problems.add(line, "", f"is a {type(values).__name__}; give an object with video and events")
        return None
    if "events" not in values and "begin" not in values:
        has = f"has only {', '.join(map(repr, list(values)[:5]))}" if values else "is empty"
        problems.add(line, "", f"{has}; give events, or begin, end and caption of one event")
        return None
    return values


def _read_settings(values: Mapping[str, object], draft: _Draft, line: int, problems: Problems) -> None:
    for key, read in (("duration", _read_duration), ("fps", _read_fps), ("part", _read_part)):
        if values.get(key) is None:
            continue
        setting = read(values[key], line, problems)
        if setting is None:
            continue
        if draft.settings.setdefault(key, setting) != setting:
            problems.add(line, key, "differs from an earlier line of the same video; give it once")


def _read_duration(value: object, line: int, problems: Problems) -> tuple[float, ...] | None:
    duration_s = read_seconds(value, line, "duration", problems)
    if duration_s == 0:
        problems.add(line, "duration", "is 0; give the video's length in seconds, or leave it out")
        return None
    return None if duration_s is None else (duration_s,)


def _read_fps(value: object, line: int, problems: Problems) -> tuple[float, ...] | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_FPS <= value <= MAX_FPS:
        problems.add(line, "fps", f"is no number from {MIN_FPS:g} to {MAX_FPS:g}; say how many pictures make a second")
        return None
    return (float(value),)


def _read_part(value: object, line: int, problems: Problems) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != 2:
        problems.add(line, "part", "is no pair; give [from, to] in seconds")
        return None
    begin_s = read_seconds(value[0], line, "part[0]", problems)
    if value[1] is None:
        return None if begin_s is None else (begin_s,)
    end_s = read_seconds(value[1], line, "part[1]", problems)
    if begin_s is None or end_s is None:
        return None
    if end_s <= begin_s:
        problems.add(line, "part", f"ends at {end_s:g} s, not after {begin_s:g} s; give [from, to] in seconds")
        return None
    return begin_s, end_s


def _read_events(values: Object, line: int, problems: Problems) -> Iterator[tuple[int, str, Event]]:
    events = values.get("events", [values])
    if not isinstance(events, list):
        problems.add(line, "events", f"is a {type(events).__name__}; give a list of events")
        return
    for place, item in enumerate(events):
        key = f"events[{place}]" if "events" in values else ""
        event = _read_event(item, line, key, problems)
        if event is not None:
            yield line, key, event


def _read_event(item: object, line: int, key: str, problems: Problems) -> Event | None:
    if not isinstance(item, dict):
        problems.add(line, key, f"is a {type(item).__name__}; give an object with begin, end and caption")
        return None
    prefix = f"{key}." if key else ""
    caption_keys = [name for name in ("caption", "captions") if name in item]
    missing = [name for name in ("begin", "end") if name not in item] + ([] if caption_keys else ["caption"])
    if missing:
        problems.add(line, f"{prefix}{missing[0]}", "is missing; every event needs begin, end and caption")
        return None
    if len(caption_keys) == 2:
        problems.add(line, f"{prefix}captions", "stands beside caption; keep one, a list for several paraphrases")
        return None
    begin_s = read_seconds(item["begin"], line, f"{prefix}begin", problems)
    end_s = read_seconds(item["end"], line, f"{prefix}end", problems)
    captions = read_captions(item[caption_keys[0]], line, f"{prefix}{caption_keys[0]}", problems)
    if begin_s is None or end_s is None or not captions:
        return None
    return Event(begin_s=begin_s, end_s=end_s, captions=captions)


def _finish(draft: _Draft, path: Path, problems: Problems) -> AnnotatedVideo:
    duration_s = draft.settings["duration"][0] if "duration" in draft.settings else None
    part = draft.settings.get("part", (0.0,))
    if duration_s is not None and part[0] >= duration_s:
        problems.add(draft.line, "part[0]", f"is {part[0]:g} s, but the video ends at {duration_s:g} s; give an earlier part")
    video = AnnotatedVideo(
        source=draft.source,
        events=check_events(draft.events, duration_s, problems),
        duration_s=duration_s,
        begin_s=part[0],
        end_s=part[1] if len(part) == 2 else None,
        fps=draft.settings["fps"][0] if "fps" in draft.settings else 1.0,
        file=str(path),
        line=draft.line,
    )
    return replace(video, events=clip_events(video.events, video.begin_s, video.end_s))
