"""The rows of every layout, spelled out."""

from __future__ import annotations

import pytest

from livestar.config import GateName
from livestar.gate.layout import CompatLayout, Fork, LeafLayout, ScamLayout, make_layout
from tests.unit.toy_prompt import readable, toy_prompt

pytestmark = pytest.mark.unit

PROMPT = toy_prompt()
LINE = PROMPT.frame_line(7, 1)
CAPTION = PROMPT.caption("hi")
ANSWER = "{assistant\nhi"


def spelled(fork: Fork) -> tuple[str, str]:
    """A fork's rows, and what is scored, which its last rows must predict."""
    assert fork.rows[len(fork.rows) - len(fork.targets) + 1 :] == fork.targets[:-1]
    return readable(fork.rows), readable(fork.targets)


def test_the_parts_of_a_prompt() -> None:
    assert readable(PROMPT.opening()) == "^{system\nSYS}\n{user\nDO\n"
    assert readable(LINE) == "Frame-7: [###]\n"
    assert readable(CAPTION.rows) == ANSWER
    assert readable(CAPTION.targets) == "hi}"


def test_compat_scores_a_repetition_and_takes_it_as_reference_too() -> None:
    layout = make_layout("compat", PROMPT, None)
    assert isinstance(layout, CompatLayout)
    repeated = f"}}\n{ANSWER}}}\n{{user\nFrame-7: [###]\n}}\n{ANSWER}"
    assert spelled(layout.verification(LINE, CAPTION)) == (repeated, "hi}")
    assert spelled(layout.reference(LINE, CAPTION)) == (repeated, "hi}")
    assert readable(layout.frame(LINE, is_first=True)) == readable(layout.frame(LINE, is_first=False)) == "Frame-7: [###]\n"
    assert readable(layout.answer()) == "}\n{assistant\n"
    assert readable(layout.closing(CAPTION)) == f"}}\n{ANSWER}}}\n{{user\n"


def test_scam_scores_the_caption_without_a_copy_of_it() -> None:
    layout = make_layout("scam", PROMPT, None)
    assert isinstance(layout, ScamLayout)
    assert spelled(layout.verification(LINE, CAPTION)) == (f"Frame-7: [###]\n}}\n{ANSWER}", "hi}")
    assert spelled(layout.reference(LINE, CAPTION)) == (f"}}\n{ANSWER}", "hi}")
    assert readable(layout.frame(LINE, is_first=False)) == "Frame-7: [###]\n"
    assert readable(layout.answer()) == "}\n{assistant\n"
    assert readable(layout.closing(CAPTION)) == f"}}\n{ANSWER}}}\n{{user\n"


def test_leaf_gives_every_frame_a_turn_and_hangs_the_caption_behind_it() -> None:
    layout = make_layout("leaf", PROMPT, None)
    assert isinstance(layout, LeafLayout)
    assert readable(layout.frame(LINE, is_first=True)) == "Frame-7: [###]\n}\n"
    assert readable(layout.frame(LINE, is_first=False)) == "{user\nFrame-7: [###]\n}\n"
    assert spelled(layout.verification(LINE, CAPTION)) == (f"{{user\nFrame-7: [###]\n}}\n{ANSWER}", "hi}")
    assert spelled(layout.reference(LINE, CAPTION)) == (ANSWER, "hi}")
    assert readable(layout.answer()) == "{assistant\n"
    assert layout.closing(CAPTION) == ()


@pytest.mark.parametrize(
    ("gate", "keep_captions", "expected"),
    [
        ("compat", None, True), ("compat", True, True), ("compat", False, False),
        ("scam", None, True), ("scam", True, True), ("scam", False, False),
        ("leaf", None, False), ("leaf", True, True), ("leaf", False, False),
    ],
)  # fmt: skip
def test_captions_stay_as_asked_or_as_the_gate_has_it(gate: GateName, keep_captions: bool | None, expected: bool) -> None:
    layout = make_layout(gate, PROMPT, keep_captions)
    assert layout.keep_captions is expected
    assert bool(layout.closing(CAPTION)) is expected


def test_a_caption_kept_by_leaf_is_a_whole_turn() -> None:
    assert readable(make_layout("leaf", PROMPT, True).closing(CAPTION)) == f"{ANSWER}}}\n"


@pytest.mark.parametrize("gate", ["compat", "scam", "leaf"])
@pytest.mark.parametrize("keep_captions", [True, False])
def test_what_a_gate_builds_reads_as_one_dialogue(gate: GateName, keep_captions: bool) -> None:
    """Turns open and close in turn, whatever the order of frames and captions."""
    layout = make_layout(gate, PROMPT, keep_captions)
    rows = PROMPT.opening()
    for number in range(1, 7):
        if number in {3, 4}:
            rows += layout.closing(CAPTION)
        line = PROMPT.frame_line(number, 0)
        if number > 1:
            assert_alternates(readable((*rows, *layout.verification(line, CAPTION).rows)))
        rows += layout.frame(line, is_first=number == 1)
        assert_alternates(readable((*rows, *layout.answer())))


def assert_alternates(dialogue: str) -> None:
    depth = 0
    for character in dialogue:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth in {0, 1}, dialogue
