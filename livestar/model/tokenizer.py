"""Text to token ids and back, for the two kinds of tokenizer that a checkpoint may carry."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol

from sentencepiece import SentencePieceProcessor, set_min_log_level
from tokenizers import Tokenizer as FastTokenizer

from livestar.errors import InvalidCheckpoint
from livestar.model.adapter import beside_or_base

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

BEGIN, IMAGE_START, IMAGE_END = "<s>", "<img>", "</img>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
REQUIRED_TOKENS = (BEGIN, TURN_START, TURN_END, IMAGE_START, IMAGE_END)
"""Control tokens that the prompt is made of."""

MAX_UNUSED_IDS = 1024
"""Embedding rows a checkpoint may have beyond its tokenizer, as padding; more means that the two do not belong together."""

RESERVED_PIECE = "[UNUSED_TOKEN_"
"""How InternLM2's SentencePiece model names the pieces that added tokens may take over."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
)
"""Files to copy along when a checkpoint is written; each is optional."""


class Tokenizer(Protocol):
    """What the prompt and the engine need of a tokenizer."""

    @property
    def size(self) -> int:
        """Number of ids, from 0."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; control tokens written in it become their ids, nothing is put before or after."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, control tokens left out."""
        ...

    def token_id(self, token: str) -> int | None:
        """Id of a whole token, or None."""
        ...

    @property
    def control_tokens(self) -> frozenset[str]:
        """Tokens that text from outside must not contain."""
        ...


class SentencePieceTokenizer:
    """tokenizer.model with the tokens of added_tokens.json, as the released checkpoint has it."""

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.model"
        set_min_log_level(2)  # it warns of a null piece in the released model
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(path.read_bytes())
        except (RuntimeError, OSError) as error:
            raise InvalidCheckpoint(
                f"{path} is not a SentencePiece model ({error}); copy it again from the checkpoint's source"
            ) from error
        num_pieces = self._pieces.GetPieceSize()
        self._added = _read_json(directory / "added_tokens.json")
        listed = _read_json(directory / "tokenizer_config.json").get("added_tokens_decoder", {})
        special: dict[int, bool] = {}
        try:
            for number, entry in listed.items():
                self._added.setdefault(entry["content"], int(number))
                special[int(number)] = bool(entry.get("special"))
            if any(type(number) is not int or number < 0 for number in self._added.values()):
                raise ValueError("an id is not a number from 0")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidCheckpoint(
                f"the added tokens of {path} are not as they should be ({error}); copy the files again"
            ) from error
        for token, number in self._added.items():
            piece = self._pieces.IdToPiece(number) if number < num_pieces else token
            if piece != token and not piece.startswith(RESERVED_PIECE):
                raise InvalidCheckpoint(f"{path} is the wrong tokenizer: id {number} is {piece!r} there, {token!r} in its config")
        beyond = sorted(number for number in self._added.values() if number >= num_pieces)
        if beyond != list(range(num_pieces, num_pieces + len(beyond))):
            raise InvalidCheckpoint(
                f"{path} is the wrong tokenizer: it has {num_pieces} pieces, but its added tokens start at {beyond[0]}"
            )
        self._names = {number: token for token, number in self._added.items()}
        self._special = {number for number in self._names if special.get(number, True)}
        self._split = re.compile("(" + "|".join(re.escape(t) for t in sorted(self._added, key=len, reverse=True)) + ")")
        self._size = num_pieces + len(beyond)

    @property
    def size(self) -> int:
        return self._size

    @property
    def control_tokens(self) -> frozenset[str]:
        return frozenset(self._names[number] for number in self._special)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._split.split(text) if self._added else [text]:
            if part in self._added:
                ids.append(self._added[part])
            elif part:
                ids.extend(self._pieces.EncodeAsIds(part))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """As the released tokenizer does it: visible added tokens stand between spaces, English spacing is cleaned up."""
        parts: list[str] = []
        run: list[int] = []
        for number in ids:
            if number in self._special or number >= self._size:
                continue
            if number in self._names:
                parts.extend([_clean_up(self._pieces.DecodeIds(run)), self._names[number]] if run else [self._names[number]])
                run = []
            else:
                run.append(number)
        if run:
            parts.append(_clean_up(self._pieces.DecodeIds(run)))
        return " ".join(part for part in parts if part)

    def token_id(self, token: str) -> int | None:
        return self._added.get(token)


class JsonTokenizer:
    """A tokenizer.json, complete in itself."""

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        try:
            self._tokenizer = FastTokenizer.from_file(str(path))
        except Exception as error:  # NOTE: the library raises bare Exception, for unreadable files too
            raise InvalidCheckpoint(f"{path} cannot be read ({error}); copy it again from the checkpoint's source") from error

    @property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def control_tokens(self) -> frozenset[str]:
        return frozenset(t.content for t in self._tokenizer.get_added_tokens_decoder().values() if t.special)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_id(self, token: str) -> int | None:
        number: int | None = self._tokenizer.token_to_id(token)
        return number


def load_tokenizer(directory: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer that lies beside config.json: tokenizer.json if there is one, else tokenizer.model.  An adapter without
    one has its base's.

    Raises `InvalidCheckpoint` where it is absent, damaged, lacks a control token, or does not fit `vocab_size`.
    """
    directory = beside_or_base(directory, "tokenizer.json", "tokenizer.model")
    tokenizer: Tokenizer
    if (directory / "tokenizer.json").exists():
        tokenizer = JsonTokenizer(directory)
    elif (directory / "tokenizer.model").exists():
        tokenizer = SentencePieceTokenizer(directory)
    else:
        raise InvalidCheckpoint(
            f"{directory} has neither tokenizer.json nor tokenizer.model; copy it from the checkpoint's source"
        )
    missing = [token for token in REQUIRED_TOKENS if tokenizer.token_id(token) is None]
    if missing:
        raise InvalidCheckpoint(f"the tokenizer in {directory} has no {', '.join(missing)}; it is not a LiveStar tokenizer")
    if not 0 <= vocab_size - tokenizer.size <= MAX_UNUSED_IDS:
        raise InvalidCheckpoint(
            f"the tokenizer in {directory} has {tokenizer.size} tokens, config.json says {vocab_size}; "
            "they do not belong together"
        )
    return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read: {error}; copy it again from the checkpoint's source") from error
    if not isinstance(value, dict):
        raise InvalidCheckpoint(f"{path} is not a JSON object; copy it again from the checkpoint's source")
    return value


_CLEAN_UPS: Iterable[tuple[str, str]] = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def _clean_up(text: str) -> str:
    """Takes out the spaces that English tokenisation leaves; the released tokenizer always does."""
    for spaced, plain in _CLEAN_UPS:
        text = text.replace(spaced, plain)
    return text
