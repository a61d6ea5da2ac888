"""Running a benchmark of questions: reading, asking, scoring, each task beside its floor."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from livestar.errors import InvalidAnnotation
from livestar.evaluation.benchmarks.asking import Answer, ask_all
from livestar.evaluation.benchmarks.files import VideoFolder
from livestar.evaluation.benchmarks.ovo import read_ovo
from livestar.evaluation.benchmarks.question import PROACTIVE_PATIENCE_S, PROACTIVE_TOLERANCE_S, Benchmark, Question
from livestar.evaluation.benchmarks.streamingbench import read_streamingbench
from livestar.evaluation.table import number
from livestar.view import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from livestar.config import StreamConfig
    from livestar.session import Checkpoint

QuestionBenchmark = Literal["streamingbench", "ovo"]


def read_benchmark(name: QuestionBenchmark, path: Path, folder: Path, *, limit: int | None = None) -> Benchmark:
    """The questions that can be asked.  Raises `InvalidAnnotation` where none can, naming why."""
    videos = VideoFolder(folder)
    benchmark = read_ovo(path, videos) if name == "ovo" else read_streamingbench(path, videos)
    if not benchmark.questions:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in benchmark.skipped.most_common()) or "there is none"
        raise InvalidAnnotation(f"no question of {path} can be asked: {reasons}")
    if limit is not None and len(benchmark.questions) > limit:
        benchmark.skipped["beyond --limit"] += len(benchmark.questions) - limit
        benchmark.questions = benchmark.questions[:limit]
    return benchmark


def answer_benchmark(
    checkpoint: Checkpoint,
    benchmark: Benchmark,
    *,
    fps: float,
    stream: StreamConfig,
    on_answer: Callable[[], None] | None = None,
) -> dict[str, object]:
    """Accuracy by task, each with its floors, what was skipped and why, and every answer."""
    answers = ask_all(checkpoint, benchmark.questions, fps=fps, stream=stream, on_answer=on_answer)
    skipped = Counter(benchmark.skipped)
    skipped.update(f"the video failed: {answer.error}" for answer in answers if answer.error is not None)
    return {**score_answers([answer for answer in answers if answer.error is None]), **_record(benchmark, skipped, answers)}


def score_answers(answers: Sequence[Answer]) -> dict[str, object]:
    """`accuracy` is the mean over tasks, as OVO-Bench counts; floors are chance, and the best answer that ignores the video."""
    by_task: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_task[answer.question.task].append(answer)
    tasks = {
        task: {
            "accuracy": fmean(is_right(answer) for answer in group),
            "chance": _chance([answer.question for answer in group]),
            "best_constant": _best_constant([answer.question for answer in group]),
            "num_questions": len(group),
        }
        for task, group in sorted(by_task.items())
    }
    return {
        **{
            key: fmean(task[key] for task in tasks.values()) if tasks else None for key in ("accuracy", "chance", "best_constant")
        },
        "num_questions": len(answers),
        "tasks": tasks,
    }


def is_right(answer: Answer) -> bool:
    """Whether the likeliest choice is the right one; for a proactive question, whether it was answered in time."""
    question = answer.question
    if question.due_s is None:
        return answer.choice == question.answer
    return answer.time_s is not None and abs(answer.time_s - question.due_s) <= PROACTIVE_TOLERANCE_S


def make_benchmark_table(scores: dict[str, object]) -> Table:
    """Tasks down, accuracy beside its floors."""
    table = Table(title=f"{scores['benchmark']}, {scores['num_questions']} questions", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("task")
    for heading in ("accuracy", "chance", "best constant", "questions"):
        table.add_column(heading, justify="right")
    tasks = scores["tasks"]
    assert isinstance(tasks, dict)
    for task, values in tasks.items():
        floors = (number(values[key]) for key in ("accuracy", "chance", "best_constant"))
        table.add_row(printable(task), *floors, str(values["num_questions"]))
    table.add_row(
        "all tasks", *(number(scores[key]) for key in ("accuracy", "chance", "best_constant")), str(scores["num_questions"])
    )
    skipped = scores["skipped"]
    assert isinstance(skipped, dict)
    if skipped:
        table.caption = "; ".join(f"{count} skipped: {printable(reason)}" for reason, count in skipped.items())
    return table


def _chance(questions: Sequence[Question]) -> float:
    """Accuracy of a random choice; of a proactive question, of a random one of the seconds at which it is asked."""
    return fmean(_chance_of(question) for question in questions)


def _chance_of(question: Question) -> float:
    if question.due_s is None:
        return 1 / len(question.choices)
    num_asked = max(int(question.due_s + PROACTIVE_PATIENCE_S - question.begin_s), 1)
    moments = [question.begin_s + n for n in range(1, num_asked + 1)]
    return fmean(abs(moment - question.due_s) <= PROACTIVE_TOLERANCE_S for moment in moments)


def _best_constant(questions: Sequence[Question]) -> float:
    """Best accuracy of one answer to all of a task's questions, or of one delay for all of its proactive ones."""
    if questions[0].due_s is None:
        return Counter(question.answer for question in questions).most_common(1)[0][1] / len(questions)
    waits = [question.due_s - question.begin_s for question in questions if question.due_s is not None]
    delays = range(1, int(max(waits)) + int(PROACTIVE_PATIENCE_S) + 1)
    return max(fmean(abs(delay - wait) <= PROACTIVE_TOLERANCE_S for wait in waits) for delay in delays)


def _record(benchmark: Benchmark, skipped: Counter[str], answers: Sequence[Answer]) -> dict[str, object]:
    return {
        "benchmark": benchmark.name,
        "num_skipped": skipped.total(),
        "skipped": dict(skipped.most_common()),
        "answers": [
            {
                "id": answer.question.id,
                "task": answer.question.task,
                "video": str(answer.question.video),
                "choice": None if answer.choice is None else answer.question.choices[answer.choice],
                "right": answer.question.choices[answer.question.answer],
                "is_right": answer.error is None and is_right(answer),
                "time_s": answer.time_s,
                "due_s": answer.question.due_s,
                "error": answer.error,
            }
            for answer in answers
        ],
    }
