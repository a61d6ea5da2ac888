"""What a policy said about a video, beside what happened in it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestar.media.sample import ROUNDING_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.annotations.types import Event

EPSILON_S = 1e-6
"""Times closer than this are the same."""


@dataclass(frozen=True, slots=True)
class Response:
    """The assistant spoke."""

    time_s: float
    """Media time of the frame that it spoke on, in seconds since the start of the video."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameVerdict:
    """What the gate made of one frame; see `livestar.types.Verdict`."""

    time_s: float
    is_response: bool
    perplexity: float | None
    reference_perplexity: float | None
    ratio: float | None
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRun:
    """One video, watched from the first of `frame_times_s` on."""

    name: str
    events: tuple[Event, ...]
    """What happens in the part that was watched, in order."""
    frame_times_s: tuple[float, ...]
    """Media time of every frame that was watched, in order, in seconds."""
    responses: tuple[Response, ...]
    """In order of time."""
    frame_interval_s: float = 1.0
    """Usual time from one frame to the next, in seconds."""
    verdicts: tuple[FrameVerdict, ...] = ()
    """One per frame where they are known, else empty."""
    source: str | tuple[str, ...] = ()
    """Where the pictures are, for a report; empty where they are not at hand."""
    pictures_per_s: float = 1.0
    """Pictures per second, where `source` is pictures."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know: frames lost, captions that came out empty."""

    @property
    def begin_s(self) -> float:
        """Time of the first frame, in seconds; 0 where there was none."""
        return self.frame_times_s[0] if self.frame_times_s else 0.0

    @property
    def end_s(self) -> float:
        """When the last frame has been shown, in seconds."""
        return self.frame_times_s[-1] + self.frame_interval_s if self.frame_times_s else 0.0

    def is_first_frame(self, time_s: float) -> bool:
        """Whether a time is that of the first frame, on which every policy that watches has to speak."""
        return time_s <= self.begin_s + ROUNDING_S

    def later_frames(self) -> tuple[float, ...]:
        """Times of all frames but the first."""
        return self.frame_times_s[1:]

    def later_responses(self) -> tuple[Response, ...]:
        """Responses on any frame but the first."""
        return tuple(response for response in self.responses if not self.is_first_frame(response.time_s))


def responses_in(run: VideoRun, event: Event) -> tuple[Response, ...]:
    """The responses given while an event lasts, in order (the released code's M_i); as `annotations.sampled.lies_in` has it."""
    first = bisect_left(run.responses, event.begin_s - ROUNDING_S, key=_time_of)
    stop = bisect_left(run.responses, event.end_s - ROUNDING_S, key=_time_of)
    return run.responses[first:stop]


def caption_in_force(run: VideoRun, time_s: float) -> str:
    """The newest caption at a time; empty where nothing was said yet."""
    count = bisect_right(run.responses, time_s + EPSILON_S, key=_time_of)
    return run.responses[count - 1].text if count else ""


def _time_of(response: Response) -> float:
    return response.time_s


def caption_of(run: VideoRun, event: Event) -> str:
    """What a run says about an event: its first response in it, as the released code matches, else the caption in force at
    the event's middle, which a viewer still reads.  Empty where neither is there."""
    matched = responses_in(run, event)
    return matched[0].text if matched else caption_in_force(run, (event.begin_s + event.end_s) / 2)


def response_rate(runs: Sequence[VideoRun]) -> float:
    """Responses per frame, first frames left out on both sides; 0 where there are no others."""
    num_frames = sum(len(run.later_frames()) for run in runs)
    return sum(len(run.later_responses()) for run in runs) / num_frames if num_frames else 0.0


def truth_rate(runs: Sequence[VideoRun]) -> float:
    """Boundaries per frame, as `response_rate` counts: the rate of one response for every event that begins while watching."""
    num_frames = sum(len(run.later_frames()) for run in runs)
    num_boundaries = sum(not run.is_first_frame(event.begin_s) for run in runs for event in run.events)
    return min(1.0, num_boundaries / num_frames) if num_frames else 0.0
