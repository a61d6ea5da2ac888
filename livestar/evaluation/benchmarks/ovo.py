"""OVO-Bench's annotation file, ovo_bench_new.json: a list of tasks on videos.

Backward tracing (EPM, ASI, HLD) and real-time perception (STU, OJR, ATR, ACR, OCR, FPD) have options, the index `gt` of the right
one, and the second `realtime` at which they are asked.  Forward responding is asked at every moment of `test_info`: how often
something was done (REC: `count`), whether a step is being performed (SSR), whether enough was seen to answer (CRR: `type` 1 is
yes).  A video is at its own path below the folder, or cut for its question as ID.mp4 or ID_I.mp4, as published.
Source: JoeLeelyf/OVO-Bench, utils/OVOBench.py and OVOBenchScore.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestar.errors import InvalidAnnotation
from livestar.evaluation.benchmarks.files import VideoFolder, list_of, number_of, read_json, text_of
from livestar.evaluation.benchmarks.question import YES_NO, Benchmark, Question

if TYPE_CHECKING:
    from pathlib import Path

CHOICE_TASKS = ("EPM", "ASI", "HLD", "STU", "OJR", "ATR", "ACR", "OCR", "FPD")
FORWARD_TASKS = ("REC", "SSR", "CRR")
LETTERS = "ABCDEFGH"
MAX_COUNT = 30
"""Highest answer that is tried for REC."""
ASK = "Question: {question}\nOptions: {options}\nAnswer with the letter of the best option.\n"
ASK_COUNT = "How many times did they {activity}? Answer with a number.\n"
ASK_STEP = "Is someone in the video performing this step now: {step}? Answer yes or no.\n"
ASK_ENOUGH = "{question} Has enough been shown by now to answer this? Answer yes or no.\n"


def read_ovo(path: Path, videos: VideoFolder) -> Benchmark:
    """The questions of a file whose videos are there.  Raises `InvalidAnnotation` naming the entry that is wrong."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InvalidAnnotation(f"{path} is not a list of tasks; is it ovo_bench_new.json?")
    benchmark = Benchmark("ovo")
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        task = text_of(entry, "task", where)
        if task in CHOICE_TASKS:
            _add_choice(benchmark, videos, entry, task, where)
        elif task in FORWARD_TASKS:
            for index, moment in enumerate(list_of(entry, "test_info", where)):
                _add_forward(benchmark, videos, entry, task, moment, index, f"{where}, test_info {index}")
        else:
            raise InvalidAnnotation(
                f"{where}: the task {task!r} is not known here; expected one of {', '.join(CHOICE_TASKS + FORWARD_TASKS)}"
            )
    return benchmark


def _add_choice(benchmark: Benchmark, videos: VideoFolder, entry: object, task: str, where: str) -> None:
    options = list_of(entry, "options", where)
    answer = number_of(entry, "gt", where)
    if len(options) > len(LETTERS) or answer != int(answer) or not answer < len(options):
        raise InvalidAnnotation(f"{where}: gt is {answer:g} of {len(options)} options; expected an index below that")
    lettered = "; ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    text = ASK.format(question=text_of(entry, "question", where), options=lettered)
    _add(benchmark, videos, entry, where, Asked(task, text, tuple(LETTERS[: len(options)]), int(answer)), "")


def _add_forward(
    benchmark: Benchmark, videos: VideoFolder, entry: object, task: str, moment: object, index: int, where: str
) -> None:
    if task == "REC":
        count = number_of(moment, "count", where)
        if count > MAX_COUNT:
            benchmark.skipped[f"REC: more than {MAX_COUNT} times"] += 1
            return
        text = ASK_COUNT.format(activity=text_of(entry, "activity", where))
        asked = Asked(task, text, tuple(str(n) for n in range(MAX_COUNT + 1)), int(count))
    elif task == "SSR":
        asked = Asked(task, ASK_STEP.format(step=text_of(moment, "step", where)), YES_NO, _yes_or_no(moment, where))
    else:
        asked = Asked(task, ASK_ENOUGH.format(question=text_of(entry, "question", where)), YES_NO, _yes_or_no(moment, where))
    _add(benchmark, videos, entry, where, asked, f"_{index}", moment)


class Asked:
    """What is asked, before it is known of which video."""

    def __init__(self, task: str, text: str, choices: tuple[str, ...], answer: int) -> None:
        self.task, self.text, self.choices, self.answer = task, text, choices, answer


def _add(
    benchmark: Benchmark, videos: VideoFolder, entry: object, where: str, asked: Asked, suffix: str, moment: object = None
) -> None:
    """Adds a question on the whole video up to its moment, or on the clip that was cut for it; notes where neither is there."""
    time_s: float | None = number_of(entry if moment is None else moment, "realtime", where)
    name = f"{number_of(entry, 'id', where):g}{suffix}"
    video = videos.find(text_of(entry, "video", where))
    if video is None:
        video, time_s = videos.find_stem(name), None
    if video is None:
        benchmark.skipped["the video is not there"] += 1
        return
    benchmark.questions.append(
        Question(
            id=name, task=asked.task, video=video, text=asked.text, choices=asked.choices, answer=asked.answer, time_s=time_s
        )
    )


def _yes_or_no(moment: object, where: str) -> int:
    """Index in `YES_NO`."""
    return 0 if number_of(moment, "type", where) == 1 else 1
