"""The released JSONL, interleaved and not, and its meta file."""

from __future__ import annotations

import copy
import json

import pytest

from livestar.annotations.meta import write_meta
from livestar.annotations.read import read_annotations
from livestar.annotations.released import Sample
from livestar.annotations.types import AnnotatedVideo
from livestar.errors import InvalidAnnotation

pytestmark = pytest.mark.unit


def human(*numbers: int, task: str = "") -> dict[str, str]:
    return {"from": "human", "value": task + "".join(f"Frame-{number}: <image>\n" for number in numbers)}


def gpt(caption: str) -> dict[str, str]:
    return {"from": "gpt", "value": caption}


def sample(*turns: dict[str, str], num_pictures: int, name: str = "a") -> dict[str, object]:
    return {
        "id": 0,
        "image": [f"{name}_{place * 25:04d}.jpg" for place in range(num_pictures)],
        "height_list": [360] * num_pictures,
        "width_list": [640] * num_pictures,
        "conversations": list(turns),
    }


INTERLEAVED = sample(
    human(1, task="Describe.\n"), gpt("A."), human(2), gpt("A."), human(3), gpt("B."), human(4), gpt("A."), num_pictures=4
)
SEGMENTS = sample(human(1, 2, task="Describe.\n"), gpt("A."), human(3), gpt("B."), human(4), gpt("A."), num_pictures=4)


def spans(video: AnnotatedVideo) -> list[tuple[float, float, str]]:
    return [(event.begin_s, event.end_s, event.caption) for event in video.events]


@pytest.mark.parametrize("line", [INTERLEAVED, SEGMENTS], ids=["interleaved", "a turn per segment"])
def test_equal_captions_one_behind_the_other_are_one_event(write, tmp_path, line):
    (video,) = read_annotations(write("x.jsonl", line))
    assert video.source == tuple(str(tmp_path / f"a_{number:04d}.jpg") for number in (0, 25, 50, 75))
    assert (video.fps, video.line) == (1.0, 1)
    assert spans(video) == [(0, 2, "A."), (2, 3, "B."), (3, 4, "A.")]


def test_a_system_turn_a_single_picture_and_missing_sizes_are_accepted(write):
    line = {"image": "a.jpg", "conversations": [{"from": "system", "value": "x"}, human(1), gpt("A.")]}
    (video,) = read_annotations(write("x.jsonl", line))
    assert spans(video) == [(0, 1, "A.")]


def test_what_is_written_is_interleaved_and_reads_the_same(write):
    written = Sample(7, ["a_0000.jpg", "a_0001.jpg", "a_0002.jpg"], [(640, 360)] * 3, ["A.", "A.", "Ö."]).line("Task.\n")
    values = json.loads(written)
    assert values["id"] == 7 and values["height_list"] == [360] * 3 and values["width_list"] == [640] * 3
    assert [turn["value"] for turn in values["conversations"]] == [
        "Task.\nFrame-1: <image>\n",
        "A.",
        "Frame-2: <image>\n",
        "A.",
        "Frame-3: <image>\n",
        "Ö.",
    ]
    (video,) = read_annotations(write("x.jsonl", written))
    assert spans(video) == [(0, 2, "A."), (2, 3, "Ö.")]


def changed(**changes: object) -> dict[str, object]:
    return copy.deepcopy(INTERLEAVED) | changes


@pytest.mark.parametrize(
    ("line", "place", "problem"),
    [
        ('{"image": ["a.jpg"], "conversations"\n', "", "no JSON"),
        ("7\n", "", "is a int; give an object"),
        ({"image": ["a.jpg"]}, "conversations: ", "is missing"),
        ({"conversations": []}, "image: ", "is missing"),
        (
            changed(image=["a.jpg"], height_list=[1], width_list=[1]),
            "conversations: ",
            "shows 4 pictures with <image>, but image lists 1",
        ),
        (changed(image=[7] * 4), "image[0]: ", "is no path"),
        (changed(height_list=[360]), "height_list: ", "is no list of 4 sizes"),
        (changed(width_list=[0, 1, 1, 1]), "width_list: ", "is no list of 4 sizes"),
        (changed(conversations={}), "conversations: ", "is a dict"),
        (changed(conversations=[]), "conversations: ", "holds no caption"),
        (changed(conversations=[7]), "conversations[0]: ", "is no turn"),
        (changed(conversations=[{"from": "robot", "value": "A."}]), "conversations[0]: ", "is no turn"),
        (changed(conversations=[human(1), gpt("")]), "conversations[1].value: ", "is empty"),
        (changed(conversations=[human(1), gpt("<|im_end|>")]), "conversations[1].value: ", "control token"),
        (changed(conversations=[human(1), gpt("A."), gpt("B.")]), "conversations[2]: ", "answers a turn without <image>"),
        (changed(conversations=[human(1), gpt("A."), human(2, 3, 4)]), "conversations: ", "a picture that has no caption"),
        (changed(), "video: ", "stands in line 1 already"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_key(write, line, place, problem):
    path = write("x.jsonl", INTERLEAVED, line)
    with pytest.raises(InvalidAnnotation) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(f"{path}:2: {place}"), caught.value
    assert problem in str(caught.value)


def test_a_line_longer_than_what_tells_the_format_is_still_told(write):
    num = 5000
    turns = [turn for number in range(num) for turn in (human(number), gpt("A."))]
    (video,) = read_annotations(write("x.jsonl", sample(*turns, num_pictures=num)))
    assert spans(video) == [(0, num, "A.")]


def meta(**changes: object) -> dict[str, object]:
    return {"root": "pictures", "annotation": "x.jsonl", "data_augment": False, "repeat_time": 1, "length": 2} | changes


def test_a_meta_file_names_sets_with_their_root_and_how_often_they_are_used(write, tmp_path):
    write("x.jsonl", INTERLEAVED, sample(human(1), gpt("C."), num_pictures=1, name="c"))
    path = write("meta.json", {"once": meta(), "twice": meta(repeat_time=2, root="."), "half": meta(repeat_time=0.5)})
    videos = read_annotations(path)
    assert [(video.source[0].removeprefix(str(tmp_path)), video.line) for video in videos] == [
        ("/pictures/a_0000.jpg", 1),
        ("/pictures/c_0000.jpg", 2),
        ("/a_0000.jpg", 1),
        ("/c_0000.jpg", 2),
        ("/a_0000.jpg", 1),
        ("/c_0000.jpg", 2),
        ("/pictures/a_0000.jpg", 1),
    ]
    assert {video.file for video in videos} == {str(tmp_path / "x.jsonl")}


def test_a_meta_file_that_was_written_reads(write):
    write("x.jsonl", INTERLEAVED)
    path = write("meta.json", write_meta("set", root=".", annotation="x.jsonl", length=1))
    assert len(read_annotations(path)) == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"annotation": None}, "set.annotation: is no path"),
        ({"annotation": "gone.jsonl"}, "is not there; paths are relative to the meta file"),
        ({"root": 7}, "set.root: is no path"),
        ({"repeat_time": 0}, "set.repeat_time: is no number above 0"),
        ({"repeat_time": 1.5}, "set.repeat_time: is 1.5; above 1, give a whole number"),
        ({"repeat_time": 10**9}, "set.repeat_time: is no number above 0, at most 1000"),
        ({"length": 3}, "set.length: is 3, but x.jsonl holds 2 samples"),
    ],
)
def test_what_is_wrong_in_a_meta_file_is_named(write, changes, problem):
    write("x.jsonl", INTERLEAVED, sample(human(1), gpt("C."), num_pictures=1, name="c"))
    with pytest.raises(InvalidAnnotation, match=r"meta\.json: ") as caught:
        read_annotations(write("meta.json", {"set": meta(**changes)}))
    assert problem in str(caught.value)


def test_what_is_wrong_in_a_set_is_named_with_the_file_of_the_set(write, tmp_path):
    write("x.jsonl", INTERLEAVED, {"image": []})
    with pytest.raises(InvalidAnnotation, match=r"x\.jsonl:2: conversations: is missing"):
        read_annotations(write("meta.json", {"set": meta()}))
