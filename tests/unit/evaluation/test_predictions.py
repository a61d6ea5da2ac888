"""Prediction files and truth: both forms, and every mistake named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livestar.errors import InvalidRequest
from livestar.evaluation.predictions import load_runs, parse_time_s, read_truth

pytestmark = pytest.mark.unit

TRUTH = """data/One.mp4
Timestamp: 00:00:00 Caption: A room.
Timestamp: 00:00:04 Caption: A dog runs in.

data/two.MP4
Timestamp: 00:00:02 Caption: A street.
Timestamp: 00:01:00 Caption: Cars.
"""
ONE = '{"video_id": "One", "result": [["00:00:03", "a dog"], ["00:00:00", "a room"]]}'
TWO = '{"video_id": "two", "result": []}'


def write(folder: Path, predictions: str, truth: str = TRUTH) -> tuple[Path, Path]:
    (folder / "said.jsonl").write_text(predictions, encoding="utf-8")
    (folder / "truth.txt").write_text(truth, encoding="utf-8")
    return folder / "said.jsonl", folder / "truth.txt"


def test_released_predictions_and_truth(tmp_path: Path) -> None:
    one, two = load_runs(*write(tmp_path, f"{ONE}\n\n{TWO}\n"))
    assert [(r.time_s, r.text) for r in one.responses] == [(0.0, "a room"), (3.0, "a dog")]
    assert [(e.begin_s, e.end_s, e.caption) for e in one.events] == [(0, 1, "A room."), (1, 5, "A dog runs in.")]
    assert [(e.begin_s, e.end_s) for e in two.events] == [(2, 3), (3, 61)]  # the first segment is its own second
    assert list(one.frame_times_s) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert two.responses == ()


def test_a_part_that_the_truth_names_begins_a_stream(tmp_path: Path) -> None:
    events = [{"begin": 0, "end": 4, "caption": "a"}, {"begin": 4, "end": 9, "caption": "b"}]
    truth = tmp_path / "truth.jsonl"
    truth.write_text(json.dumps({"video": "one.mp4", "events": events, "part": [3, 8]}))
    said = write(tmp_path, '{"video_id": "one", "result": [["3", "x"], ["5", "y"]]}')[0]
    (run,) = load_runs(said, truth, fps=2.0)
    assert (run.frame_times_s[0], run.frame_times_s[-1]) == (3.0, 7.5)
    assert [(e.begin_s, e.end_s) for e in run.events] == [(3, 4), (4, 8)]
    assert [response.time_s for response in run.later_responses()] == [5.0]


def test_the_truths_order_of_lines_does_not_matter_as_in_the_released_code(tmp_path: Path) -> None:
    shuffled = "a.mp4\nTimestamp: 00:00:04 Caption: B.\nTimestamp: 00:00:01 Caption: A.\n"
    run, _ = read_truth(write(tmp_path, "", shuffled)[1])[0]
    assert [event.caption for event in run.events] == ["A.", "B."]


def test_events_of_a_watch_are_matched_by_the_id_that_watch_gives(tmp_path: Path) -> None:
    lines = [
        {"type": "caption", "stream_id": "one", "frame": 1, "time_s": 0.0, "text": "a room"},
        {
            "type": "verdict",
            "stream_id": "one",
            "frame": 1,
            "time_s": 0.0,
            "decision": "respond",
            "ratio": None,
            "threshold": 1.03,
        },
        {"type": "notice", "stream_id": "one", "frame": 1, "time_s": 0.0, "code": "x", "message": "y", "count": 1},
        {"type": "verdict", "stream_id": "one", "frame": 2, "time_s": 0.5, "decision": "silent", "ratio": 1.0, "threshold": 1.03},
        {"type": "end", "stream_id": "one", "frame": 2, "time_s": 0.5, "error": None},
        {"type": "end", "stream_id": "two", "frame": 0, "time_s": 0.0, "error": None},
    ]
    one, two = load_runs(*write(tmp_path, "\n".join(map(json.dumps, lines))))
    assert [response.text for response in one.responses] == ["a room"]
    assert list(one.frame_times_s) == [0.0, 0.5]
    assert one.frame_interval_s == 0.5
    assert [verdict.is_response for verdict in one.verdicts] == [True, False]
    assert len(two.frame_times_s) == 61  # no verdicts: one frame per second


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (f"{ONE}\n{TWO}\n{ONE}", "line 3: video 'One' is there already, on line 1"),
        (f"{ONE}", "says nothing about 'two' of"),
        (f'{ONE}\n{TWO}\n{{"video_id": "three", "result": []}}', "line 3: video 'three' is not in"),
        (f"{ONE}\n{{", "line 2 is not JSON"),
        (f"{ONE}\n[1]", "line 2: expected an object"),
        (f'{ONE}\n{{"video_id": "two"}}', "line 2: expected"),
        (f'{ONE}\n{{"video_id": "two", "result": [["00:00:01"]]}}', "line 2: a result is"),
        (f'{ONE}\n{{"video_id": "two", "result": [["1h", "x"]]}}', "line 2: the time is '1h'"),
        ('{"video": "two"}', "line 1 is neither a prediction"),
        ('{"type": "caption", "stream_id": "one", "time_s": -1, "text": "x"}', "line 1: time_s is -1"),
        ('{"type": "caption", "stream_id": "one", "time_s": NaN, "text": "x"}', "line 1: time_s is nan"),
        ('{"type": "caption", "stream_id": "one", "time_s": 1}', "line 1: text is None"),
        ('{"type": "end", "stream_id": "one", "time_s": 1, "error": "cut off"}', "line 1: stream 'one' ended early ('cut off')"),
        (
            '{"type": "caption", "stream_id": "one", "time_s": 2, "text": "x"}\n'
            '{"type": "caption", "stream_id": "one", "time_s": 1, "text": "x"}',
            "line 2: stream 'one' goes back in time",
        ),
    ],
)
def test_what_is_wrong_with_predictions_is_named_with_file_and_line(tmp_path: Path, lines: str, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        load_runs(*write(tmp_path, lines))
    assert expected in str(raised.value)
    assert "said.jsonl" in str(raised.value)


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ("Timestamp: 00:00:01 Caption: A.", "line 1: a caption before any video"),
        ("a.mp4\n", "line 1: video 'a' has no captions"),
        ("a.mp4\nTimestamp: 00:00:01 Caption: A.\na.mp4\n", "line 3: video 'a' is there twice"),
        ("a.mp4\nTimestamp: 00:00:01 Caption: A.\nTimestamp: 00:00:01 Caption: B.", "line 3: video 'a' has two captions"),
        ("a.mp4\nTimestamp: one Caption: A.", "line 2: expected"),
        ("a.mp4\nTimestamp: 00:00:01 Caption: ", "line 2: expected"),
        ("", "names no video"),
        ("a.mp4\nTimestamp: 999999:00:01 Caption: A.", "too long to score"),
    ],
)
def test_what_is_wrong_with_the_truth_is_named_with_file_and_line(tmp_path: Path, truth: str, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        load_runs(*write(tmp_path, ONE, truth))
    assert expected in str(raised.value)
    assert "truth.txt" in str(raised.value)


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    said, truth = write(tmp_path, ONE)
    with pytest.raises(InvalidRequest, match="there is no file"):
        load_runs(tmp_path / "none.jsonl", truth)
    said.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="is not UTF-8"):
        load_runs(said, truth)


@pytest.mark.parametrize(("text", "seconds"), [("01:02:03", 3723), ("02:03", 123), ("7", 7), (" 00:00:01.5 ", 1.5)])
def test_times_are_read_as_the_released_code_does(text: str, seconds: float) -> None:
    assert parse_time_s(text, "here") == seconds


@pytest.mark.parametrize("text", ["", "1:2:3:4", "a", "-1", "1:-2", "1e3", "٣", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected HH:MM:SS"):
        parse_time_s(text, "here")
