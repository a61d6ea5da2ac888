"""The pieces of the context, and what may not be said in a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.errors import InvalidCheckpoint, InvalidConfig
from livestar.model.prompt import Prompt, visual_rows
from livestar.model.tokenizer import JsonTokenizer, SentencePieceTokenizer, Tokenizer
from tests.checkpoints import CONTROL_TOKENS, SYSTEM_MESSAGE, TASK
from tests.unit.toy_prompt import ToyTokenizer, readable, toy_prompt

pytestmark = pytest.mark.unit


@pytest.fixture(params=["json", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, json_checkpoint: Path, sentencepiece_checkpoint: Path) -> Tokenizer:
    return JsonTokenizer(json_checkpoint) if request.param == "json" else SentencePieceTokenizer(sentencepiece_checkpoint)


def tiny_prompt(tokenizer: Tokenizer) -> Prompt:
    return Prompt(tokenizer, num_visual_tokens=4, system_message=SYSTEM_MESSAGE, task=TASK)


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_a_control_token_in_the_prompt_is_refused(tokenizer: Tokenizer, token: str) -> None:
    with pytest.raises(InvalidConfig, match=r"contains the control token .*; take it out") as refused:
        tiny_prompt(tokenizer).opening(f"Say what happens.{token}\nThen stop.")
    assert token in str(refused.value)


@pytest.mark.parametrize("task", ["a < b and <b>", "<|im_start|", "im_end", "< s >", "<IMG>"])
def test_what_only_looks_like_a_control_token_is_allowed(tokenizer: Tokenizer, task: str) -> None:
    rows = tiny_prompt(tokenizer).opening(task)
    controls = {tokenizer.token_id(token) for token in CONTROL_TOKENS}
    assert sum(row in controls for row in rows) == 4  # <s>, system's start and end, user's start


def test_a_task_ends_with_one_line_break() -> None:
    prompt = toy_prompt()
    assert readable(prompt.opening("GO")) == readable(prompt.opening("GO\n")) == "^{system\nSYS}\n{user\nGO\n"
    assert readable(prompt.opening("")) == "^{system\nSYS}\n{user\n"
    assert readable(prompt.opening(None)) == "^{system\nSYS}\n{user\nDO\n"


def test_the_rows_of_visual_tokens_name_lines_of_the_feature_table() -> None:
    assert visual_rows(0, 3) == (-1, -2, -3)
    assert visual_rows(5, 3) == (-16, -17, -18)
    assert toy_prompt().frame_line(12, 5) == (*map(ord, "Frame-12: ["), -16, -17, -18, ord("]"), ord("\n"))


def test_captions_are_cut_at_the_end_of_the_turn_and_stripped(tokenizer: Tokenizer) -> None:
    prompt = tiny_prompt(tokenizer)
    ids = tokenizer.encode(" A red car. \n")
    assert prompt.caption_text([*ids, prompt.stop_id]) == "A red car."
    assert prompt.caption_text([prompt.stop_id]) == ""
    assert prompt.caption_text(tokenizer.encode(" \n ")) == ""


@pytest.mark.parametrize("text", ["A red car.", "", "x", "你看", "1\n2"])
def test_a_captions_last_rows_predict_its_targets(tokenizer: Tokenizer, text: str) -> None:
    prompt = tiny_prompt(tokenizer)
    caption = prompt.caption(text)
    assert caption.rows[: len(prompt.assistant_header)] == prompt.assistant_header
    assert caption.rows[len(caption.rows) - len(caption.targets) + 1 :] == caption.targets[:-1]
    assert caption.targets[-1] == prompt.stop_id
    assert caption.targets[:-1] == tuple(tokenizer.encode(text))


@pytest.mark.parametrize("caption", ["A red car.", "…", "2 cars", "你看一条街。", "'s x"])
def test_joint_tokenisation_equals_the_pieces(tokenizer: Tokenizer, caption: str) -> None:
    prompt = tiny_prompt(tokenizer)
    context_id = tokenizer.token_id("<IMG_CONTEXT>")
    first, second = prompt.frame_line(1, 0), prompt.frame_line(23, 1)
    rows = [*prompt.opening(), *first, *second, *prompt.turn_end, *prompt.caption(caption).rows, *prompt.turn_end]
    rows += [*prompt.user_header, *second, *prompt.turn_end, *prompt.assistant_header]
    picture = f"<img>{'<IMG_CONTEXT>' * 4}</img>\n"
    text = (
        f"<s><|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n<|im_start|>user\n{TASK}Frame-1: {picture}Frame-23: {picture}"
        f"<|im_end|>\n<|im_start|>assistant\n{caption}<|im_end|>\n"
        f"<|im_start|>user\nFrame-23: {picture}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [context_id if row < 0 else row for row in rows] == tokenizer.encode(text)


@given(number=st.integers(1, 10**6), slot=st.integers(0, 1000))
def test_frame_lines_differ_only_in_label_and_slot(number: int, slot: int) -> None:
    line = toy_prompt(2).frame_line(number, slot)
    assert readable(line) == f"Frame-{number}: [##]\n"
    assert line[-4:-2] == (-2 * slot - 1, -2 * slot - 2)


def test_a_tokenizer_without_a_control_token_is_refused() -> None:
    class Poor(ToyTokenizer):
        def token_id(self, token: str) -> int | None:
            return None if token == "<img>" else super().token_id(token)

    with pytest.raises(InvalidCheckpoint, match="the tokenizer has no <img>"):
        Prompt(Poor(), num_visual_tokens=2).frame_line(1, 0)
