"""A prompt whose rows can be read: every token is one character."""

from __future__ import annotations

import re
from collections.abc import Sequence

from livestar.model.prompt import Prompt

CONTROL = {"<s>": "^", "<|im_start|>": "{", "<|im_end|>": "}", "<img>": "[", "</img>": "]"}


class ToyTokenizer:
    """One id per character; control tokens are the ids of brackets."""

    size = 0x110000
    control_tokens = frozenset(CONTROL)

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in re.sub("|".join(map(re.escape, CONTROL)), lambda match: CONTROL[match[0]], text)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(number) for number in ids if chr(number) not in CONTROL.values())

    def token_id(self, token: str) -> int | None:
        return ord(CONTROL[token]) if token in CONTROL else None


def toy_prompt(num_visual_tokens: int = 3) -> Prompt:
    return Prompt(ToyTokenizer(), num_visual_tokens=num_visual_tokens, system_message="SYS", task="DO\n")


def readable(rows: Sequence[int]) -> str:
    """Rows as text; visual tokens as #."""
    return "".join("#" if row < 0 else chr(row) for row in rows)
