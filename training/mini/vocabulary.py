"""The tokenizer of livestar-mini: byte-level BPE over its captions' words and everyday ones."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from livestar.model.bpe import train_bpe
from training.mini.words import GRAMMAR, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer

MAX_IDS = 2048
"""Ids in all: 256 bytes, the control tokens, and words and their parts."""

FRAME_LABEL = "Frame-"
"""One token, since it stands before every picture; the digits of the frame's number follow, one token each."""

CHAT_WORDS = ("system", "user", "assistant")
CAPTION_COUNT = 8
"""How often a caption's word counts, times 1 + log2 of how often it stands there, so that none crowds out the others."""
EVERYDAY_COUNT = 2
"""How often an everyday word counts."""


def train_vocabulary(captions: Iterable[str], *, max_ids: int = MAX_IDS) -> Tokenizer:
    """The tokenizer for a model that is trained on `captions`.  The same captions, in any order, give the same tokenizer."""
    counts: Counter[str] = Counter()
    for caption in captions:
        words = caption.split()
        counts.update([*words[:1], *(f" {word}" for word in words[1:])])
    weights = Counter({word: int(CAPTION_COUNT * (1 + math.log2(count))) for word, count in counts.items()})
    for word in {*WORDS}:
        weights[f" {word}"] += EVERYDAY_COUNT
    for word in GRAMMAR.split():  # captions start with these: "The", "Two", "Nobody"
        weights[word.capitalize()] += EVERYDAY_COUNT
    for word in CHAT_WORDS:
        weights[word] += CAPTION_COUNT
    texts = (word for word, weight in sorted(weights.items()) for _ in range(weight))
    return train_bpe(texts, max_ids=max_ids, whole=[FRAME_LABEL], split_digits=True)
