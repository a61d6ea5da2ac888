"""Asking a model questions while it watches.

A video is watched once; at each moment its questions are laid behind the frames so far, each apart, and nothing of them stays.
The answer is the choice that the model finds likeliest, by the perplexity of the choice's tokens and the end of the turn: a model
that was trained to narrate need not follow instructions to be measured, and no wording has to be parsed.  The published code lets
a model write instead, so numbers are not comparable with leaderboards of models that follow instructions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from livestar.annotations.footage import read_frames
from livestar.annotations.types import AnnotatedVideo
from livestar.config import RetentionConfig
from livestar.engine.admission import make_prompt, plan_stream
from livestar.errors import LiveStarError
from livestar.evaluation.runs import EPSILON_S
from livestar.evaluation.teacher import Teacher
from livestar.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from livestar.config import StreamConfig
    from livestar.evaluation.benchmarks.question import Question
    from livestar.session import Checkpoint

POLL_S = 1.0
"""How often a proactive question is asked, in seconds, as in the published code."""


class Answer(NamedTuple):
    """What came of a question."""

    question: Question
    choice: int | None
    """Index of the likeliest choice; None where the question was never asked."""
    time_s: float | None
    """When it was answered; for a proactive one the first moment at which yes was likelier, None for never."""
    error: str | None = None
    """Why it was not asked."""


def ask_all(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    *,
    fps: float,
    stream: StreamConfig,
    on_answer: Callable[[], None] | None = None,
) -> list[Answer]:
    """Answers, in the order of the questions.  A video that cannot be read is noted in its answers."""
    groups: dict[tuple[str, float], list[int]] = defaultdict(list)
    for i, question in enumerate(questions):
        groups[str(question.video), question.begin_s].append(i)
    answers: dict[int, Answer] = {}
    for indices in groups.values():
        asked = [questions[i] for i in indices]
        for i, answer in zip(indices, _ask_video(checkpoint, asked, fps, stream), strict=True):
            answers[i] = answer
            if on_answer is not None:
                on_answer()
    return [answers[i] for i in range(len(questions))]


@torch.inference_mode()
def _ask_video(checkpoint: Checkpoint, questions: Sequence[Question], fps: float, stream: StreamConfig) -> list[Answer]:
    """Answers to questions on one video from one begin on."""
    model = checkpoint.model
    prompt = make_prompt(model.config, checkpoint.tokenizer)
    longest = max(len(checkpoint.tokenizer.encode(question.text)) for question in questions) + 64
    stream = replace(
        stream,
        retention=RetentionConfig(name="window", kv_tokens=stream.retention.kv_tokens),
        sampling=replace(stream.sampling, max_new_tokens=longest),
    )
    choices = {text: prompt.caption(text) for question in questions for text in question.choices}
    last_s = max(math.inf if question.time_s is None else question.time_s for question in questions)
    answers: dict[int, Answer] = {}
    open_questions = dict(enumerate(questions))

    def ask(question: Question) -> int:
        scores = [teacher.score_answer(question.text, choices[text]).perplexity for text in question.choices]
        return scores.index(min(scores))

    def ask_due(next_s: float | None, now_s: float) -> None:
        """Asks all that must be asked before a frame at `next_s` (None: no more) is shown, the newest having come at `now_s`."""
        for i, question in list(open_questions.items()):
            moment_s = math.inf if question.time_s is None else question.time_s
            is_over = next_s is None or next_s > moment_s + EPSILON_S
            if question.due_s is None:
                if is_over:
                    answers[i] = Answer(question, ask(question), now_s)
            elif now_s >= polled.get(i, question.begin_s) + POLL_S - EPSILON_S:
                polled[i] = now_s
                if ask(question) == question.answer:
                    answers[i] = Answer(question, question.answer, now_s)
            if i not in answers and is_over:
                answers[i] = Answer(question, 1 - question.answer, None)
            if i in answers:
                del open_questions[i]

    polled: dict[int, float] = {}
    try:
        teacher = Teacher(model, plan_stream(model.config, checkpoint.tokenizer, stream))
        end_s = None if math.isinf(last_s) else last_s + 1 / fps
        video = AnnotatedVideo(source=str(questions[0].video), events=(), begin_s=questions[0].begin_s, end_s=end_s)
        now_s: float | None = None
        for number, (time_s, image) in enumerate(read_frames(video, fps=fps, image_size=model.config.vision.image_size), start=1):
            if now_s is not None:
                ask_due(time_s, now_s)
            if not open_questions:
                break
            teacher.watch(Frame(number, time_s, image))
            now_s = time_s
        if now_s is not None:
            ask_due(None, now_s)
    except LiveStarError as error:
        for i, question in open_questions.items():
            answers[i] = Answer(question, None, None, str(error))
    return [answers[i] for i in range(len(questions))]
