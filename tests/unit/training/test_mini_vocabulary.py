"""livestar-mini's tokenizer: what is one token, what fits, and that it is always the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from livestar.model.prompt import Prompt
from livestar.model.tokenizer import TURN_END, TURN_START, load_tokenizer
from training.mini.vocabulary import MAX_IDS, train_vocabulary
from training.mini.words import WORDS

pytestmark = pytest.mark.unit

CAPTIONS = ["A red car drives past the bakery.", "Two people wait at the crossing.", "Nobody is in the room."] * 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_vocabulary(CAPTIONS)


def test_it_is_full_and_no_larger(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size(with_added_tokens=True) == MAX_IDS == 2048


def test_a_frames_label_is_one_token_and_each_digit_another(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("Frame-1203: ").tokens == ["Frame-", "1", "2", "0", "3", ":", "Ġ"]
    assert tokenizer.encode("at 14:35").tokens[-5:] == ["1", "4", ":", "3", "5"]


def test_captions_and_everyday_words_are_short(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(CAPTIONS[0]).tokens == ["A", "Ġred", "Ġcar", "Ġdrives", "Ġpast", "Ġthe", "Ġbakery", "."]
    lengths = [len(tokenizer.encode(f" {word}").ids) for word in {*WORDS}]
    assert len(lengths) > 600
    assert sum(lengths) / len(lengths) < 1.3
    assert max(lengths) <= 4


def test_words_of_the_captions_win_over_everyday_ones() -> None:
    captions = [f"The quokka zibbles number {n}." for n in range(50)]
    tokens = train_vocabulary(captions, max_ids=1024).encode(captions[0]).tokens
    assert "Ġquokka" in tokens
    assert "Ġzibbles" in tokens


def test_the_prompts_pieces_are_the_whole_texts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path, MAX_IDS)
    prompt = Prompt(loaded, num_visual_tokens=1, system_message="You watch a video.", task="Say what happens.\n")
    text = f"<s>{TURN_START}system\nYou watch a video.{TURN_END}\n{TURN_START}user\nSay what happens.\nFrame-1: <img></img>\n"
    visual = [row for row in prompt.frame_line(1, 0) if row < 0]
    assert len(visual) == 1
    assert [row for row in (*prompt.opening(), *prompt.frame_line(1, 0)) if row >= 0] == loaded.encode(text)
    assert len(prompt.frame_line(1, 0)) == 8
    assert "Frame-" not in loaded.control_tokens


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    tokenizer = train_vocabulary(CAPTIONS[:1], max_ids=400)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_the_order_of_captions_and_the_process_make_no_difference(tokenizer: Tokenizer) -> None:
    assert train_vocabulary(reversed(CAPTIONS)).to_str() == tokenizer.to_str()
    code = f"from training.mini.vocabulary import train_vocabulary; print(train_vocabulary({CAPTIONS!r}).to_str())"
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", check=True)
        assert run.stdout.rstrip("\n") == tokenizer.to_str()
