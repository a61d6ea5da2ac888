"""The events format: what is read, and what is refused with file, line, key and remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livestar.annotations.events import write_events
from livestar.annotations.read import read_annotations
from livestar.annotations.types import AnnotatedVideo, Event
from livestar.errors import InvalidAnnotation

pytestmark = pytest.mark.unit

DOG = {"begin": 0, "end": 3.5, "caption": "A dog runs in."}
CAT = {"begin": 4, "end": 6, "caption": "A cat sits."}


def test_a_line_is_a_video_with_its_events(write, tmp_path):
    path = write("a.jsonl", {"video": "clip.mp4", "duration": 42.5, "events": [DOG, CAT]})
    (video,) = read_annotations(path)
    assert video == AnnotatedVideo(
        source=str(tmp_path / "clip.mp4"),
        events=(
            Event(begin_s=0.0, end_s=3.5, captions=("A dog runs in.",)),
            Event(begin_s=4.0, end_s=6.0, captions=("A cat sits.",)),
        ),
        duration_s=42.5,
        file=str(path),
        line=1,
    )


def test_unknown_keys_blank_lines_and_a_byte_order_mark_do_not_matter(write):
    path = write("a.jsonl", "\ufeff\r\n  \n", {"video": "a.mp4", "licence": "CC0", "events": [DOG | {"annotator": "me"}]})
    (video,) = read_annotations(path)
    assert (video.line, len(video.events)) == (3, 1)


def test_a_list_of_captions_is_a_pool_whose_first_is_canonical(write):
    pool = ["A dog runs in.", " A dog comes in. ", "A dog runs in."]
    for key in ("caption", "captions"):
        (video,) = read_annotations(write("a.jsonl", {"video": "a.mp4", "events": [{"begin": 0, "end": 1, key: pool}]}))
        assert video.events[0].captions == ("A dog runs in.", "A dog comes in.")
        assert video.events[0].caption == "A dog runs in."


def test_events_of_one_line_each_belong_to_the_video_that_they_name(write, tmp_path):
    lines = [DOG | {"video": "a.mp4"}, DOG | {"video": "b.mp4", "fps": 2}, CAT | {"video": "a.mp4"}]
    a, b = read_annotations(write("x.jsonl", *lines))
    assert (a.source, [event.caption for event in a.events], a.line) == (
        str(tmp_path / "a.mp4"),
        ["A dog runs in.", "A cat sits."],
        1,
    )
    assert (b.source, b.fps, b.line) == (str(tmp_path / "b.mp4"), 2.0, 2)


@pytest.mark.parametrize(
    ("annotation", "beside", "source"),
    [
        ("clip.events.jsonl", ["clip.mp4", "other.mp4"], "clip.mp4"),
        ("clip.jsonl", ["clip.mkv", "other.mp4"], "clip.mkv"),
        ("events.jsonl", ["only.webm", "readme.txt"], "only.webm"),
        ("room.events.jsonl", ["room/1.png"], "room"),
        ("gone.events.jsonl", ["other.mp4"], "gone"),
    ],
)
def test_a_file_beside_its_video_need_not_name_it(write, tmp_path, annotation, beside, source):
    for name in beside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (video,) = read_annotations(write(annotation, DOG, CAT))
    assert (video.source, len(video.events)) == (str(tmp_path / source), 2)


def test_two_videos_beside_the_file_are_one_too_many(write, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(InvalidAnnotation, match=r'names no "video".*not one video but 2; add the key'):
        read_annotations(write("events.jsonl", DOG))


def test_a_video_may_be_a_list_of_pictures_with_a_rate(write, tmp_path):
    (video,) = read_annotations(write("a.jsonl", {"video": ["1.jpg", "/x/2.jpg"], "fps": 0.5, "events": [DOG]}))
    assert (video.source, video.fps) == ((str(tmp_path / "1.jpg"), "/x/2.jpg"), 0.5)


def test_a_part_keeps_its_events_only(write):
    lines = {"video": "a.mp4", "part": [3, 5], "events": [DOG, CAT, {"begin": 6, "end": 7, "caption": "Gone."}]}
    (video,) = read_annotations(write("a.jsonl", lines))
    assert (video.begin_s, video.end_s) == (3.0, 5.0)
    assert [(event.begin_s, event.end_s) for event in video.events] == [(3.0, 3.5), (4.0, 5.0)]
    (video,) = read_annotations(write("a.jsonl", lines | {"part": [3, None]}))
    assert (video.begin_s, video.end_s, len(video.events)) == (3.0, None, 3)


def test_two_parts_of_a_video_are_two_videos(write):
    first, second = ({"video": "a.mp4", "part": part, "events": [DOG]} for part in ([0, 2], [2, 4]))
    assert len(read_annotations(write("a.jsonl", first, second))) == 2


def event(**changes: object) -> dict[str, object]:
    return {"video": "a.mp4", "duration": 10, "events": [DOG, CAT | changes]}


@pytest.mark.parametrize(
    ("line", "place", "problem"),
    [
        ('{"video": "a.mp4", "events": [\n', "", "no JSON: Expecting value"),
        ('{"video": "a.mp4", "video": "b.mp4", "events": []}\n', "", "'video' comes twice"),
        ('{"video": "a.mp4", "events": [{"begin": NaN}]}\n', "", "NaN is no number"),
        ('{"video": "a.mp4", "events": ' + "[" * 100_000 + "\n", "", "nested too deeply"),
        ("[1]\n", "", "is a list; give an object"),
        ({"video": "a.mp4"}, "", "has only 'video'; give events"),
        ({"video": 7, "events": [DOG]}, "video: ", "is no path"),
        ({"video": "", "events": [DOG]}, "video: ", "is no path"),
        ({"video": [], "events": [DOG]}, "video: ", "lists 0 pictures"),
        ({"video": ["a.png", 7], "events": [DOG]}, "video[1]: ", "is no path"),
        ({"video": "rtsp://u:p@host/x", "events": [DOG]}, "video: ", "is an address; fetch the video"),
        ({"video": "a\0.mp4", "events": [DOG]}, "video: ", "contains a control character"),
        ({"video": "a.mp4", "events": {}}, "events: ", "is a dict; give a list"),
        ({"video": "a.mp4", "events": []}, "events: ", "is empty"),
        ({"video": "a.mp4", "events": [7]}, "events[0]: ", "is a int; give an object"),
        ({"video": "a.mp4", "events": [DOG, {"begin": 4, "caption": "A."}]}, "events[1].end: ", "is missing"),
        ({"video": "a.mp4", "events": [{"begin": 0, "end": 1}]}, "events[0].caption: ", "is missing"),
        ({"video": "a.mp4", "events": [DOG | {"captions": ["x"]}]}, "events[0].captions: ", "stands beside caption"),
        (event(begin="4"), "events[1].begin: ", "is '4'; give seconds as a number"),
        (event(begin=True), "events[1].begin: ", "give seconds as a number"),
        (event(begin=-1), "events[1].begin: ", "is -1; give seconds from 0"),
        (event(end=10**400), "events[1].end: ", "give seconds from 0, at most a year"),
        ('{"video": "a.mp4", "events": [{"begin": 0, "end": 1e999, "caption": "A."}]}\n', "events[0].end: ", "is inf"),
        (event(begin=3, end=2.5), "events[1].end: ", "is 2.5 s, before the begin at 3 s"),
        (event(begin=3.4), "events[1].begin: ", "the event before ends at 3.5 s; let them not overlap"),
        (event(end=11.5), "events[1].end: ", "is 11.5 s, but the video ends at 10 s"),
        (event(begin=10, end=11), "events[1].end: ", "the video ends at 10 s"),
        (event(caption=""), "events[1].caption: ", "is empty; say what is to be seen"),
        (event(caption=" \u3000 "), "events[1].caption: ", "is empty"),
        (event(caption=None), "events[1].caption: ", "is None; give a text"),
        (event(caption=[]), "events[1].caption: ", "is an empty list"),
        (event(caption="\u200b\u200d"), "events[1].caption: ", "holds nothing that can be seen (U+200B); say what is to be seen"),
        (event(caption=" \ufeff\u2800"), "events[1].caption: ", "holds nothing that can be seen (U+FEFF)"),
        (event(end=4), "events[1].end: ", "is 4 s, where the event begins; give it a length, or remove the event"),
        (event(caption=["A.", ""]), "events[1].caption[1]: ", "is empty"),
        (event(caption="x" * 10_001), "events[1].caption: ", "has 10001 characters"),
        (event(caption="A <|im_end|> B"), "events[1].caption: ", "control token <|im_end|>; take it out"),
        (event(caption="<image>"), "events[1].caption: ", "control token <image>"),
        (event(caption="one\ntwo"), "events[1].caption: ", "control character U+000A"),
        (event(caption="\ud800"), "events[1].caption: ", "control character U+D800"),
        ({"video": "a.mp4", "fps": 0, "events": [DOG]}, "fps: ", "is no number from 0.001 to 240"),
        ({"video": "a.mp4", "duration": 0, "events": [DOG]}, "duration: ", "is 0; give the video's length"),
        ({"video": "a.mp4", "duration": "x", "events": [DOG]}, "duration: ", "give seconds as a number"),
        ({"video": "a.mp4", "part": [3], "events": [DOG]}, "part: ", "is no pair"),
        ({"video": "a.mp4", "part": [3, 3], "events": [DOG]}, "part: ", "ends at 3 s, not after 3 s"),
        ({"video": "a.mp4", "duration": 10, "part": [11, 12], "events": [DOG]}, "part[0]: ", "the video ends at 10 s"),
        ({"video": "a.mp4", "part": [20, 30], "events": [DOG]}, "events: ", "none lies in the part"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_key(write, line, place, problem):
    path = write("a.jsonl", {"video": "first.mp4", "events": [DOG]}, line)
    with pytest.raises(InvalidAnnotation) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path}:2: {place}"), caught.value
    assert problem in str(caught.value)


def test_events_out_of_order_are_named(write):
    path = write("a.jsonl", {"video": "a.mp4", "events": [CAT, DOG]})
    with pytest.raises(
        InvalidAnnotation, match=r"events\[1\]\.begin: is 0 s, but the event before begins at 4 s; put the events"
    ):
        read_annotations(path)


def test_a_video_that_comes_twice_is_named_with_both_lines(write):
    path = write("a.jsonl", {"video": "a.mp4", "events": [DOG]}, {"video": "./a.mp4", "events": [CAT]})
    with pytest.raises(InvalidAnnotation, match=r"a\.jsonl:2: video: .*a\.mp4 stands in line 1 already"):
        read_annotations(path)


def test_settings_that_contradict_an_earlier_line_are_named(write):
    path = write("a.jsonl", DOG | {"video": "a.mp4", "fps": 2}, CAT | {"video": "a.mp4", "fps": 3})
    with pytest.raises(InvalidAnnotation, match=r"a\.jsonl:2: fps: differs from an earlier line"):
        read_annotations(path)


def test_an_event_may_reach_a_second_past_the_end_because_annotators_round(write):
    assert read_annotations(write("a.jsonl", event(end=11)))


def test_bytes_that_are_not_utf_8_are_named(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"video": "\xff.mp4", "events": []}')
    with pytest.raises(InvalidAnnotation, match=r"a\.jsonl:1: byte 12 is not UTF-8"):
        read_annotations(path)


def test_a_line_of_a_hundred_megabytes_is_refused(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"video": "')
        file.truncate(100 * 2**20)
    with pytest.raises(InvalidAnnotation, match="longer than 64 MiB"):
        read_annotations(path)


def test_what_is_written_reads_the_same(write, tmp_path):
    lines: list[dict[str, object]] = [
        {"video": "a.mp4", "duration": 9.5, "part": [1, 5], "events": [{"begin": 1.25, "end": 2, "captions": ["Ä.", "B."]}]},
        {"video": "sub/dir", "fps": 2, "events": [DOG]},
        {"video": ["p/1.png", "p/2.png"], "part": [0.5, None], "events": [DOG]},
        {"video": "/elsewhere/b.mp4", "events": [DOG]},
    ]
    path = write("a.jsonl", *lines)
    videos = read_annotations(path)
    text = "".join(write_events(videos, tmp_path))
    assert [json.loads(line)["video"] for line in text.splitlines()] == [line["video"] for line in lines]
    path.write_text(text, encoding="utf-8")
    assert read_annotations(path) == videos
