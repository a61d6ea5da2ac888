"""`livestar data`, run as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import livestar
from tests.integration.media.clips import make_clip

pytestmark = pytest.mark.integration

FRENCH_GP = Path(livestar.__file__).parent / "assets" / "french_gp_1906.ogv"


def data(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "livestar.cli", "data", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "120", "TERM": "dumb"}, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def event(begin: float, end: float, caption: object) -> dict[str, object]:
    return {"begin": begin, "end": end, "caption": caption}


@pytest.fixture
def annotation(tmp_path: Path) -> Path:
    """A second of one thing, a gap, and nine seconds of another."""
    path = tmp_path / "french.jsonl"
    events = [event(0, 1, "A car."), event(4.25, 4.75, ["A man runs.", "Someone runs."]), event(10, 19, "Two cars race by.")]
    path.write_text(json.dumps({"video": str(FRENCH_GP), "duration": 19.2, "events": events}), encoding="utf-8")
    return path


def test_check_counts_and_is_content(annotation):
    done = data("check", annotation, "--media", "--fps", 1)
    assert (done.returncode, done.stderr) == (0, "")
    header, row = done.stdout.splitlines()
    assert header.split() == [
        "file",
        "format",
        "videos",
        "events",
        "minutes",
        "captions",
        "words",
        "median",
        "missed",
        "problems",
    ]
    assert row.split() == ["french.jsonl", "events", "1", "3", "0.3", "4", "2.8", "1.0", "s", "1", "0"]


def test_check_names_every_problem_and_ends_with_status_2(tmp_path, annotation):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"video": "a.mp4", "events": [{"begin": 0, "end": 1, "caption": ""}]}\n{\n', encoding="utf-8")
    many = tmp_path / "many.jsonl"
    many.write_text("{\n" * 100, encoding="utf-8")
    done = data("check", bad, annotation, many, tmp_path / "gone.jsonl", "--media")
    assert done.returncode == 2
    problems = done.stderr.splitlines()
    assert problems[0].startswith(f"{bad}:1: events[0].caption: is empty")
    assert problems[1].startswith(f"{bad}:2: no JSON")
    assert problems[2].startswith(f"{bad}:1: there is no file or folder")
    assert sum(str(many) in problem for problem in problems) == 21
    assert f"{many}: and 80 more problems" in problems
    assert "gone.jsonl cannot be read (No such file or directory)" in done.stderr


def test_check_ends_with_status_1_where_only_videos_are_bad(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", num_frames=250)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    lines = [{"video": name, "events": [event(0, 1, "A.")]} for name in ("whole.mkv", "cut.mkv", "gone.mkv")]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert data("check", path).returncode == 0
    done = data("check", path, "--media")
    assert done.returncode == 1
    truncated, missing = done.stderr.splitlines()
    assert truncated.startswith(f"{path}:2: ") and "ends after" in truncated
    assert missing.startswith(f"{path}:3: there is no file or folder")


def test_check_with_media_finds_events_past_the_measured_end(tmp_path):
    make_clip(tmp_path / "clip.mp4")
    path = tmp_path / "clip.events.jsonl"
    path.write_text(json.dumps(event(0, 5, "A.")), encoding="utf-8")
    assert data("check", path).returncode == 0
    done = data("check", path, "--media")
    assert done.returncode == 2
    assert f"{path}:1: events[0].end: is 5 s, but {tmp_path / 'clip.mp4'} lasts 3 s" in done.stderr


def test_convert_goes_round(tmp_path, annotation):
    released, back, text = tmp_path / "r.jsonl", tmp_path / "b.jsonl", tmp_path / "t.txt"
    done = data("convert", annotation, released, "--to", "released", "--frames", tmp_path / "p", "--task", "Look.")
    assert done.returncode == 0
    assert done.stdout == f"{released} and {tmp_path / 'r.meta.json'}: 1 video\n"
    assert "note: events left out, no picture lies in them: 1\n" in done.stderr
    assert data("check", tmp_path / "r.meta.json", "--media").returncode == 0
    assert data("convert", tmp_path / "r.meta.json", back, "--to", "events").returncode == 0
    rows = [json.loads(line) for line in back.read_text(encoding="utf-8").splitlines()]
    assert [row["events"] for row in rows] == [[event(0, 1, "A car.")], [event(0, 9, "Two cars race by.")]]
    assert data("convert", annotation, text, "--to", "text").returncode == 0
    assert text.read_text(encoding="utf-8").splitlines()[1:] == [
        "Timestamp: 00:00:00 Caption: A car.",
        "Timestamp: 00:00:04 Caption: A man runs.",
        "Timestamp: 00:00:18 Caption: Two cars race by.",
    ]


def test_convert_refuses_what_cannot_be(tmp_path, annotation):
    before = annotation.read_bytes()
    for arguments, problem in [
        ((annotation, annotation, "--to", "text"), "is the input and would be overwritten"),
        ((annotation, tmp_path / "x", "--to", "text", "--frames", tmp_path / "p"), "are for released only"),
        ((annotation, tmp_path / "x", "--to", "released"), "name a folder for its pictures with --frames"),
        ((annotation, tmp_path, "--to", "text"), "cannot be written"),
        ((tmp_path / "gone", tmp_path / "x", "--to", "text"), "cannot be read"),
    ]:
        done = data("convert", *arguments)
        assert done.returncode == 2
        assert problem in done.stderr
    assert annotation.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["french.jsonl"]


def test_show_draws_a_line_of_time_and_the_events(annotation):
    done = data("show", annotation, "--max-events", 2)
    assert done.returncode == 0
    title, bar, first, second, rest, end = done.stdout.split("\n")[:6]
    assert title == f"{FRENCH_GP}: 0:00:00.0 to 0:00:19.2, 3 events"
    assert len(bar) == 120 and set(bar) == {"█", "·"}
    assert bar.index("·") == pytest.approx(120 * 1 / 19.2, abs=1)
    assert bar.rindex("█") == pytest.approx(120 * 19 / 19.2, abs=1)
    assert first.split() == ["0:00:00.0", "1.0", "s", "A", "car."]
    assert second.split() == ["0:00:04.2", "0.5", "s", "A", "man", "runs.", "(+1", "paraphrase)"]
    assert rest.strip() == "and 1 more; --max-events shows them"
    assert end == ""


def test_show_says_how_many_videos_are_left(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"video": f"{number}.mp4", "events": [event(0, 1, "\u202eA\u202c.")]}) for number in range(5)]
    path.write_text("\n".join(lines), encoding="utf-8")
    done = data("show", path, "--max-videos", 3)
    assert f"2 more videos in {path}; --max-videos shows them" in done.stdout
    assert "\u202e" not in done.stdout
