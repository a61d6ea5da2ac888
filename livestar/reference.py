"""The released algorithm, plainly: the slow twin that the engine is checked and measured against.

At every step all frames so far are encoded again and the whole dialogue is prefilled again, as the released demo.py and
modeling_livestar_chat.py do.  No KV cache, no batching, no retention: the cost of a frame grows with the age of the stream.
The dialogue is built as text and tokenised whole, so that it shares nothing with the engine but the model's layers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from livestar.model.tokenizer import BEGIN, IMAGE_END, IMAGE_START, TURN_END, TURN_START
from livestar.types import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.model.livestar import LiveStarModel
    from livestar.model.prompt import Prompt

IMAGE = "<image>"


class ReferenceVerdict(NamedTuple):
    """What the released loop made of one frame."""

    decision: Decision
    perplexity: float | None
    reference_perplexity: float
    caption: str | None


class PlainCache:
    """One whole sequence in one tensor per layer: every token sees itself and all before it."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def num_tokens(self) -> int:
        """Tokens whose keys and values are held."""
        return len(self.layers[0][0]) if self.layers else 0

    def __call__(self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        if layer in self.layers:
            k_TKH, v_TKH = (torch.cat([old, new]) for old, new in zip(self.layers[layer], (k_TKH, v_TKH), strict=True))
        self.layers[layer] = k_TKH, v_TKH
        num_new, num_all = len(q_TNH), len(k_TKH)
        visible = torch.ones(num_new, num_all, dtype=torch.bool, device=q_TNH.device).tril(num_all - num_new)
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_TNH, k_TKH, v_TKH))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True).squeeze(0).transpose(0, 1)


class ReleasedLoop:
    """One stream under the released streaming loop (SVeD with a duplicate-frame reference)."""

    def __init__(
        self, model: LiveStarModel, prompt: Prompt, *, threshold: float, max_new_tokens: int, repetition_penalty: float = 1.05
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.threshold = threshold
        self.max_new_tokens = max_new_tokens
        self.repetition_penalty = repetition_penalty
        self.images: list[Tensor] = []
        self.history: list[tuple[str, str]] = []
        self.reference = 0.0

    @torch.inference_mode()
    def watch(self, image: Tensor) -> ReferenceVerdict:
        """One more frame, [S, S, 3] uint8."""
        self.images.append(image)
        line = f"Frame-{len(self.images)}: {IMAGE}\n"
        if not self.history:
            return self._speak(self.prompt.task + line, line, None)
        perplexity = self._verify(self.images, line, self.history[-1][1])
        if perplexity > self.reference * self.threshold:
            return self._speak(line, line, perplexity)
        question, answer = self.history[-1]
        self.history[-1] = (question + line, answer)
        return ReferenceVerdict(Decision.SILENT, perplexity, self.reference, None)

    def _speak(self, question: str, line: str, perplexity: float | None) -> ReferenceVerdict:
        answer = self._generate(question)
        self.history.append((question, answer))
        self.reference = self._verify([*self.images, self.images[-1]], line, answer)
        return ReferenceVerdict(Decision.RESPOND, perplexity, self.reference, answer)

    def _dialogue(self, question: str) -> str:
        turns = [f"{BEGIN}{TURN_START}system\n{self.prompt.system_message}{TURN_END}\n"]
        for asked, answered in self.history:
            turns.append(f"{TURN_START}user\n{asked}{TURN_END}\n{TURN_START}assistant\n{answered}{TURN_END}\n")
        turns.append(f"{TURN_START}user\n{question}{TURN_END}\n")
        return "".join(turns)

    def _embed(self, text: str, images: Sequence[Tensor]) -> Tensor:
        """Tokenises a dialogue and puts every frame's visual tokens where its <image> stands: [T, D]."""
        language = self.model.language_model
        visual = list(self.model.encode_frames(torch.stack(list(images))))
        parts = []
        for part in re.split(f"({IMAGE})", text.replace(IMAGE, f"{IMAGE_START}{IMAGE}{IMAGE_END}")):
            if part == IMAGE:
                parts.append(visual.pop(0))
            else:
                parts.append(language.embed(torch.tensor(self.prompt.tokenizer.encode(part), device=self.model.device)))
        return torch.cat(parts)

    def _logits(self, embedded: Tensor, num_rows: int, cache: PlainCache) -> Tensor:
        """Appends [T, D] to `cache`; logits of the last `num_rows` rows."""
        positions = torch.arange(cache.num_tokens, cache.num_tokens + len(embedded), device=embedded.device)
        hidden = self.model.language_model(embedded, positions, cache)
        return self.model.language_model.logits(hidden[-num_rows:])

    def _verify(self, images: Sequence[Tensor], question: str, answer: str) -> float:
        """Perplexity of `answer`, its end of turn included, after one more user turn."""
        turn = self.prompt.tokenizer.encode(f"{TURN_START}assistant\n{answer}{TURN_END}\n")
        start = len(self.prompt.assistant_header)
        targets = torch.tensor(turn[start:-1], device=self.model.device)
        embedded = self._embed(f"{self._dialogue(question)}{TURN_START}assistant\n{answer}{TURN_END}\n", images)
        logits = self._logits(embedded, len(targets) + 2, PlainCache())
        return float(F.cross_entropy(logits[:-2], targets).exp())

    def _generate(self, question: str) -> str:
        """Greedy decoding with a repetition penalty over what it generated itself."""
        embedded = self._embed(f"{self._dialogue(question)}{TURN_START}assistant\n", self.images)
        cache = PlainCache()  # lives for this one caption, as in the released `generate`
        ids: list[int] = []
        while len(ids) < self.max_new_tokens and self.prompt.stop_id not in ids:
            logits = self._logits(embedded, 1, cache)[0]
            seen = torch.tensor(sorted(set(ids)), dtype=torch.long, device=self.model.device)
            scores = logits[seen]
            logits[seen] = torch.where(scores < 0, scores * self.repetition_penalty, scores / self.repetition_penalty)
            ids.append(int(logits.argmax()))
            embedded = self.model.language_model.embed(torch.tensor(ids[-1:], device=self.model.device))
        return self.prompt.caption_text(ids)
