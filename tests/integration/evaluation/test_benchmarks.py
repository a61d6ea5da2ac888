"""Benchmarks in their published formats, from files to answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from livestar.config import StreamConfig
from livestar.errors import InvalidAnnotation, InvalidRequest
from livestar.evaluation.benchmarks.asking import Answer, ask_all
from livestar.evaluation.benchmarks.files import VideoFolder
from livestar.evaluation.benchmarks.omnistar import read_omnistar
from livestar.evaluation.benchmarks.ovo import read_ovo
from livestar.evaluation.benchmarks.question import YES_NO, Question
from livestar.evaluation.benchmarks.run import answer_benchmark, is_right, read_benchmark, score_answers
from livestar.evaluation.benchmarks.streamingbench import read_streamingbench
from livestar.session import Checkpoint
from tests.e2e.command import livestar
from tests.integration.evaluation.conftest import FILM

pytestmark = pytest.mark.integration

OPTIONS = ["A. A car.", "B. A dog.", "C. A boat.", "D. A train."]


def choice(task: str = "Object Recognition", **more: object) -> dict[str, object]:
    return {"task_type": task, "question": "What is there?", "time_stamp": "00:00:03", "answer": "B", "options": OPTIONS} | more


PROACTIVE = {
    "task_type": "Proactive Output",
    "question": 'When the car passes, output "Car".',
    "time_stamp": "00:00:02",
    "ground_truth_time_stamp": "0:00:06",
    "ground_truth_output": "Car",
    "required_ability": "working memory",
}
STREAMING = [
    {
        "video_path": "./videos/sample_1_real.mp4",
        "time": "[0:00:00 - 0:00:10]",
        "questions": [choice(), choice(time_stamp="00:00:08", options=["A car", "A dog"])],
    },
    {"video_path": "./videos/sample_2_proactive.mp4", "questions": [PROACTIVE]},
    {"video_path": "./videos/sample_9_real.mp4", "questions": [choice()]},
    {
        "video_path": "./videos/sample_1_real.mp4",
        "questions": [choice("Emotion Recognition"), choice("Sequential Question Answering")],
    },
]
OVO = [
    {
        "id": 8,
        "task": "EPM",
        "video": "Ego4D/clips/a.mp4",
        "realtime": 7,
        "question": "What?",
        "options": ["two", "three", "four"],
        "gt": 2,
    },
    {
        "id": 9,
        "task": "CRR",
        "video": "Movie/b.mp4",
        "question": "Where to?",
        "answer": "x",
        "ask_time": 2,
        "clue_time": 4,
        "test_info": [{"realtime": 2, "type": 0}, {"realtime": 5.5, "type": 1}],
    },
    {
        "id": 10,
        "task": "SSR",
        "video": "COIN/c.mp4",
        "tutorial": "t",
        "test_info": [{"realtime": 3, "step": "mix it", "type": 1}],
    },
    {
        "id": 11,
        "task": "REC",
        "video": "REC/d.mp4",
        "activity": "jump",
        "test_info": [{"realtime": 3, "count": 1}, {"realtime": 9, "count": 99}],
    },
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of videos under the names that the benchmarks use; all of them the shipped film."""
    root = tmp_path / "data"
    for name in ("sample_1_real", "sample_2_proactive", "Ego4D/clips/a", "Movie/b", "9_1", "10_0", "one"):
        (root / f"{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILM, root / f"{name}.mp4")
    return root


def write(tmp_path: Path, value: object, name: str = "questions.json") -> Path:
    (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return tmp_path / name


def test_streamingbench_questions_are_read_and_what_cannot_be_asked_is_counted(tmp_path: Path, folder: Path) -> None:
    benchmark = read_streamingbench(write(tmp_path, STREAMING), VideoFolder(folder))
    first, second, third = benchmark.questions
    assert (first.task, first.time_s, first.answer, first.choices) == ("Object Recognition", 3.0, 1, ("A", "B", "C", "D"))
    assert "A. A car.\nB. A dog." in first.text
    assert second.choices == ("A", "B")
    assert (third.begin_s, third.due_s, third.time_s, third.choices) == (2.0, 6.0, 10.0, YES_NO)
    assert '"Car"' in third.text
    assert dict(benchmark.skipped) == {
        "the video is not there": 1,
        "Emotion Recognition: needs sound": 1,
        "Sequential Question Answering: questions build on earlier answers": 1,
    }


def test_streamingbench_csv_files_name_their_videos_by_number(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("Real-Time Visual Understanding_1-50/sample_7/video.mp4", "Anomaly Context Understanding/sample_7/video.mp4"):
        (root / name).parent.mkdir(parents=True)
        shutil.copy(FILM, root / name)
    rows = [
        "question_id,task_type,question,time_stamp,answer,options",
        "Real-Time Visual Understanding_sample_7_2,Counting,\"How many, now?\",00:00:05,C,\"['A. 1', 'B. 2', 'C. 3']\"",
        "Real-Time Visual Understanding_sample_8_1,Counting,How many?,00:00:05,C,\"['A. 1', 'B. 2', 'C. 3']\"",
    ]
    benchmark = read_streamingbench(write(tmp_path, "\n".join(rows), "Real.csv"), VideoFolder(root))
    (question,) = benchmark.questions
    assert question.video.parent.parent.name == "Real-Time Visual Understanding_1-50"
    assert question.answer == 2
    assert benchmark.skipped["the video is not there"] == 1


def test_ovo_questions_are_read_for_every_kind_of_task(tmp_path: Path, folder: Path) -> None:
    benchmark = read_ovo(write(tmp_path, OVO), VideoFolder(folder))
    by_id = {question.id: question for question in benchmark.questions}
    assert set(by_id) == {"8", "9_0", "9_1", "10_0"}
    assert (by_id["8"].answer, by_id["8"].time_s, by_id["8"].choices) == (2, 7.0, ("A", "B", "C"))
    assert by_id["9_0"].answer == 1
    assert by_id["9_1"].time_s == 5.5  # the whole video is there, so the clip is not needed
    assert by_id["10_0"].time_s is None  # only the clip that was cut for it is there
    assert dict(benchmark.skipped) == {"the video is not there": 1, "REC: more than 30 times": 1}


def test_ovo_counts_are_answered_by_number(tmp_path: Path, folder: Path) -> None:
    entry = {"id": 1, "task": "REC", "video": "Movie/b.mp4", "activity": "jump", "test_info": [{"realtime": 3, "count": 2}]}
    (question,) = read_ovo(write(tmp_path, [entry]), VideoFolder(folder)).questions
    assert question.choices[question.answer] == "2"
    assert "jump" in question.text


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("streamingbench", {"a": 1}, "is not a list of videos"),
        ("streamingbench", "{", "is not JSON"),
        ("streamingbench", [{"questions": []}], "entry 1: video_path is"),
        ("streamingbench", [{"video_path": "one.mp4", "questions": []}], "entry 1: questions is"),
        ("streamingbench", [{"video_path": "one.mp4", "questions": [choice(answer="E")]}], "question 1: answer is 'E'"),
        ("streamingbench", [{"video_path": "one.mp4", "questions": [choice(options=None)]}], "question 1: options are"),
        ("streamingbench", [{"video_path": "one.mp4", "questions": [choice(time_stamp="x")]}], "the time is 'x'"),
        ("streamingbench", [{"video_path": "gone.mp4", "questions": [choice()]}], "1 x the video is not there"),
        ("streamingbench", [{"video_path": "one.mp4", "questions": [choice("Emotion Recognition")]}], "needs sound"),
        ("ovo", {"a": 1}, "is not a list of tasks"),
        ("ovo", [{"id": 1, "task": "XYZ", "video": "one.mp4"}], "the task 'XYZ' is not known here"),
        ("ovo", [OVO[0] | {"gt": 3}], "gt is 3 of 3 options"),
        ("ovo", [OVO[0] | {"realtime": None}], "realtime is 'None'"),
        ("ovo", [OVO[1] | {"test_info": []}], "test_info is"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, folder: Path, name: str, value: object, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_benchmark(name, write(tmp_path, value), folder)  # type: ignore[arg-type]
    assert expected in str(raised.value)
    assert "questions.json" in str(raised.value)


def test_files_and_folders_that_are_not_there(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidAnnotation, match="cannot be read"):
        read_benchmark("ovo", tmp_path / "none.json", folder)
    with pytest.raises(InvalidAnnotation, match="there is no folder"):
        read_benchmark("ovo", write(tmp_path, OVO), tmp_path / "none")
    with pytest.raises(InvalidAnnotation, match="has no column 'question_id'"):
        read_streamingbench(write(tmp_path, "a,b\n1,2\n", "x.csv"), VideoFolder(folder))


def test_a_path_cannot_lead_out_of_the_folder(tmp_path: Path, folder: Path) -> None:
    shutil.copy(FILM, tmp_path / "outside.mp4")
    assert VideoFolder(folder).find("../outside.mp4") is None
    assert VideoFolder(folder).find(str(tmp_path / "outside.mp4")) is None


def test_questions_are_answered_at_their_moments(checkpoint: Checkpoint, tmp_path: Path, folder: Path) -> None:
    benchmark = read_streamingbench(write(tmp_path, STREAMING), VideoFolder(folder))
    answers = ask_all(checkpoint, benchmark.questions, fps=2.0, stream=StreamConfig())
    assert [answer.question.id for answer in answers] == ["1.1", "1.2", "2.1"]
    assert answers[0].time_s is not None
    assert 2.5 <= answers[0].time_s <= 3.0
    assert answers[1].time_s is not None
    assert 7.5 <= answers[1].time_s <= 8.0
    assert all(answer.error is None for answer in answers)


def test_an_answer_does_not_depend_on_what_else_is_asked(checkpoint: Checkpoint, tmp_path: Path, folder: Path) -> None:
    questions = read_streamingbench(write(tmp_path, STREAMING), VideoFolder(folder)).questions
    together = ask_all(checkpoint, questions, fps=2.0, stream=StreamConfig())
    apart = [ask_all(checkpoint, [question], fps=2.0, stream=StreamConfig())[0] for question in questions]
    assert [(a.choice, a.time_s) for a in together] == [(a.choice, a.time_s) for a in apart]


def test_a_video_that_fails_is_counted_and_not_scored(checkpoint: Checkpoint, tmp_path: Path, folder: Path) -> None:
    (folder / "sample_2_proactive.mp4").write_bytes(b"no video")
    benchmark = read_benchmark("streamingbench", write(tmp_path, STREAMING), folder)
    scores = answer_benchmark(checkpoint, benchmark, fps=1.0, stream=StreamConfig())
    assert scores["num_questions"] == 2
    skipped = scores["skipped"]
    assert isinstance(skipped, dict)
    assert sum(count for reason, count in skipped.items() if reason.startswith("the video failed")) == 1


def answer(task: str, right: int, chosen: int, *, num_choices: int = 4) -> Answer:
    question = Question(id="x", task=task, video=Path("v"), text="?", choices=tuple("ABCDEFGH"[:num_choices]), answer=right)
    return Answer(question, chosen, 1.0)


def proactive(due_s: float, time_s: float | None) -> Answer:
    question = Question(
        id="x", task="PO", video=Path("v"), text="?", choices=YES_NO, answer=0, begin_s=0.0, time_s=due_s + 4, due_s=due_s
    )
    return Answer(question, 0 if time_s is not None else 1, time_s)


def test_accuracy_is_the_mean_over_tasks_and_has_its_floors() -> None:
    scores = score_answers([answer("a", 0, 0), answer("a", 0, 1), answer("a", 1, 1), answer("b", 0, 1, num_choices=2)])
    assert scores["accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["chance"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert scores["best_constant"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["num_questions"] == 4


def test_a_proactive_output_must_come_within_two_seconds() -> None:
    assert [is_right(proactive(6.0, time_s)) for time_s in (3.9, 4.0, 8.0, 8.1, None)] == [False, True, True, False, False]
    scores = score_answers([proactive(6.0, 6.0), proactive(8.0, None)])
    assert scores["accuracy"] == 0.5
    assert scores["best_constant"] == 1.0  # a delay of 6 to 8 s is right for both
    assert scores["chance"] == pytest.approx((5 / 10 + 5 / 12) / 2)


def test_omnistar_videos_are_found_by_name_and_the_others_counted(tmp_path: Path, folder: Path) -> None:
    truth = "x/one.mp4\nTimestamp: 00:00:02 Caption: A.\ny/gone.mp4\nTimestamp: 00:00:02 Caption: B.\n"
    found = read_omnistar(write(tmp_path, truth, "truth.txt"), folder)
    assert found.num_missing == 1
    assert [Path(video.name).name for video in found.videos] == ["one.mp4"]
    with pytest.raises(InvalidAnnotation, match=r"no video that .* \(1 missing\)"):
        read_omnistar(write(tmp_path, truth.split("y/")[1].replace("gone", "never"), "truth.txt"), folder)


@pytest.mark.slow
def test_benchmarks_run_end_to_end(demo: Path, tmp_path: Path, folder: Path) -> None:
    model = ("--model", demo, "--threads", 1, "--videos", folder, "--json")
    truth = write(tmp_path, "x/one.mp4\nTimestamp: 00:00:02 Caption: A.\nTimestamp: 00:00:09 Caption: B.\n", "truth.txt")
    narrated = livestar("evaluate", "--benchmark", "omnistar", "--annotations", truth, *model, "--max-new-tokens", 6)
    assert narrated.status == 0, narrated.err
    assert json.loads(narrated.out)["num_events"] == 2
    for name, value in (("streamingbench", STREAMING), ("ovo", OVO)):
        done = livestar(
            "evaluate",
            "--benchmark",
            name,
            "--annotations",
            write(tmp_path, value),
            *model,
            "--output",
            tmp_path / "answers.json",
        )
        assert done.status == 0, done.err
        scores = json.loads(done.out)
        assert 0 <= scores["accuracy"] <= 1
        assert scores["num_skipped"] == sum(scores["skipped"].values()) > 0
        assert len(json.loads((tmp_path / "answers.json").read_text())["answers"]) == scores["num_questions"]
    table = livestar("evaluate", "--benchmark", "ovo", "--annotations", write(tmp_path, OVO), *model[:-1])
    assert "best constant" in table.out
    assert "1 skipped: the video is not there" in table.out
