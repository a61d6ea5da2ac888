"""`livestar evaluate`, from outside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.command import livestar
from tests.integration.evaluation.conftest import FILM
from tests.integration.evaluation.judging import serve_chat
from tests.integration.evaluation.test_judge import grades

pytestmark = pytest.mark.integration

SHORT = ("--max-new-tokens", 6, "--threads", 1)

TRUTH = "a.mp4\nTimestamp: 00:00:00 Caption: A room.\nTimestamp: 00:00:04 Caption: A dog runs in.\n"
SAID = '{"video_id": "a", "result": [["00:00:00", "a room"], ["00:00:02", "a dog runs"]]}\n'


@pytest.fixture
def scored(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "truth.txt").write_text(TRUTH)
    (tmp_path / "said.jsonl").write_text(SAID)
    return "--predictions", tmp_path / "said.jsonl", "--truth", tmp_path / "truth.txt"


def test_predictions_become_exactly_one_json_object(scored: tuple[object, ...]) -> None:
    done = livestar("evaluate", *scored, "--json")
    assert done.status == 0, done.err
    assert done.err == ""
    assert done.out.count("\n") == 1
    scores = json.loads(done.out)
    assert scores["tim_diff"] == 0.5
    assert scores["tim_cover"] == 1
    assert scores["num_videos"] == 1
    assert {"tim_redun", "tim_diff_sum", "boundary_f1_1s", "boundary_f1_2s", "similarity", "pauc", "floors"} <= set(scores)
    assert {"silent", "metronome", "random", "best_metronome", "best_at_rate", "every"} <= set(scores["floors"])


def test_a_table_shows_floors_beside_the_metrics(scored: tuple[object, ...]) -> None:
    done = livestar("evaluate", *scored, "--no-similarity")
    assert done.status == 0, done.err
    assert "1 video, 2 events, 5 frames, 2 responses" in done.out
    for words in ("this run", "metronome", "random", "silent", "boundary F1, ±1 s", "TimCover"):
        assert words in done.out
    assert "similarity" not in done.out


def test_mistakes_in_files_end_with_status_2_and_a_line(scored: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text(SAID + SAID)
    done = livestar("evaluate", *scored, "--json")
    assert done.status == 2
    assert done.out == ""
    assert "said.jsonl, line 2: video 'a' is there already, on line 1" in done.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "there is nothing to evaluate"),
        (("--predictions", "x.jsonl"), "give both --predictions and --truth"),
        (("x.jsonl", "--predictions", "x.jsonl", "--truth", "x.txt"), "not several of them"),
        (("--benchmark", "ovo"), "needs --benchmark, --annotations and --videos"),
        (("x.jsonl", "--write"), "give --calibrate as well"),
        (("x.jsonl", "--calibrate", "often"), "calibrate is 'often'"),
        (("x.jsonl", "--part", "1:0"), "part is '1:0'"),
        (("x.jsonl", "--fps", "0"), "fps is 0"),
        (("x.jsonl", "--policy", "interval", "--interval", "-1"), "interval is -1"),
        (("x.jsonl", "--judge", "http://localhost:1/v1"), "give both --judge and --judge-model"),
        (("x.jsonl", "--output", "none/there.json"), "is no file that can be written"),
        (("--predictions", "x.jsonl", "--truth", "x.txt"), "--predictions scores a file and runs no model; leave --model out"),
        (("x.jsonl", "--calibrate", "0.2", "--html", "x.html"), "--calibrate only searches a threshold; leave --html out"),
        (("x.jsonl", "--threshold", "1.1", "--response-rate", "0.2"), "not both"),
    ],
)
def test_requests_that_cannot_be_met_are_refused_at_once(demo: Path, arguments: tuple[str, ...], expected: str) -> None:
    done = livestar("evaluate", "--model", demo, *arguments)
    assert done.status == 2, done.said
    assert expected in done.err


def test_calibrations_that_cannot_be_met_are_refused_before_any_trial(demo: Path, annotation: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo, model)
    other = livestar("evaluate", annotation, "--model", model, "--calibrate", "0.2", "--gate", "leaf", "--write")
    assert other.status == 2, other.said
    assert "the threshold belongs to the gate 'leaf'" in other.err
    rare = livestar("evaluate", annotation, "--model", model, "--calibrate", "0.001")
    assert rare.status == 2, rare.said
    assert "calibrate is 0.001, which is less than one response in all" in rare.err
    assert "or more footage" in rare.err


def test_a_part_without_an_event_is_refused(demo: Path, annotation: Path) -> None:
    annotation.write_text(json.dumps({"video": str(FILM), "events": [{"begin": 0, "end": 1, "caption": "A room."}]}) + "\n")
    done = livestar("evaluate", annotation, "--model", demo, "--part", "3s:6s")
    assert done.status == 2, done.said
    assert "no event lies in the part 3s:6s of any video; choose another --part" in done.err


@pytest.mark.slow
def test_a_model_is_watched_and_reported_in_every_form(demo: Path, annotation: Path, tmp_path: Path) -> None:
    done = livestar(
        "evaluate", annotation, "--model", demo, *SHORT, "--fps", 2, "--part", "0.2:0.7", "--json",
        "--output", tmp_path / "report.json", "--html", tmp_path / "report.html",
    )  # fmt: skip
    assert done.status == 0, done.err
    scores = json.loads(done.out)
    assert scores["num_videos"] == 1
    assert scores["perplexity"] > 1
    assert scores["frames_per_second"] > 0
    assert scores["settings"]["part"] == "0.2:0.7"
    details = json.loads((tmp_path / "report.json").read_text())
    (video,) = details["videos"]
    assert details["num_frames"] == video["num_frames"] == len(video["verdicts"]) == scores["num_frames"]
    assert video["responses"][0]["is_first_frame"]
    assert 3.8 <= video["begin_s"] < 4.4
    assert [event["caption"] for event in video["events"]][-1] == "Another car comes."
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["film.events.jsonl", "report.html", "report.json"]


@pytest.mark.slow
def test_events_of_watch_score_as_evaluate_does(demo: Path, annotation: Path, tmp_path: Path) -> None:
    """The same footage, watched by `livestar watch` and scored from its file, gives the same numbers."""
    same = ("--model", demo, *SHORT, "--fps", 2, "--threshold", 1.3)
    done = livestar("watch", FILM, *same, "--pace", "fast", "--trace", "--output", tmp_path / "events.jsonl")
    assert done.status == 0, done.err
    whole = json.loads(livestar("evaluate", annotation, *same, "--json", "--no-likelihood").out)
    files = json.loads(livestar("evaluate", "--predictions", tmp_path / "events.jsonl", "--truth", annotation, "--json").out)
    for key in ("boundary_f1_1s", "boundary_f1_2s", "response_rate", "num_frames", "num_responses", "similarity", "tim_cover"):
        assert files[key] == pytest.approx(whole[key]), key
    assert files["tim_diff"] == pytest.approx(whole["tim_diff"], abs=0.05)  # the file does not say the frame rate


@pytest.mark.slow
def test_a_metronome_policy_speaks_by_the_clock(demo: Path, annotation: Path) -> None:
    done = livestar(
        "evaluate", annotation, "--model", demo, *SHORT, "--policy", "interval", "--interval", 3, "--json", "--no-likelihood"
    )
    scores = json.loads(done.out)
    assert scores["num_responses"] == 7
    assert scores["floors"]["metronome"]["boundary_f1_1s"] == pytest.approx(scores["boundary_f1_1s"])


@pytest.mark.slow
def test_calibration_writes_the_threshold_that_watch_then_uses(demo: Path, annotation: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo, model)
    done = livestar("evaluate", annotation, "--model", model, *SHORT, "--fps", 2, "--calibrate", "0.3", "--write", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["written"]
    config = json.loads((model / "config.json").read_text())
    assert config["livestar"]["threshold"] == found["threshold"]
    again = json.loads(livestar("evaluate", annotation, "--model", model, *SHORT, "--fps", 2, "--json", "--no-likelihood").out)
    assert again["response_rate"] == pytest.approx(found["response_rate"])


@pytest.mark.slow
def test_a_video_that_fails_leaves_the_others_and_status_1(demo: Path, annotation: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    more = {"video": "broken.mp4", "events": [{"begin": 0, "end": 1, "caption": "x"}]}
    annotation.write_text(annotation.read_text() + json.dumps(more) + "\n")
    done = livestar("evaluate", annotation, "--model", demo, *SHORT, "--json")
    assert done.status == 1
    scores = json.loads(done.out)
    assert scores["num_videos"] == scores["num_failed"] == 1
    assert scores["failures"][0]["video"] == "broken"
    assert scores["perplexity"] > 1
    annotation.write_text(json.dumps(more) + "\n")
    none = livestar("evaluate", annotation, "--model", demo, *SHORT, "--json")
    assert none.status == 1
    assert "no video could be watched; the first, broken:" in none.err


def test_a_judge_grades_with_a_key_that_is_never_shown(scored: tuple[object, ...]) -> None:
    with serve_chat(grades) as chat:
        judge = ("--judge", chat.url, "--judge-model", "judge-1", "--judge-key-env", "MY_KEY")
        done = livestar("--verbose", "evaluate", *scored, *judge, "--json", env={"MY_KEY": "sk-secret"})
    assert done.status == 0, done.err
    scores = json.loads(done.out)
    assert scores["sem_cor"] == 6
    assert scores["sum_fluen"] == 5
    assert scores["judge"]["num_calls"] == 4
    assert set(chat.keys) == {"Bearer sk-secret"}
    assert "sk-secret" not in done.said


def test_a_judge_that_refuses_costs_only_its_own_grades(scored: tuple[object, ...]) -> None:
    with serve_chat(lambda _: 401) as chat:
        done = livestar("evaluate", *scored, "--judge", chat.url, "--judge-model", "judge-1", "--json")
    assert done.status == 1
    assert "refuses with status 401" in done.err
    scores = json.loads(done.out)
    assert scores["tim_cover"] == 1
    assert "sem_cor" not in scores


def test_help_answers_without_loading_a_framework() -> None:
    done = livestar("evaluate", "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.status == 0
    assert "--text-floors" in done.out
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert loaded.isdisjoint({"torch", "numpy", "av", "onnxruntime", "openai"})


def test_a_report_that_cannot_be_written_leaves_no_scraps(scored: tuple[object, ...], tmp_path: Path) -> None:
    done = livestar("evaluate", *scored, "--json", "--output", tmp_path / ("x" * 300))
    assert done.status == 1
    assert "cannot be written" in done.err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["said.jsonl", "truth.txt"]
