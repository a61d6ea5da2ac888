"""The released tokenizer's counts and rules, which the published token budgets rest on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livestar.config import GateName
from livestar.gate.layout import make_layout
from livestar.model.prompt import SYSTEM_MESSAGE, TASK_PROMPT, Prompt
from livestar.model.tokenizer import Tokenizer, load_tokenizer

pytestmark = pytest.mark.integration

CAPTION = "A red car turns into the street and stops; then the driver gets out, looks around and walks to the door."


@pytest.fixture(scope="module")
def tokenizer(golden_dir: Path) -> Tokenizer:
    return load_tokenizer(golden_dir / "tokenizer", 92560)


@pytest.fixture(scope="module")
def prompt(tokenizer: Tokenizer) -> Prompt:
    return Prompt(tokenizer, num_visual_tokens=16)


def test_the_control_tokens_have_their_published_ids(tokenizer: Tokenizer) -> None:
    ids = {"<s>": 1, "<|im_end|>": 92542, "<|im_start|>": 92543, "<img>": 92544, "</img>": 92545, "<IMG_CONTEXT>": 92546}
    assert {token: tokenizer.token_id(token) for token in ids} == ids
    assert tokenizer.size == 92560
    assert ids.keys() <= tokenizer.control_tokens


def test_pieces_have_the_published_lengths(prompt: Prompt) -> None:
    assert prompt.user_header == (92543, 1008, 364)
    assert prompt.assistant_header == (92543, 525, 11353, 364)
    assert prompt.turn_end == (92542, 364)
    assert len(prompt.opening("")) == 38 + 3
    assert len(prompt.opening()) == 38 + 3 + 55
    assert [len(prompt.frame_line(number, 0)) for number in (1, 9, 10, 99, 999, 1000, 9999)] == [24] * 5 + [25] * 2
    assert len((*prompt.opening(), *prompt.frame_line(1, 0), *prompt.turn_end, *prompt.assistant_header)) == 126


@pytest.mark.parametrize(
    ("gate", "per_frame", "verification", "reference"),
    [("compat", 24, (41, 2), (41, 2)), ("scam", 24, (24 + 6, 1), (6, 1)), ("leaf", 29, (29 + 4, 1), (4, 1))],
)
def test_verifications_have_the_published_lengths(
    prompt: Prompt, gate: GateName, per_frame: int, verification: tuple[int, int], reference: tuple[int, int]
) -> None:
    layout = make_layout(gate, prompt, None)
    line, caption = prompt.frame_line(7, 0), prompt.caption(CAPTION)
    length = len(caption.targets) - 1
    assert length > 20
    assert len(layout.frame(line, is_first=False)) == per_frame
    fixed, times = verification
    assert len(layout.verification(line, caption).rows) == fixed + times * length
    fixed, times = reference
    assert len(layout.reference(line, caption).rows) == fixed + times * length


@pytest.mark.parametrize("caption", [CAPTION, "", "你好，世界。", "1\n2", "…", " x", "\U0001f600"])
def test_joint_tokenisation_equals_the_pieces(tokenizer: Tokenizer, prompt: Prompt, caption: str) -> None:
    lines = [prompt.frame_line(number, 0) for number in (1, 10, 1000)]
    turn = prompt.caption(caption)
    context_id = tokenizer.token_id("<IMG_CONTEXT>")
    rows = [*prompt.opening(), *lines[0], *lines[1], *prompt.turn_end, *turn.rows, *prompt.turn_end]
    rows += [*prompt.user_header, *lines[2], *prompt.turn_end, *prompt.assistant_header]
    picture = f"<img>{'<IMG_CONTEXT>' * 16}</img>\n"
    text = (
        f"<s><|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n<|im_start|>user\n{TASK_PROMPT}"
        f"Frame-1: {picture}Frame-10: {picture}<|im_end|>\n<|im_start|>assistant\n{caption}<|im_end|>\n"
        f"<|im_start|>user\nFrame-1000: {picture}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [context_id if row < 0 else row for row in rows] == tokenizer.encode(text)
    assert turn.rows[-len(turn.targets) + 1 :] == turn.targets[:-1] or len(turn.targets) == 1


def test_captions_of_the_golden_traces_survive_the_round_trip(golden_dir: Path, tokenizer: Tokenizer) -> None:
    for case in ("case1", "case2"):
        for entry in json.loads((golden_dir / case / "trace.json").read_text())["frames"]:
            if entry["caption"]:
                assert tokenizer.decode(tokenizer.encode(entry["caption"])).strip() == entry["caption"]


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("Hello , world .", "Hello, world."),
        ("it 's", "it's"),
        ("a  b", "a  b"),
        ("\n", "\n"),
        ("", ""),
        ("<|im_start|>x<|im_end|>y</s>", "xy"),
    ],
)
def test_decoding_cleans_up_as_the_released_tokenizer_does(tokenizer: Tokenizer, text: str, decoded: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == decoded


def test_decoding_leaves_unused_ids_out(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("red car")
    assert tokenizer.decode([*ids, 92542, 92546, 99999]) == "red car"
