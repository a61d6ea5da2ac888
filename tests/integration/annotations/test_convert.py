"""Conversions between formats: what comes back is what went in, as far as the format can say it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import livestar
from livestar.annotations import AnnotatedVideo, Event, read_annotations
from livestar.annotations.convert import convert, meta_path
from livestar.errors import InvalidAnnotation, InvalidConfig, SourceNotFound, SourceTruncated
from livestar.model.prompt import TASK_PROMPT
from tests.fakes.pictures import picture
from tests.integration.media.clips import make_clip

pytestmark = pytest.mark.integration

FRENCH_GP = Path(livestar.__file__).parent / "assets" / "french_gp_1906.ogv"
"""19.2 s."""


def spans(video: AnnotatedVideo) -> list[tuple[float, float, str]]:
    return [(event.begin_s, event.end_s, event.caption) for event in video.events]


def video_of(path: Path | tuple[str, ...], *events: tuple[float, float, str], fps: float = 1.0) -> AnnotatedVideo:
    return AnnotatedVideo(
        source=path if isinstance(path, tuple) else str(path),
        events=tuple(Event(begin_s=b, end_s=e, captions=tuple(c.split("|"))) for b, e, c in events),
        fps=fps,
        file="x.jsonl",
        line=4,
    )


def folder_of(path: Path, num_pictures: int) -> Path:
    path.mkdir()
    for number in range(num_pictures):
        Image.fromarray(picture(1, number, 32)).save(path / f"{number}.png")
    return path


def test_a_video_becomes_pictures_and_interleaved_captions(tmp_path):
    video = video_of(FRENCH_GP, (0.0, 4.3, "A car.|One car."), (4.3, 9.0, "Two cars."), (11.0, 19.2, "Many cars."))
    out = tmp_path / "out.jsonl"
    lost = convert([video], out, "released", frames=tmp_path / "pictures", task=TASK_PROMPT)
    assert lost == {"paraphrases left out": 1, "gaps at which a video was split": 1}

    first, second = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert first["image"] == [f"pictures/french_gp_1906_{second:04d}.jpg" for second in range(9)]
    assert second["image"] == [f"pictures/french_gp_1906_{second:04d}.jpg" for second in range(11, 20)]
    assert (first["id"], second["id"]) == (0, 1)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        Path(name).name for name in first["image"] + second["image"]
    }
    assert first["conversations"][0] == {"from": "human", "value": f"{TASK_PROMPT}Frame-1: <image>\n"}
    assert [turn["value"] for turn in first["conversations"][1::2]] == ["A car."] * 5 + ["Two cars."] * 4
    with Image.open(tmp_path / first["image"][0]) as shown:
        assert shown.size == (218, 160)
    assert (first["width_list"], first["height_list"]) == ([218] * 9, [160] * 9)

    for path in (out, meta_path(out)):
        one, two = read_annotations(path)
        assert spans(one) == [(0, 5, "A car."), (5, 9, "Two cars.")]
        assert spans(two) == [(0, 9, "Many cars.")]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.lists(st.floats(1.1, 4.0), min_size=1, max_size=6))
def test_events_to_released_and_back_agree_within_a_second(tmp_path, ends):
    begins = [0.0]
    for length in ends:
        begins.append(begins[-1] + length)
    folder = tmp_path / "pictures"
    shutil.rmtree(folder, ignore_errors=True)
    folder_of(folder, int(begins[-1]) + 1)
    spoken = [(begins[number], begins[number + 1], f"Event {number}.") for number in range(len(ends))]
    convert([video_of(folder, *spoken)], tmp_path / "out.jsonl", "released")
    (back,) = read_annotations(tmp_path / "out.jsonl")
    assert [caption for _, _, caption in spans(back)] == [caption for _, _, caption in spoken]
    for (begin_s, end_s, _), (wanted_begin_s, wanted_end_s, _) in zip(spans(back), spoken, strict=True):
        assert abs(begin_s - wanted_begin_s) < 1 and abs(end_s - wanted_end_s) <= 1


def test_pictures_at_one_per_second_are_used_as_they_are(tmp_path):
    folder = folder_of(tmp_path / "p", 4)
    listed = tuple(str(folder / f"{number}.png") for number in (3, 1))
    convert([video_of(folder, (0, 4, "A.")), video_of(listed, (0, 2, "B."))], tmp_path / "out.jsonl", "released")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert first["image"] == ["p/0.png", "p/1.png", "p/2.png", "p/3.png"]
    assert second["image"] == ["p/3.png", "p/1.png"]
    assert first["width_list"] == [32] * 4
    assert first["conversations"][0]["value"] == "Frame-1: <image>\n"
    with pytest.raises(InvalidConfig, match=r"x\.jsonl:4: .* is not pictures at one per second as a whole; name a folder"):
        convert([video_of(folder, (0, 2, "A."), fps=2.0)], tmp_path / "out.jsonl", "released")
    with pytest.raises(InvalidConfig, match=r"is a video, and the released format wants pictures; name a folder"):
        convert([video_of(FRENCH_GP, (0, 2, "A."))], tmp_path / "out.jsonl", "released")


def test_a_released_file_written_again_is_the_same(tmp_path):
    folder = folder_of(tmp_path / "p", 5)
    convert([video_of(folder, (0, 2, "A."), (2, 5, "B."))], tmp_path / "one.jsonl", "released")
    convert(read_annotations(tmp_path / "one.jsonl"), tmp_path / "two.jsonl", "released")
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_two_videos_of_one_name_do_not_share_pictures(tmp_path):
    clips = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        clips.append(make_clip(tmp_path / name / "room 1.mp4"))
    convert([video_of(clip, (0, 3, "A.")) for clip in clips], tmp_path / "out.jsonl", "released", frames=tmp_path / "p")
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert names == [f"room_1{suffix}_{second:04d}.jpg" for suffix in ("-2", "") for second in range(3)]


def test_a_part_begins_with_its_own_first_picture(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", num_frames=150)
    (tmp_path / "x.jsonl").write_text(
        json.dumps({"video": "a.mp4", "part": [2.5, 5.5], "events": [{"begin": 0, "end": 6, "caption": "A."}]}), encoding="utf-8"
    )
    convert(read_annotations(tmp_path / "x.jsonl"), tmp_path / "out.jsonl", "released", frames=tmp_path / "p")
    (back,) = read_annotations(tmp_path / "out.jsonl")
    assert (len(back.source), spans(back)) == (3, [(0, 3, "A.")])
    assert clip.exists()


def test_an_event_without_a_picture_is_counted(tmp_path):
    folder = folder_of(tmp_path / "p", 3)
    lost = convert([video_of(folder, (0, 1, "A."), (1.2, 1.8, "B."), (2, 3, "C."))], tmp_path / "out.jsonl", "released")
    assert lost == {"events left out, no picture lies in them": 1, "gaps at which a video was split": 1}


def test_what_text_cannot_say_is_counted(tmp_path):
    videos = [
        video_of(tmp_path / "a.mp4", (0, 2, "A.|a.|ä."), (2, 2.2, "B."), (4, 6, "C.")),
        video_of(tmp_path / "b.mp4", (1.0, 2, "D.")),
    ]
    lost = convert(videos, tmp_path / "out.txt", "text")
    assert lost == {
        "paraphrases left out": 2,
        "events left out, shorter than a second": 1,
        "gaps that became part of the event after them": 2,
    }
    assert [spans(video) for video in read_annotations(tmp_path / "out.txt")] == [[(0, 2, "A."), (2, 6, "C.")], [(0, 2, "D.")]]


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", num_frames=250)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    out, pictures = tmp_path / "out.jsonl", tmp_path / "p"
    out.write_text("as it was", encoding="utf-8")
    videos = [video_of(whole, (0, 3, "A.")), video_of(tmp_path / "cut.mkv", (0, 9, "B."))]
    with pytest.raises(SourceTruncated, match=r"^x\.jsonl:4: "):
        convert(videos, out, "released", frames=pictures)
    assert (out.read_text(encoding="utf-8"), list(pictures.iterdir())) == ("as it was", [])
    with pytest.raises(SourceNotFound, match=r"^x\.jsonl:4: there is no file"):
        convert([video_of(tmp_path / "gone.mp4", (0, 1, "A."))], out, "released", frames=pictures)
    with pytest.raises(InvalidAnnotation, match="cannot name a list of pictures"):
        convert([video_of((str(whole),), (0, 1, "A."))], out, "text")
    with pytest.raises(InvalidConfig, match="cannot be written"):
        convert(videos, tmp_path / "gone" / "out.jsonl", "events")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.mkv", "out.jsonl", "p", "whole.mkv"]
