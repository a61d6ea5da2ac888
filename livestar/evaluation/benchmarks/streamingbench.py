"""StreamingBench's annotation files: questions_*.json of its repository, and the CSV files of its data set.

JSON: a list of {"video_path", "questions": [{"task_type", "question", "time_stamp", "answer": "B", "options": [...]}]}.  A
proactive question has "ground_truth_time_stamp" and "ground_truth_output" instead of an answer.  CSV: the same fields as
columns, options as a written list, and "question_id" ending in sample_N_i, where N is the video's number.
Source: THUNLP-MT/StreamingBench, src/data and src/benchmark.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from livestar.errors import InvalidAnnotation
from livestar.evaluation.benchmarks.files import VideoFolder, list_of, read_csv, read_json, text_of
from livestar.evaluation.benchmarks.question import PROACTIVE_PATIENCE_S, YES_NO, Benchmark, Question
from livestar.evaluation.predictions import parse_time_s

if TYPE_CHECKING:
    from pathlib import Path

NEEDS_SOUND = ("Emotion Recognition", "Scene Understanding", "Source Discrimination", "Multimodal Alignment")
"""Tasks of the omni-source part, which ask for what is heard as well."""
NEEDS_HISTORY = ("Sequential Question Answering",)
"""Tasks whose questions build on the answers to earlier ones."""
LETTERS = "ABCDEFGH"
CSV_COLUMNS = ("question_id", "task_type", "question", "time_stamp")
ASK = "Question: {question}\nOptions:\n{options}\nAnswer with the letter of the best option.\n"
ASK_PROACTIVE = '{question} Is it the right time to output "{output}"? Answer yes or no.\n'


def read_streamingbench(path: Path, videos: VideoFolder) -> Benchmark:
    """The questions of a file whose videos are there.  Raises `InvalidAnnotation` naming the entry that is wrong."""
    benchmark = Benchmark("streamingbench")
    if path.suffix.lower() == ".csv":
        for where, row in read_csv(path, CSV_COLUMNS):
            found = re.fullmatch(r"(.*)_sample_(\d+)_(\d+)", row["question_id"])
            if found is None:
                raise InvalidAnnotation(f"{where}: question_id is {row['question_id']!r}; expected it to end in sample_N_i")
            written = _parse_list(row.get("options", ""), where)
            _add(benchmark, videos.find_sample(found[1], found[2]), row["question_id"], row, written, where)
        return benchmark
    entries = read_json(path)
    if isinstance(entries, list) and entries and all(isinstance(entry, list) for entry in entries):
        entries = [entry for group in entries for entry in group]  # questions_sqa.json
    if not isinstance(entries, list):
        raise InvalidAnnotation(f"{path} is not a list of videos; is it the benchmark's annotation file?")
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        video = videos.find(text_of(entry, "video_path", where))
        for place, question in enumerate(list_of(entry, "questions", where), start=1):
            spot = f"{where}, question {place}"
            options = question.get("options") if isinstance(question, dict) else None
            _add(benchmark, video, f"{number}.{place}", question, options, spot)
    return benchmark


def _add(benchmark: Benchmark, video: Path | None, name: str, record: object, options: object, where: str) -> None:
    """Adds a question, or the reason why it cannot be asked."""
    task = text_of(record, "task_type", where)
    asked = text_of(record, "question", where)
    time_s = parse_time_s(text_of(record, "time_stamp", where), where)
    if task in NEEDS_SOUND:
        benchmark.skipped[f"{task}: needs sound"] += 1
    elif task in NEEDS_HISTORY:
        benchmark.skipped[f"{task}: questions build on earlier answers"] += 1
    elif video is None:
        benchmark.skipped["the video is not there"] += 1
    elif isinstance(record, dict) and record.get("ground_truth_time_stamp"):
        due_s = parse_time_s(text_of(record, "ground_truth_time_stamp", where), where)
        text = ASK_PROACTIVE.format(question=asked, output=text_of(record, "ground_truth_output", where))
        benchmark.questions.append(
            Question(
                id=name,
                task=task,
                video=video,
                text=text,
                choices=YES_NO,
                answer=0,
                begin_s=time_s,
                time_s=max(due_s, time_s) + PROACTIVE_PATIENCE_S,
                due_s=due_s,
            )
        )
    else:
        texts = _check_options(options, where)
        answer = text_of(record, "answer", where)[0].upper()
        if answer not in LETTERS[: len(texts)]:
            raise InvalidAnnotation(f"{where}: answer is {answer!r}; expected a letter of {LETTERS[: len(texts)]}")
        lettered = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))
        text = ASK.format(question=asked, options=lettered)
        choices = tuple(LETTERS[: len(texts)])
        benchmark.questions.append(
            Question(id=name, task=task, video=video, text=text, choices=choices, answer=LETTERS.index(answer), time_s=time_s)
        )


def _check_options(options: object, where: str) -> list[str]:
    """The options without their letters."""
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS) or not all(isinstance(o, str) for o in options):
        raise InvalidAnnotation(f"{where}: options are {str(options)[:80]!r}; expected 2 to {len(LETTERS)} texts")
    return [re.sub(rf"^\s*{letter}\s*[.:)]\s*", "", text).strip() for letter, text in zip(LETTERS, options, strict=False)]


def _parse_list(text: str, where: str) -> list[str]:
    """A list as Python writes it; empty for a proactive question, which has none."""
    if not text.strip():
        return []
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InvalidAnnotation(f"{where}: options are {text[:80]!r}; expected a list such as ['A. ...', 'B. ...']") from error
    if not isinstance(value, list):
        raise InvalidAnnotation(f"{where}: options are {text[:80]!r}; expected a list")
    return [str(item) for item in value]
