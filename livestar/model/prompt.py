"""The text around the frames: one source of truth for inference and training.

A row is one position of the context.  Text rows are token ids; the rows of a frame's visual tokens are negative, so that a
plain list of integers can say which frame's tokens go where (see `visual_rows`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from livestar.errors import InvalidCheckpoint, InvalidConfig
from livestar.model.tokenizer import BEGIN, IMAGE_END, IMAGE_START, TURN_END, TURN_START

if TYPE_CHECKING:
    from livestar.model.tokenizer import Tokenizer

SYSTEM_MESSAGE = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
"""System message of the released `internvl2_5` template."""

TASK_PROMPT = (
    "You are an expert in real-time streaming video description. I will provide video frames sequentially, and you need to "
    "comprehend each frame's content in real-time while dynamically generating concise descriptions. Use transitional "
    "phrases to maintain textual coherence and avoid repeating already described content.\n"
)
"""Task that the released code prefixes to the first frame."""

Rows = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CaptionRows:
    """A caption as an assistant's turn."""

    text: str
    rows: Rows
    """Header and caption, without the end of the turn."""
    targets: Rows
    """What verification scores: the caption's tokens and the end-of-turn token.

    The last len(targets) of `rows` predict them, one each.
    """


class Prompt:
    """Builds every piece of the context, with the tokenizer and messages of one checkpoint.

    Pieces are tokenised apart and joined; for the released tokenizer that equals tokenising the whole text (tested).
    """

    def __init__(
        self, tokenizer: Tokenizer, *, num_visual_tokens: int, system_message: str | None = None, task: str | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.num_visual_tokens = num_visual_tokens
        self.system_message = SYSTEM_MESSAGE if system_message is None else system_message
        self.task = TASK_PROMPT if task is None else task

    def _id(self, token: str) -> int:
        number = self.tokenizer.token_id(token)
        if number is None:
            raise InvalidCheckpoint(f"the tokenizer has no {token}")
        return number

    @cached_property
    def stop_id(self) -> int:
        """The token that ends a turn, and with it a caption."""
        return self._id(TURN_END)

    @cached_property
    def turn_end(self) -> Rows:
        """What follows the last frame or caption of a turn."""
        return tuple(self.tokenizer.encode(f"{TURN_END}\n"))

    @cached_property
    def user_header(self) -> Rows:
        """What a user's turn starts with."""
        return tuple(self.tokenizer.encode(f"{TURN_START}user\n"))

    @cached_property
    def assistant_header(self) -> Rows:
        """What an assistant's turn starts with."""
        return tuple(self.tokenizer.encode(f"{TURN_START}assistant\n"))

    def opening(self, task: str | None = None) -> Rows:
        """All that stands before the first frame line: system block, header of the first user turn, task.

        Raises `InvalidConfig` where the task holds a control token, which would break out of its turn.
        """
        task = self.task if task is None else task
        if not task.isascii() and any("\ud800" <= character <= "\udfff" for character in task):
            raise InvalidConfig("the prompt is not valid UTF-8; type it again")
        forged = sorted(token for token in self.tokenizer.control_tokens if token in task)
        if forged:
            raise InvalidConfig(f"the prompt contains the control token {forged[0]}; take it out")
        if task and not task.endswith("\n"):
            task += "\n"
        system = f"{TURN_START}system\n{self.system_message}{TURN_END}\n"
        return (self._id(BEGIN), *self.tokenizer.encode(f"{system}{TURN_START}user\n{task}"))

    def frame_line(self, number: int, slot: int) -> Rows:
        """The line of frame `number`, from 1, whose visual tokens are in feature slot `slot`."""
        label = self.tokenizer.encode(f"Frame-{number}: ")
        return (*label, self._id(IMAGE_START), *visual_rows(slot, self.num_visual_tokens), self._id(IMAGE_END), *self._newline)

    @cached_property
    def _newline(self) -> Rows:
        return tuple(self.tokenizer.encode("\n"))

    def caption(self, text: str) -> CaptionRows:
        """A caption's turn, tokenised in one piece with its header as the released loop does."""
        turn = self.tokenizer.encode(f"{TURN_START}assistant\n{text}{TURN_END}\n")
        rows = tuple(turn[: len(turn) - len(self.turn_end)])
        return CaptionRows(text, rows, (*rows[len(self.assistant_header) :], self.stop_id))

    def caption_text(self, ids: list[int]) -> str:
        """The text of generated ids, cut at the end of the turn and stripped, as the released loop keeps it."""
        return self.tokenizer.decode(ids).split(TURN_END)[0].strip()


def visual_rows(slot: int, num_visual_tokens: int) -> Rows:
    """Rows that stand for the visual tokens in feature slot `slot`: row -(n + 1) is line n of the feature table."""
    first = slot * num_visual_tokens
    return tuple(-(first + j + 1) for j in range(num_visual_tokens))
