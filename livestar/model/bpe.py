"""Byte-level BPE tokenizers with the control tokens of the prompt, for models that bring their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from livestar.model.tokenizer import BEGIN, IMAGE_END, IMAGE_START, TURN_END, TURN_START

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONTROL_TOKENS = ["<unk>", BEGIN, "</s>", TURN_START, TURN_END, IMAGE_START, IMAGE_END, "<IMG_CONTEXT>"]
"""The first ids of every tokenizer that is trained here."""


def train_bpe(texts: Iterable[str], *, max_ids: int, whole: Sequence[str] = (), split_digits: bool = False) -> Tokenizer:
    """Trains on `texts`; every text has tokens, since the bytes do.  The same texts in the same order give the same tokenizer.

    `whole` become one token each, wherever they stand; with `split_digits` a number has one token per digit.
    `max_ids` counts everything: control tokens, bytes, merges and `whole`.
    """
    tokenizer = Tokenizer(models.BPE())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split_digits:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_bytes])
    else:
        tokenizer.pre_tokenizer = by_bytes
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max_ids - len(whole),
        special_tokens=CONTROL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in whole])
    return tokenizer
