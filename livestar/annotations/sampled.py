"""Events as a sampled video shows them: which frame lies in which event."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from livestar.media.sample import ROUNDING_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.annotations.types import AnnotatedVideo, Event


def lies_in(time_s: float, event: Event) -> bool:
    """Whether a frame lies in an event: the one definition, for training and for metrics.

    A frame is taken for up to 1.5 ms later than it is, since containers round their times.
    """
    return event.begin_s <= time_s + ROUNDING_S < event.end_s


def events_of_frames(events: Sequence[Event], times_s: Sequence[float]) -> list[int | None]:
    """For each frame the place of the event that it lies in (see `lies_in`), None in a gap."""
    owners: list[int | None] = []
    event = 0
    for time_s in times_s:
        while event < len(events) and events[event].end_s <= time_s + ROUNDING_S:
            event += 1
        owners.append(event if event < len(events) and lies_in(time_s, events[event]) else None)
    return owners


def count_missed(video: AnnotatedVideo, fps: float) -> int:
    """Events so short that no frame lies in them when the video's part is sampled at `fps`."""
    begins = (math.ceil((event.begin_s - video.begin_s - ROUNDING_S) * fps) / fps for event in video.events)
    return sum(
        max(first_s, 0.0) + video.begin_s + ROUNDING_S >= event.end_s for first_s, event in zip(begins, video.events, strict=True)
    )
