"""Which frame lies in which event."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.annotations.sampled import count_missed, events_of_frames, lies_in
from livestar.annotations.types import AnnotatedVideo, Event
from livestar.evaluation.runs import Response, VideoRun, responses_in
from livestar.evaluation.watching import seen_events

pytestmark = pytest.mark.unit


def test_a_frame_belongs_to_the_event_that_lasts_at_its_time():
    events = [Event(begin_s=b, end_s=e, captions=("x",)) for b, e in [(0, 1), (1, 1), (1, 2.5), (2.5, 2.6), (4, 5)]]
    assert events_of_frames(events, [0.0, 0.999, 1.0, 2.4, 2.4989, 2.59, 3.0, 3.9, 3.9986, 4.9, 5.0]) == [
        0,
        2,  # a container that rounds to the millisecond meant 1 s
        2,
        2,
        3,  # 1.1 ms early is within the rounding
        3,
        None,
        None,
        4,
        4,
        None,
    ]
    assert events_of_frames([], [0.0, 1.0]) == [None, None]


@pytest.mark.parametrize(("fps", "expected"), [(0.5, 2), (1.0, 1), (2.0, 1), (10.0, 0)])
def test_events_between_two_frames_are_missed(fps, expected):
    spans = [(0, 1), (1.1, 1.4), (3, 3.5), (4, 6)]
    events = tuple(Event(begin_s=b, end_s=e, captions=("x",)) for b, e in spans)
    assert count_missed(AnnotatedVideo(source="a.mp4", events=events), fps) == expected


@given(
    bounds=st.lists(st.integers(0, 400), min_size=2, max_size=20, unique=True).map(sorted),
    begin=st.integers(0, 60),
    fps=st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.3]),
)
def test_what_is_missed_is_what_no_frame_lies_in(bounds, begin, fps):
    begin_s = begin / 20
    spans = [(b / 20, e / 20) for b, e in pairwise(bounds) if b >= begin]
    events = tuple(Event(begin_s=b, end_s=e, captions=("x",)) for b, e in spans)
    times_s = [begin_s + number / fps for number in range(math.ceil(20 * fps) + 1)]
    seen = set(events_of_frames(events, times_s)) - {None}
    assert count_missed(AnnotatedVideo(source="a.mp4", events=events, begin_s=begin_s), fps) == len(events) - len(seen)


def test_training_and_metrics_agree_on_which_frame_lies_in_which_event() -> None:
    events = (Event(begin_s=0.0, end_s=3.0, captions=("a",)), Event(begin_s=3.0, end_s=3.4, captions=("b",)))
    times = (0.0, 1.0, 1.9999, 2.999, 3.9999)
    owners = events_of_frames(events, times)
    assert owners == [0, 0, 0, 1, None]
    assert [next((i for i, event in enumerate(events) if lies_in(time_s, event)), None) for time_s in times] == owners
    assert seen_events(events, times) == events
    run = VideoRun(name="v", events=events, frame_times_s=times, responses=tuple(Response(t, "x") for t in times))
    assert [len(responses_in(run, event)) for event in events] == [3, 1]
