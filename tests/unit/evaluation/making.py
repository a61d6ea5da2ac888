"""Short ways to spell runs out by hand."""

from __future__ import annotations

from livestar.annotations.types import Event
from livestar.evaluation.runs import FrameVerdict, Response, VideoRun


def event(begin_s: float, end_s: float, *captions: str) -> Event:
    return Event(begin_s=begin_s, end_s=end_s, captions=captions or (f"from {begin_s:g}",))


def run(
    events: list[Event], said: list[float] | list[tuple[float, str]], *, num_frames: int = 12, fps: float = 1.0, name: str = "v"
) -> VideoRun:
    """A video of `num_frames` frames from 0 on, with responses at times, or at times with texts."""
    responses = tuple(Response(*item) if isinstance(item, tuple) else Response(item, f"said at {item:g}") for item in said)
    return VideoRun(
        name=name,
        events=tuple(events),
        frame_times_s=tuple(k / fps for k in range(num_frames)),
        responses=responses,
        frame_interval_s=1 / fps,
    )


def verdict(time_s: float, ratio: float | None, threshold: float) -> FrameVerdict:
    return FrameVerdict(
        time_s=time_s,
        is_response=ratio is None or ratio > threshold,
        perplexity=ratio,
        reference_perplexity=1.0,
        ratio=ratio,
        threshold=threshold,
    )
