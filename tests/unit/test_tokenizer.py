"""Both kinds of tokenizer: round trips, control tokens, decoding, and files that do not hold together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from livestar.errors import InvalidCheckpoint
from livestar.model.tokenizer import (
    MAX_UNUSED_IDS,
    REQUIRED_TOKENS,
    JsonTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
)
from tests.checkpoints import CONTROL_TOKENS

pytestmark = pytest.mark.unit

PLAIN = st.text(st.characters(codec="utf-8", categories=["L", "N", "So"]) | st.sampled_from(" -_\n"), max_size=40)
"""Text without the punctuation whose spaces decoding cleans up."""


@pytest.fixture(scope="module")
def fast(json_checkpoint: Path) -> JsonTokenizer:
    return JsonTokenizer(json_checkpoint)


@pytest.fixture(scope="module")
def pieces(sentencepiece_checkpoint: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(sentencepiece_checkpoint)


@pytest.fixture(params=["json", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, fast: JsonTokenizer, pieces: SentencePieceTokenizer) -> Tokenizer:
    return fast if request.param == "json" else pieces


@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_bytes_make_every_text_come_back(fast: JsonTokenizer, text: str) -> None:
    if not any(token in text for token in CONTROL_TOKENS):
        assert fast.decode(fast.encode(text)) == text


@given(text=PLAIN)
def test_sentencepiece_with_byte_fallback_brings_plain_text_back(pieces: SentencePieceTokenizer, text: str) -> None:
    assert pieces.decode(pieces.encode(text)) == text


def test_ids_stay_below_the_size(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("A red car; 你看一条街 \U0001f600\n" + "".join(CONTROL_TOKENS))
    assert all(0 <= number < tokenizer.size for number in ids)


def test_empty_text_is_no_id_and_no_id_is_empty_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_nothing_is_put_before_or_after(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("car")[0] != tokenizer.token_id("<s>")
    assert tokenizer.encode("car" + "\n") == tokenizer.encode("car") + tokenizer.encode("\n")


def test_control_tokens_in_text_become_their_ids_and_decode_to_nothing(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.token_id(token) for token in CONTROL_TOKENS]
    assert None not in ids
    assert len(set(ids)) == len(ids)
    assert tokenizer.encode("".join(CONTROL_TOKENS)) == ids
    assert tokenizer.decode(tokenizer.encode("".join(CONTROL_TOKENS))) == ""
    assert set(CONTROL_TOKENS) <= tokenizer.control_tokens
    assert tokenizer.token_id("<nothing>") is None


def test_control_tokens_split_the_text_around_them(tokenizer: Tokenizer) -> None:
    stop = tokenizer.token_id("<|im_end|>")
    assert tokenizer.encode("a car<|im_end|>\nthe") == [*tokenizer.encode("a car"), stop, *tokenizer.encode("\nthe")]


def test_ids_beyond_the_tokenizer_decode_to_nothing(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("red car")
    assert tokenizer.decode([*ids, tokenizer.size, tokenizer.size + 2]) == "red car"


def test_half_a_character_decodes_to_the_replacement_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\U0001f600")
    assert len(ids) == 4
    assert "�" in tokenizer.decode(ids[:2])


def test_the_json_tokenizer_equals_transformers(json_checkpoint: Path, fast: JsonTokenizer) -> None:
    other = PreTrainedTokenizerFast(tokenizer_file=str(json_checkpoint / "tokenizer.json"), clean_up_tokenization_spaces=False)
    text = "The driver's car <|im_end|>\nturned; 你看。"
    assert fast.encode(text) == other.encode(text, add_special_tokens=False)
    assert fast.decode(fast.encode(text)) == other.decode(other.encode(text), skip_special_tokens=True)


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("Hello , world .", "Hello, world."),
        ("is it ? yes !", "is it? yes!"),
        ("do n't , it 's", "don't, it's"),
        ("they 've I 'm we 're", "they've I'm we're"),
        ("rock ' n", "rock'n"),
        ("a  b", "a  b"),
    ],
)
def test_sentencepiece_decoding_cleans_up_english_spaces(pieces: SentencePieceTokenizer, text: str, decoded: str) -> None:
    assert pieces.decode(pieces.encode(text)) == decoded


def test_visible_added_tokens_stand_between_spaces(sentencepiece_checkpoint: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(sentencepiece_checkpoint, tmp_path / "copy")
    config = json.loads((directory / "tokenizer_config.json").read_text())
    number = max(int(key) for key in config["added_tokens_decoder"])
    config["added_tokens_decoder"][str(number)] = {"content": "<IMG_CONTEXT>", "special": False}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = SentencePieceTokenizer(directory)
    assert "<IMG_CONTEXT>" not in tokenizer.control_tokens
    assert tokenizer.decode(tokenizer.encode("red<IMG_CONTEXT>car<|im_end|>s")) == "red <IMG_CONTEXT> cars"


# Files that do not hold together


@pytest.fixture
def json_copy(json_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(json_checkpoint, tmp_path / "json")


@pytest.fixture
def sentencepiece_copy(sentencepiece_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sentencepiece_checkpoint, tmp_path / "sentencepiece")


def test_a_tokenizer_that_fits_is_loaded(json_copy: Path, sentencepiece_copy: Path) -> None:
    assert isinstance(load_tokenizer(json_copy, 403), JsonTokenizer)
    assert isinstance(load_tokenizer(sentencepiece_copy, 426), SentencePieceTokenizer)


def test_tokenizer_json_is_taken_where_both_are_there(json_copy: Path, sentencepiece_copy: Path) -> None:
    shutil.copy(sentencepiece_copy / "tokenizer.model", json_copy)
    assert isinstance(load_tokenizer(json_copy, 403), JsonTokenizer)


def test_no_tokenizer_at_all(json_copy: Path) -> None:
    (json_copy / "tokenizer.json").unlink()
    with pytest.raises(InvalidCheckpoint, match=r"neither tokenizer\.json nor tokenizer\.model"):
        load_tokenizer(json_copy, 403)


@pytest.mark.parametrize("vocab_size", [399, 100, 400 + MAX_UNUSED_IDS + 1, 92560])
def test_a_tokenizer_of_another_size_is_refused(json_copy: Path, vocab_size: int) -> None:
    with pytest.raises(InvalidCheckpoint, match=f"has 400 tokens, config.json says {vocab_size}; they do not belong together"):
        load_tokenizer(json_copy, vocab_size)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"garbage \xff\xfe", b'{"model": 1}'])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
def test_garbage_is_refused(json_copy: Path, sentencepiece_copy: Path, file: str, content: bytes) -> None:
    directory = json_copy if file == "tokenizer.json" else sentencepiece_copy
    (directory / file).write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=file):
        load_tokenizer(directory, 403)


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'"x"'])
def test_garbage_beside_a_sentencepiece_model_is_refused(sentencepiece_copy: Path, file: str, content: bytes) -> None:
    (sentencepiece_copy / file).write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=file):
        load_tokenizer(sentencepiece_copy, 426)


@pytest.mark.parametrize("token", REQUIRED_TOKENS)
def test_a_missing_control_token_is_named(json_copy: Path, token: str) -> None:
    path = json_copy / "tokenizer.json"
    path.write_text(path.read_text().replace(f'"{token}"', '"<other>"'))
    with pytest.raises(InvalidCheckpoint) as refused:
        load_tokenizer(json_copy, 403)
    assert f"has no {token};" in str(refused.value)


def test_a_model_with_too_few_pieces_is_refused(sentencepiece_copy: Path) -> None:
    path = sentencepiece_copy / "added_tokens.json"
    path.write_text(json.dumps({token: number + 40 for token, number in json.loads(path.read_text()).items()}))
    with pytest.raises(InvalidCheckpoint, match="wrong tokenizer: it has 420 pieces, but its added tokens start at"):
        load_tokenizer(sentencepiece_copy, 470)


def test_a_model_with_another_vocabulary_is_refused(sentencepiece_copy: Path) -> None:
    """Its config puts control tokens where this model has pieces of its own."""
    path = sentencepiece_copy / "tokenizer_config.json"
    config = json.loads(path.read_text())
    entry = config["added_tokens_decoder"].pop("3")
    config["added_tokens_decoder"]["300"] = entry
    path.write_text(json.dumps(config))
    with pytest.raises(InvalidCheckpoint, match=r"wrong tokenizer: id 300 is .* there, '<\|im_end\|>' in its config"):
        load_tokenizer(sentencepiece_copy, 426)


def test_a_model_without_its_added_tokens_is_refused(sentencepiece_copy: Path) -> None:
    (sentencepiece_copy / "added_tokens.json").unlink()
    (sentencepiece_copy / "tokenizer_config.json").unlink()
    with pytest.raises(InvalidCheckpoint, match=r"has no <s>, <\|im_start\|>"):
        load_tokenizer(sentencepiece_copy, 426)
