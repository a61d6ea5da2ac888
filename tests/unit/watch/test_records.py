"""Events as JSON lines."""

from __future__ import annotations

import json
import math

import pytest

from livestar.records import to_line, to_record
from livestar.types import CaptionDone, Decision, Notice, StreamEnded, StreamEvent, StreamId, Verdict

pytestmark = pytest.mark.unit

DOOR = StreamId("door")


def verdict(perplexity: float) -> Verdict:
    return Verdict(
        stream_id=DOOR,
        frame=2,
        time_s=1.0,
        decision=Decision.RESPOND,
        perplexity=perplexity,
        reference_perplexity=2.0,
        threshold=1.03,
        ratio=1.25,
    )


@pytest.mark.parametrize(
    ("event", "own"),
    [
        (CaptionDone(stream_id=DOOR, frame=2, time_s=1.0, text="hi"), {"type": "caption", "text": "hi"}),
        (
            verdict(2.5),
            {
                "type": "verdict",
                "decision": "respond",
                "perplexity": 2.5,
                "reference_perplexity": 2.0,
                "ratio": 1.25,
                "threshold": 1.03,
            },
        ),
        (
            Notice(stream_id=DOOR, frame=2, time_s=1.0, code="looped", message="again", count=3),
            {"type": "notice", "code": "looped", "message": "again", "count": 3},
        ),
        (StreamEnded(stream_id=DOOR, frame=2, time_s=1.0), {"type": "end", "error": None}),
        (StreamEnded(stream_id=DOOR, frame=2, time_s=1.0, error="lost"), {"type": "end", "error": "lost"}),
    ],
    ids=["caption", "verdict", "notice", "end", "error"],
)
def test_a_record_is_flat_and_complete(event: StreamEvent, own: dict[str, object]) -> None:
    assert to_record(event) == {"stream_id": "door", "frame": 2, "time_s": 1.0} | own
    assert json.loads(to_line(event)) == to_record(event)


def test_a_record_is_one_line_whatever_the_text() -> None:
    line = to_line(CaptionDone(stream_id=DOOR, frame=1, time_s=0.0, text='two\nlines\r\x1b[31m "雨"'))
    assert line.count("\n") == 1
    assert line.endswith("}\n")
    assert "\x1b" not in line
    assert "雨" in line


def test_times_are_given_in_microseconds_at_most() -> None:
    assert to_record(StreamEnded(stream_id=DOOR, frame=1, time_s=1 / 3))["time_s"] == 0.333333


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_line(verdict(value))


def test_an_event_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="StreamEvent has no record"):
        to_record(StreamEvent(stream_id=DOOR, frame=1, time_s=0.0))
