"""SemCor and SumFluen by a language model behind any OpenAI-compatible address (extra `evaluate`).

SemCor grades the first response in each event against the event's caption, as the released pairs do; an event without one gets
0 unasked.  SumFluen grades a video's narration: the first responses joined (the released code), and all responses joined (the
LiveStarPro paper).  Means are over a video's events, then over videos.  An answer that cannot be read is asked for again, then
counted and left out.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from livestar.errors import InvalidConfig, LiveStarError
from livestar.evaluation.runs import responses_in
from livestar.media.source import display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from livestar.evaluation.runs import VideoRun

SEM_COR = ("Semantic Accuracy", "Language Quality", "Information Completeness")
SUM_FLUEN = (
    "Writing Logicality",
    "Language Fluency",
    "Writing Conciseness",
    "Semantic Consistency",
    "Narrative Completeness",
)
PLACEHOLDERS = ("{truth}", "{prediction}")
MAX_PROMPT_CHARS = 20_000
"""Longest prompt file, in characters."""
MAX_TEXT_CHARS = 20_000
"""A longer caption or narration is cut before it is sent."""
MAX_FAILURES = 5
"""Calls in a row that may fail before the judge is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """Where the judge is and how patient to be."""

    base_url: str
    """Address of the API, as `http://localhost:8000/v1`."""
    model: str
    """Name of the model at that address."""
    timeout_s: float = 60.0
    """Longest wait for one answer, in seconds."""
    max_retries: int = 2
    """Further attempts where the address does not answer, or says that it is busy."""
    max_malformed: int = 1
    """Further attempts where an answer cannot be read."""
    num_parallel: int = 4
    """Calls under way at a time."""
    temperature: float | None = 0.0
    """None leaves it to the endpoint, for models that take none."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise InvalidConfig(f"judge is {display_name(self.base_url)!r}; give an address such as http://localhost:8000/v1")
        if not self.model:
            raise InvalidConfig("judge_model is empty; give the name of a model at the judge's address")
        if not 0 < self.timeout_s <= 3600 or not 0 <= self.max_retries <= 10 or not 0 <= self.max_malformed <= 10:
            raise InvalidConfig("the judge's timeout must be 0 to 3600 s and its retries 0 to 10; correct them")
        if not 1 <= self.num_parallel <= 64:
            raise InvalidConfig(f"num_parallel is {self.num_parallel}; give 1 to 64")


class Prompts(NamedTuple):
    """What the judge is asked; each with {truth} and {prediction} in it."""

    sem_cor: str
    sum_fluen: str


@dataclass(slots=True)
class _Counts:
    """Shared by the calls under way."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    num_calls: int = 0
    num_malformed: int = 0
    num_failed: int = 0
    num_failed_in_a_row: int = 0
    given_up: str | None = None
    """Why no further call is made."""


def load_prompts(folder: Path | None = None) -> Prompts:
    """The packaged prompts, or sem_cor.txt and sum_fluen.txt of a folder, where they are there.  Raises `InvalidConfig`."""
    return Prompts(_load_prompt(folder, "sem_cor.txt"), _load_prompt(folder, "sum_fluen.txt"))


def parse_answer(text: str, names: Sequence[str]) -> float | None:
    """Mean of the numbers behind the names, each on a line of its own; None where one is missing, twice there, or not 0 to 10."""
    numbers = []
    for name in names:
        found = re.findall(rf"^\W*{re.escape(name)}\W*:\W*(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*$", text, re.IGNORECASE | re.MULTILINE)
        if len(found) != 1 or not 0 <= float(found[0]) <= 10:
            return None
        numbers.append(float(found[0]))
    return fmean(numbers)


class Judge:
    """Grades runs through one endpoint."""

    def __init__(self, config: JudgeConfig, prompts: Prompts, *, api_key: str | None = None) -> None:
        """`api_key` is sent to the endpoint and nowhere else.  Raises `InvalidConfig` where the extra is not installed."""
        try:
            import openai
        except ImportError as error:
            raise InvalidConfig(
                "the judge needs the openai package; install the extra: pip install 'livestar[evaluate]'"
            ) from error
        self._openai = openai
        self._config = config
        self._prompts = prompts
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=api_key or "none",  # local endpoints take any
            timeout=config.timeout_s,
            max_retries=config.max_retries,
        )

    def score(self, runs: Sequence[VideoRun], *, on_answer: Callable[[], None] | None = None) -> dict[str, object]:
        """`sem_cor`, `sum_fluen` and `sum_fluen_all`, 0 to 10, and how many calls were made, unreadable and failed.

        None where no answer could be read.  Raises `LiveStarError` where the endpoint refuses, or is not there.
        """
        counts = _Counts()
        questions = [question for index, run in enumerate(runs) for question in _questions(index, run, self._prompts)]

        def ask(question: _Question) -> float | None:
            grade = 0.0 if not question.prediction.strip() else self._ask(question, counts)
            if on_answer is not None:
                with counts.lock:
                    on_answer()
            return grade

        with ThreadPoolExecutor(self._config.num_parallel, thread_name_prefix="judge") as pool:
            futures = [pool.submit(ask, question) for question in questions]
            try:
                grades = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {
            **_means(questions, grades),
            "judge": {
                "model": self._config.model,
                "num_calls": counts.num_calls,
                "num_malformed": counts.num_malformed,
                "num_failed": counts.num_failed,
            },
        }

    def _ask(self, question: _Question, counts: _Counts) -> float | None:
        """One grade; None where the answers could not be read or the call failed."""
        for _ in range(1 + self._config.max_malformed):
            text = self._call(question.text, counts)
            if text is None:
                return None
            grade = parse_answer(text, question.names)
            if grade is not None:
                return grade
            with counts.lock:
                counts.num_malformed += 1
        return None

    def _call(self, text: str, counts: _Counts) -> str | None:
        where = display_name(self._config.base_url)
        temperature = self._openai.omit if self._config.temperature is None else self._config.temperature
        try:
            with counts.lock:
                if counts.given_up is not None:
                    raise LiveStarError(counts.given_up)
                counts.num_calls += 1
            answer = self._client.chat.completions.create(
                model=self._config.model, messages=[{"role": "user", "content": text}], temperature=temperature
            )
        except self._openai.APIStatusError as error:  # its message may quote the key, so only the number is shown
            if error.status_code in (400, 401, 403, 404, 422):
                raise LiveStarError(
                    f"the judge at {where} refuses with status {error.status_code}; check its address, --judge-model and its key"
                ) from None
            _note_failure(counts, f"the judge at {where} fails with status {error.status_code}; try again later")
            return None
        except self._openai.APIError as error:
            _note_failure(counts, f"the judge at {where} does not answer ({type(error).__name__}); is it running?")
            return None
        with counts.lock:
            counts.num_failed_in_a_row = 0
        choices = answer.choices or []
        return (choices[0].message.content or "") if choices else ""


def _note_failure(counts: _Counts, message: str) -> None:
    """Counts a failed call.  Raises `LiveStarError` where too many failed in a row, for this call and all that follow."""
    with counts.lock:
        counts.num_failed += 1
        counts.num_failed_in_a_row += 1
        if counts.num_failed_in_a_row >= MAX_FAILURES:
            counts.given_up = message
            raise LiveStarError(message) from None


class _Question(NamedTuple):
    """One call of the judge."""

    metric: str
    run: int
    prediction: str
    text: str
    names: tuple[str, ...]


def _questions(index: int, run: VideoRun, prompts: Prompts) -> list[_Question]:
    said = [next((response.text for response in responses_in(run, event)), "") for event in run.events]
    questions = [
        _question("sem_cor", index, prompts.sem_cor, event.caption, text, SEM_COR)
        for event, text in zip(run.events, said, strict=True)
    ]
    truth = " ".join(event.caption for event in run.events)
    first = " ".join(text for text in said if text)
    whole = " ".join(response.text for response in run.responses)
    questions.append(_question("sum_fluen", index, prompts.sum_fluen, truth, first, SUM_FLUEN))
    questions.append(_question("sum_fluen_all", index, prompts.sum_fluen, truth, whole, SUM_FLUEN))
    return questions


def _question(metric: str, run: int, prompt: str, truth: str, prediction: str, names: tuple[str, ...]) -> _Question:
    texts = {"{truth}": truth[:MAX_TEXT_CHARS], "{prediction}": prediction[:MAX_TEXT_CHARS]}
    text = re.sub("|".join(map(re.escape, PLACEHOLDERS)), lambda found: texts[found[0]], prompt)
    return _Question(metric, run, prediction, text, names)


def _means(questions: Sequence[_Question], grades: Sequence[float | None]) -> dict[str, float | None]:
    by_video: dict[str, dict[int, list[float]]] = {"sem_cor": {}, "sum_fluen": {}, "sum_fluen_all": {}}
    for question, grade in zip(questions, grades, strict=True):
        if grade is not None:
            by_video[question.metric].setdefault(question.run, []).append(grade)
    return {
        metric: fmean(fmean(of_video) for of_video in videos.values()) if videos else None for metric, videos in by_video.items()
    }


def _load_prompt(folder: Path | None, name: str) -> str:
    if folder is None:
        text = (resources.files("livestar.evaluation") / "prompts" / name).read_text(encoding="utf-8")
        return text
    path = folder / name
    if folder.is_dir() and not path.exists():
        return _load_prompt(None, name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"the judge's prompt {path} cannot be read; give a folder with {name} in UTF-8") from error
    missing = [mark for mark in PLACEHOLDERS if mark not in text]
    if missing or len(text) > MAX_PROMPT_CHARS:
        what = f"has no {missing[0]}" if missing else f"is longer than {MAX_PROMPT_CHARS} characters"
        raise InvalidConfig(f"the judge's prompt {path} {what}; see the packaged one for an example")
    return text
