"""A part of an annotated video, such as the first 60 percent.  Standard library only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from livestar.annotations.types import AnnotatedVideo, Event
from livestar.config import MAX_SECONDS
from livestar.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_SHARES = re.compile(rf"({_NUMBER})?:({_NUMBER})?")
_SECONDS = re.compile(rf"(?:({_NUMBER})s)?:(?:({_NUMBER})s)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """From where to where, in shares of a video or in seconds."""

    begin: float
    end: float
    """Infinite where it is the end of the video."""
    unit: Literal["share", "seconds"]

    def cut(self, video: AnnotatedVideo, duration_s: float) -> AnnotatedVideo:
        """The part of `video`, which lasts `duration_s` as a whole.

        Shares are of the part that the annotation itself names, where it names one; seconds count from the video's start.
        Raises `InvalidConfig` where nothing is left.
        """
        if self.unit == "share":
            return cut(video, self.begin, self.end, duration_s)
        return _cut_seconds(video, self.begin, min(self.end, duration_s), duration_s)


def parse_part(text: str) -> Part:
    """Reads `0:0.6`, `0.6:1`, `10s:70s`; a side that is left out is the start or the end.  Raises `InvalidConfig`."""
    shares, seconds = _SHARES.fullmatch(text.strip()), _SECONDS.fullmatch(text.strip())
    found = shares or seconds
    if found is None:
        raise InvalidConfig(f"part is {text!r}; give two shares such as 0:0.6, or seconds such as 10s:70s")
    begin, end = float(found[1] or 0), float(found[2] or (1 if shares else math.inf))
    longest = 1 if shares else math.inf
    if not (begin < end <= longest and begin <= MAX_SECONDS):
        raise InvalidConfig(f"part is {text!r}; give a begin before the end" + (", both from 0 to 1" if shares else ""))
    return Part(begin=begin, end=end, unit="share" if shares else "seconds")


def cut(video: AnnotatedVideo, begin_fraction: float, end_fraction: float, duration_s: float) -> AnnotatedVideo:
    """The stretch of `video` between two shares of its length (of its part, where it has one), with the events in it.

    `duration_s` is the length of the whole video.  Raises `InvalidConfig` for shares that are out of order.
    """
    if not 0 <= begin_fraction < end_fraction <= 1:
        raise InvalidConfig(f"part is {begin_fraction:g}:{end_fraction:g}; give a begin before the end, both from 0 to 1")
    length_s = (duration_s if video.end_s is None else min(video.end_s, duration_s)) - video.begin_s
    begin_s = video.begin_s + begin_fraction * length_s
    return _cut_seconds(video, begin_s, video.begin_s + end_fraction * length_s, duration_s)


def clip_events(events: Iterable[Event], begin_s: float, end_s: float | None) -> tuple[Event, ...]:
    """The events between two times, shortened to them; what is empty then is left out."""
    stop_s = math.inf if end_s is None else end_s
    if begin_s <= 0 and end_s is None:
        return tuple(events)
    clipped = (replace(event, begin_s=max(event.begin_s, begin_s), end_s=min(event.end_s, stop_s)) for event in events)
    return tuple(event for event in clipped if event.begin_s < event.end_s)


def _cut_seconds(video: AnnotatedVideo, begin_s: float, end_s: float, duration_s: float) -> AnnotatedVideo:
    begin_s = max(begin_s, video.begin_s)
    end_s = min(end_s, duration_s, math.inf if video.end_s is None else video.end_s)
    if begin_s >= end_s:
        raise InvalidConfig(
            f"{video.name} has nothing from {begin_s:g} s on: its part ends at {end_s:g} s; choose an earlier part"
        )
    reaches_end = end_s >= duration_s
    return replace(
        video,
        events=clip_events(video.events, begin_s, None if reaches_end else end_s),
        duration_s=duration_s,
        begin_s=begin_s,
        end_s=None if reaches_end else end_s,
    )
