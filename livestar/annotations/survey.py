"""What a file of annotations holds, and all that is wrong with it: the table behind `livestar data check`."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from livestar.annotations.check import past_end
from livestar.annotations.problems import Problems
from livestar.annotations.read import detect_format, read_with_problems
from livestar.errors import InvalidConfig, LiveStarError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from livestar.annotations.types import AnnotatedVideo

MAX_KEPT = 20
"""Problems of one file that are shown; all are counted."""


@dataclass(slots=True)
class Survey:
    """One file: its numbers, and what is wrong."""

    file: str
    format: str = "?"
    videos: tuple[AnnotatedVideo, ...] = ()
    durations_s: dict[int, float] = field(default_factory=dict)
    """Length of each video, by its place, where it was measured."""
    problems: list[str] = field(default_factory=list)
    """At most `MAX_KEPT` of each kind."""
    num_wrong: int = 0
    """Problems of the annotation."""
    num_bad_videos: int = 0
    """Videos that are missing or cannot be read."""
    num_missed: int | None = None
    """Events that no frame lies in, where a frame rate was given."""

    @property
    def num_events(self) -> int:
        """Events of all videos."""
        return sum(len(video.events) for video in self.videos)

    @property
    def minutes(self) -> float:
        """Length of all videos, of their parts where they have any; to the last event where that is all that is known."""
        return sum(self._seconds(place, video) for place, video in enumerate(self.videos)) / 60

    @property
    def num_captions(self) -> int:
        """Captions of all events, paraphrases too."""
        return sum(len(event.captions) for video in self.videos for event in video.events)

    @property
    def words_per_caption(self) -> float:
        """Mean number of words in a caption."""
        words = [len(caption.split()) for video in self.videos for event in video.events for caption in event.captions]
        return statistics.fmean(words) if words else 0.0

    @property
    def median_event_s(self) -> float:
        """Median length of an event, in seconds."""
        lengths = [event.end_s - event.begin_s for video in self.videos for event in video.events]
        return statistics.median(lengths) if lengths else 0.0

    def _seconds(self, place: int, video: AnnotatedVideo) -> float:
        last_s = video.events[-1].end_s if video.events else 0.0
        known_s = self.durations_s.get(place, video.duration_s or last_s)
        return max(0.0, (known_s if video.end_s is None else min(video.end_s, known_s)) - video.begin_s)


def survey(
    path: Path, *, media: bool = False, fps: float | None = None, on_video: Callable[[int, int], None] | None = None
) -> Survey:
    """Reads a file and finds all that is wrong.

    `media` opens every video, decodes its first frame and reads it to its end; `on_video` is called with the videos done so far
    and in all.  `fps` counts the events that sampling at that rate would miss.
    """
    found = Survey(str(path))
    problems = Problems(str(path), max_kept=MAX_KEPT)
    try:
        found.format = detect_format(path)
        found.videos = read_with_problems(path, problems)
    except LiveStarError as error:
        found.problems.append(str(error))
        found.num_wrong += 1
    if media:
        _survey_media(found, problems, on_video)
    found.num_wrong += problems.num_found
    found.problems[:0] = [str(problem) for problem in sorted(problems.kept, key=lambda problem: problem.line)]
    if fps is not None:
        from livestar.annotations.sampled import count_missed

        found.num_missed = sum(count_missed(video, fps) for video in found.videos)
    return found


def _survey_media(found: Survey, problems: Problems, on_video: Callable[[int, int], None] | None) -> None:
    for place, video in enumerate(found.videos):
        try:
            duration_s = found.durations_s[place] = _measure(video)
        except (SourceError, InvalidConfig) as error:
            found.num_bad_videos += 1
            if found.num_bad_videos <= MAX_KEPT:
                found.problems.append(str(error))
        else:
            late = past_end(video, duration_s)
            if late is not None:
                problems.add(
                    video.line,
                    f"events[{late[0]}].end",
                    f"is {late[1].end_s:g} s, but {video.name} lasts {duration_s:g} s; shorten or remove the event",
                )
        if on_video is not None:
            on_video(place + 1, len(found.videos))


def _measure(video: AnnotatedVideo) -> float:
    from livestar.annotations.duration import measure_duration
    from livestar.annotations.footage import read_frames
    from livestar.annotations.problems import named

    try:
        duration_s = measure_duration(video.source, video.fps)
        next(iter(read_frames(video, fps=1.0, image_size=None)), None)
    except (SourceError, InvalidConfig) as error:
        raise named(error, video) from error
    return duration_s
