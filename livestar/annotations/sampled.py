"""Events as a sampled video shows them: which frame lies in which event."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from livestar.media.sample import ROUNDING_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.annotations.types import AnnotatedVideo, Event


def events_of_frames(events: Sequence[Event], times_s: Sequence[float]) -> list[int | None]:
    """For each frame the place of the event that lasts at its time, None in a gap.

    A frame is taken for up to 1.5 ms later than it is, since containers round their times.
    """
    owners: list[int | None] = []
    event = 0
    for time_s in times_s:
        late_s = time_s + ROUNDING_S
        while event < len(events) and events[event].end_s <= late_s:
            event += 1
        owners.append(event if event < len(events) and events[event].begin_s <= late_s else None)
    return owners


def count_missed(video: AnnotatedVideo, fps: float) -> int:
    """Events so short that no frame lies in them when the video's part is sampled at `fps`."""
    begins = (math.ceil((event.begin_s - video.begin_s - ROUNDING_S) * fps) / fps for event in video.events)
    return sum(
        max(first_s, 0.0) + video.begin_s + ROUNDING_S >= event.end_s for first_s, event in zip(begins, video.events, strict=True)
    )
