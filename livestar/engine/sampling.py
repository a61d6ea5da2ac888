"""From logits to the next token of each caption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from livestar.config import SamplingConfig


class CaptionSampler:
    """Chooses the tokens of one stream's captions; knows what the current caption already holds."""

    def __init__(self, config: SamplingConfig, device: torch.device) -> None:
        """The config's longest caption must be settled (see `plan_stream`)."""
        assert config.max_new_tokens is not None
        self.config = config
        self.max_new_tokens = config.max_new_tokens
        self.generator = torch.Generator(device)
        self.generator.manual_seed(config.seed)
        self.generated = torch.zeros(self.max_new_tokens, dtype=torch.int64, device=device)
        self.num_generated = 0

    def start(self) -> None:
        """Begins a new caption."""
        self.num_generated = 0

    def penalise(self, logits: Tensor) -> None:
        """Repetition penalty over the tokens of this caption, in place, on one row [vocab] (HF's rule: prompt not counted)."""
        if self.config.repetition_penalty == 1 or not self.num_generated:
            return
        seen = self.generated[: self.num_generated]
        scores = logits[seen]
        penalty = self.config.repetition_penalty
        logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)

    def choose(self, logits: Tensor) -> Tensor:
        """A token from one row of logits [vocab]: a scalar int64 tensor."""
        if self.config.temperature == 0:
            return logits.argmax()
        temperature = max(self.config.temperature, MIN_TEMPERATURE)
        probabilities = ((logits - logits.max()) / temperature).softmax(-1).nan_to_num(1.0)  # NaN: told by `sample`
        if self.config.top_p < 1:
            ranked, order = probabilities.sort(descending=True)
            beyond = ranked.cumsum(-1) - ranked >= self.config.top_p  # the likeliest token always stays
            probabilities = probabilities.masked_fill(torch.zeros_like(beyond).scatter(0, order, beyond), 0)
        return torch.multinomial(probabilities, 1, generator=self.generator).squeeze(0)


MIN_TEMPERATURE = 1e-6
"""Lower ones are as good as greedy, and would divide by zero in float32."""
DAMAGED = -1
"""What `sample` says of a row whose logits are not numbers."""


def sample(logits: Tensor, samplers: Sequence[CaptionSampler]) -> list[int]:
    """The next token of each row of `logits` [n, vocab], which it overwrites; one copy to the host for all."""
    for row, sampler in zip(logits, samplers, strict=True):
        sampler.penalise(row)
    best, chosen = logits.max(-1)  # NaN counts as the largest
    if any(sampler.config.temperature > 0 for sampler in samplers):
        chosen = torch.stack([sampler.choose(row) for row, sampler in zip(logits, samplers, strict=True)])
    for token, sampler in zip(chosen, samplers, strict=True):
        sampler.generated[sampler.num_generated] = token
        sampler.num_generated += 1
    tokens: list[int] = chosen.where(best.isfinite(), DAMAGED).tolist()
    return tokens
