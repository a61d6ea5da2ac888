"""The released training format: one sample per line, its pictures taken at one per second, its captions in a conversation.

    {"id": 0, "image": ["a_0000.jpg", ...], "height_list": [...], "width_list": [...],
     "conversations": [{"from": "human", "value": "<task>Frame-1: <image>\\n"}, {"from": "gpt", "value": "A hand ..."}, ...]}

Each human turn shows one picture (interleaved: the caption is repeated for every frame) or several (the public evaluation
file); the caption after it is true for them.  Consecutive turns with the same caption are one event.  Picture k stands for the
second from k to k+1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestar.annotations.check import check_events, read_captions
from livestar.annotations.lines import parse_json, read_lines
from livestar.annotations.sources import read_source
from livestar.annotations.types import AnnotatedVideo, Event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from livestar.annotations.problems import Problems

PICTURE = "<image>"
"""What stands for a picture in a human turn."""


def read_released(path: Path, problems: Problems, *, root: Path | None = None) -> tuple[AnnotatedVideo, ...]:
    """The samples of a file; paths of pictures are relative to `root`, or to the file."""
    folder = path.parent if root is None else root
    videos = []
    for line, text in read_lines(path, problems):
        try:
            values = parse_json(text)
        except ValueError as error:
            problems.add(line, "", str(error))
            continue
        video = _read_sample(values, path, folder, line, problems)
        if video is not None:
            videos.append(video)
    return tuple(videos)


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of the format, to be written."""

    number: int
    pictures: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    """Width and height of each picture, in pixels."""
    captions: Sequence[str]
    """The caption that is true at each picture."""

    def line(self, task: str) -> str:
        """The sample interleaved: one turn per picture; `task` is put before the first one."""
        turns = []
        for place, caption in enumerate(self.captions):
            shown = f"{task if place == 0 else ''}Frame-{place + 1}: {PICTURE}\n"
            turns += [{"from": "human", "value": shown}, {"from": "gpt", "value": caption}]
        values = {
            "id": self.number,
            "image": list(self.pictures),
            "height_list": [height for _, height in self.sizes],
            "width_list": [width for width, _ in self.sizes],
            "conversations": turns,
        }
        return json.dumps(values, ensure_ascii=False) + "\n"


def _read_sample(values: object, path: Path, folder: Path, line: int, problems: Problems) -> AnnotatedVideo | None:
    if not isinstance(values, dict):
        problems.add(line, "", f"is a {type(values).__name__}; give an object with image and conversations")
        return None
    missing = [key for key in ("image", "conversations") if key not in values]
    if missing:
        problems.add(line, missing[0], "is missing; every sample needs image and conversations")
        return None
    images = values["image"] if isinstance(values["image"], list) else [values["image"]]
    source = read_source(images, folder, line, "image", problems)
    segments = _read_conversation(values["conversations"], line, problems)
    if source is None or segments is None:
        return None
    for key in ("height_list", "width_list"):
        if key in values and not _is_sizes(values[key], len(images)):
            problems.add(line, key, f"is no list of {len(images)} sizes in pixels; give one for each picture, or leave it out")
            return None
    num_shown = segments[-1][2] if segments else 0
    if num_shown != len(images):
        problems.add(line, "conversations", f"shows {num_shown} pictures with {PICTURE}, but image lists {len(images)}")
        return None
    events = [
        (line, f"conversations[{turn}]", Event(begin_s=float(first), end_s=float(stop), captions=(caption,)))
        for turn, first, stop, caption in segments
    ]
    duration_s = float(len(images))
    return AnnotatedVideo(
        source=source,
        events=check_events(events, duration_s, problems),
        duration_s=duration_s,
        file=str(path),
        line=line,
    )


def _read_conversation(turns: object, line: int, problems: Problems) -> list[tuple[int, int, int, str]] | None:
    """For every run of one caption: the turn that it starts with, its first picture, the one behind its last, and its text."""
    if not isinstance(turns, list):
        problems.add(line, "conversations", f"is a {type(turns).__name__}; give a list of turns")
        return None
    segments: list[tuple[int, int, int, str]] = []
    num_shown = num_captioned = 0
    for place, turn in enumerate(turns):
        key = f"conversations[{place}]"
        speaker, value = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if speaker == "system" and place == 0:
            continue
        if speaker not in ("human", "gpt") or not isinstance(value, str):
            problems.add(line, key, 'is no turn; give {"from": "human" or "gpt", "value": text}')
            return None
        if speaker == "human":
            num_shown += value.count(PICTURE)
            continue
        is_same = bool(segments) and value.strip() == segments[-1][3]
        captions = (segments[-1][3],) if is_same else read_captions(value, line, f"{key}.value", problems)
        if not captions:
            return None
        if num_shown == num_captioned:
            problems.add(line, key, f"answers a turn without {PICTURE}; this is no streaming caption, take the sample out")
            return None
        if is_same:
            segments[-1] = (*segments[-1][:2], num_shown, captions[0])
        else:
            segments.append((place, num_captioned, num_shown, captions[0]))
        num_captioned = num_shown
    if num_shown > num_captioned:
        problems.add(line, "conversations", "ends with a picture that has no caption; add the caption, or leave the picture out")
        return None
    if not segments:
        problems.add(line, "conversations", "holds no caption; add one, or remove the line")
        return None
    return segments


def _is_sizes(value: object, num_pictures: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == num_pictures
        and all(isinstance(size, int) and not isinstance(size, bool) and 0 < size <= 1_000_000 for size in value)
    )
