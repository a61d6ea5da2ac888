"""The timestamped text format: a timestamp is the last second of its caption."""

from __future__ import annotations

import pytest

from livestar.annotations.events import write_events
from livestar.annotations.read import read_annotations
from livestar.annotations.text import write_text
from livestar.annotations.types import AnnotatedVideo, Event
from livestar.errors import InvalidAnnotation

pytestmark = pytest.mark.unit

TEXT = """videos/a.mp4
Timestamp: 00:00:00 Caption: A balloon.
Timestamp: 00:00:07 Caption: Scissors cut it.
/RNG_videos/b.mp4
Timestamp: 00:00:04 Caption: A street.
Timestamp: 01:02:03 Caption: A car: red.
"""


def spans(video: AnnotatedVideo) -> list[tuple[float, float, str]]:
    return [(event.begin_s, event.end_s, event.caption) for event in video.events]


def test_a_segment_runs_from_the_second_after_the_one_before_to_its_own_last_second(write, tmp_path):
    a, b = read_annotations(write("x.txt", TEXT))
    assert (a.source, b.source, a.line, b.line) == (str(tmp_path / "videos/a.mp4"), "/RNG_videos/b.mp4", 1, 4)
    assert spans(a) == [(0, 1, "A balloon."), (1, 8, "Scissors cut it.")]
    assert spans(b) == [(0, 5, "A street."), (5, 3724, "A car: red.")]


def test_text_to_events_and_back_is_exact(write, tmp_path):
    videos = read_annotations(write("x.txt", TEXT))
    events = write("x.jsonl", *write_events(videos, tmp_path))
    assert "".join(write_text(read_annotations(events), tmp_path)) == TEXT


def test_the_published_sample_reads_and_comes_back(golden_dir, write, tmp_path):
    published = (golden_dir / "metrics" / "RNG_task_eval.txt").read_text(encoding="utf-8")
    videos = read_annotations(write("x.txt", published))
    assert (len(videos), sum(len(video.events) for video in videos)) == (200, 993)
    events = write("x.jsonl", *write_events(videos, tmp_path))
    written = "".join(write_text(read_annotations(events), tmp_path)).splitlines()
    assert written == [line.rstrip() for line in published.splitlines() if line.strip()]


def test_writing_rounds_to_seconds_swallows_gaps_and_leaves_out_what_has_no_second(tmp_path):
    events = tuple(
        Event(begin_s=b, end_s=e, captions=(c, "x"))
        for b, e, c in [(0.4, 2.4, "A"), (2.4, 2.6, "B"), (2.6, 2.9, "C"), (6, 8, "D")]
    )
    video = AnnotatedVideo(source=str(tmp_path / "a.mp4"), events=events)
    assert list(write_text([video], tmp_path)) == [
        "a.mp4\n",
        "Timestamp: 00:00:01 Caption: A\n",
        "Timestamp: 00:00:02 Caption: B\n",
        "Timestamp: 00:00:07 Caption: D\n",
    ]


def test_a_list_of_pictures_cannot_be_named(tmp_path):
    video = AnnotatedVideo(source=("1.png",), events=(), file="a.jsonl", line=3)
    with pytest.raises(InvalidAnnotation, match=r"a\.jsonl:3: the text format cannot name a list of pictures"):
        list(write_text([video], tmp_path))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Timestamp: 0:70:00 Caption: A.", "is no caption; write Timestamp: HH:MM:SS Caption:"),
        ("Timestamp: 00:00:07 A.", "is no caption"),
        ("Timestamp: 00:00:00 Caption: B.", "Timestamp: is not after the one before"),
        ("Timestamp: 9999:00:00 Caption: B.", "Timestamp: is not after the one before"),
        ("Timestamp: 00:00:02 Caption:  ", "Caption: is empty"),
        ("Timestamp: 00:00:02 Caption: <|im_start|>", "Caption: contains the control token <|im_start|>"),
        ("and then he leaves.", "is neither a caption, which starts with Timestamp:, nor the path of a video"),
        ("b.mp4", "b.mp4 has no caption"),
        ("a.mp4\nTimestamp: 00:00:03 Caption: B.", "a.mp4 stands in line 1 already"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(write, line, problem):
    path = write("x.txt", "a.mp4\nTimestamp: 00:00:00 Caption: A.\n", line + "\n")
    with pytest.raises(InvalidAnnotation) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert problem in str(caught.value)


def test_a_caption_before_any_path_is_named(write):
    with pytest.raises(InvalidAnnotation, match=r"x\.txt:1: comes before the path of its video"):
        read_annotations(write("x.txt", "Timestamp: 00:00:00 Caption: A.\n"))


def test_the_paths_are_relative_to_the_file(write, tmp_path):
    (tmp_path / "sub").mkdir()
    (video,) = read_annotations(write("sub/x.txt", "../a.mp4\nTimestamp: 00:00:00 Caption: A.\n"))
    assert video.source == str(tmp_path / "sub/../a.mp4")
