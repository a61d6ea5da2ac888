"""Parts of annotated videos."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.annotations import AnnotatedVideo, Event, Part, cut, parse_part
from livestar.errors import InvalidConfig

pytestmark = pytest.mark.unit

VIDEO = AnnotatedVideo(
    source="a.mp4",
    events=tuple(Event(begin_s=b, end_s=e, captions=(c,)) for b, e, c in [(0, 4, "A"), (4, 6, "B"), (8, 11, "C")]),
    file="x.jsonl",
    line=3,
)


def spans(video: AnnotatedVideo) -> list[tuple[float, float, str]]:
    return [(event.begin_s, event.end_s, event.caption) for event in video.events]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:0.6", (0, 0.6, "share")),
        (" 0.6:1 ", (0.6, 1, "share")),
        (":0.5", (0, 0.5, "share")),
        (".5:", (0.5, 1, "share")),
        (":", (0, 1, "share")),
        ("10s:70s", (10, 70, "seconds")),
        ("10.5s:", (10.5, math.inf, "seconds")),
        (":1e2s", (0, 100, "seconds")),
    ],
)
def test_a_part_is_read(text, expected):
    part = parse_part(text)
    assert (part.begin, part.end, part.unit) == expected


@pytest.mark.parametrize(
    "text", ["", "0.6", "0:2", "0.6:0.6", "1:0", "10s:70", "70s:10s", "a:b", "-1:1", "0:1:2", "nan:1", "1e999s:"]
)
def test_what_is_no_part_is_refused_with_examples(text):
    with pytest.raises(InvalidConfig, match="part is "):
        parse_part(text)


def test_a_cut_shortens_events_and_drops_those_outside():
    first, rest = cut(VIDEO, 0, 0.5, 10), cut(VIDEO, 0.5, 1, 10)
    assert (first.begin_s, first.end_s, first.duration_s, spans(first)) == (0, 5, 10, [(0, 4, "A"), (4, 5, "B")])
    assert (rest.begin_s, rest.end_s, spans(rest)) == (5, None, [(5, 6, "B"), (8, 11, "C")])
    assert (first.file, first.line) == ("x.jsonl", 3)


def test_a_cut_of_a_cut_is_a_share_of_the_part():
    video = cut(cut(VIDEO, 0.2, 0.8, 10), 0.5, 1, 10)
    assert (video.begin_s, video.end_s, spans(video)) == (5, 8, [(5, 6, "B")])


def test_seconds_count_from_the_start_of_the_video_and_stay_within_its_part():
    video = Part(begin=1, end=5, unit="seconds").cut(cut(VIDEO, 0.3, 1, 10), 10)
    assert (video.begin_s, video.end_s) == (3, 5)
    assert parse_part("5s:").cut(VIDEO, 10).end_s is None


def test_nothing_left_is_refused():
    with pytest.raises(InvalidConfig, match="has nothing from 20 s on"):
        parse_part("20s:30s").cut(VIDEO, 10)
    with pytest.raises(InvalidConfig, match="begin before the end"):
        cut(VIDEO, 0.5, 0.5, 10)


@given(st.floats(0.01, 0.99), st.floats(1, 1e5))
def test_two_parts_of_a_video_share_no_moment_and_miss_none(share, duration_s):
    events = tuple(Event(begin_s=k * duration_s / 7, end_s=(k + 1) * duration_s / 7, captions=("A",)) for k in range(7))
    video = AnnotatedVideo(source="a.mp4", events=events)
    first, rest = cut(video, 0, share, duration_s), cut(video, share, 1, duration_s)
    assert first.end_s == rest.begin_s
    seconds = sum(event.end_s - event.begin_s for part in (first, rest) for event in part.events)
    assert seconds == pytest.approx(duration_s)
