"""The training step: a plain function of a model and a batch, without Ray, files or state."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.attention import make_attention
from training.pictures import see

if TYPE_CHECKING:
    from collections.abc import Callable

    from livestar.model.language import Attention
    from livestar.model.livestar import LiveStarModel
    from training.batch import Batch

MAX_LOGIT_ROWS = 1024
"""Targets whose logits are held at a time; the rest is computed again for the gradients."""


class Losses(NamedTuple):
    """Sums over a batch, so that batches, workers and accumulation add up exactly."""

    loss: Tensor
    """Weighted negative log likelihood of all targets, []."""
    weight: Tensor
    """Sum of their weights, [].  loss / weight is what is minimised."""
    num_right: Tensor
    """Weighted number of targets that were the likeliest token, []."""


class SequenceModel(nn.Module):
    """The model as training sees it: one call from a batch to its losses, so that it can be sharded as a whole."""

    def __init__(self, model: LiveStarModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, make: Callable[[Batch], Attention] = make_attention) -> Losses:
        """Losses of the batch, with the attention that `make` gives."""
        nll, is_right = self.score(batch, make)
        return Losses((nll * batch.weights).sum(), batch.weights.sum(), (is_right * batch.weights).sum())

    def score(self, batch: Batch, make: Callable[[Batch], Attention] = make_attention) -> tuple[Tensor, Tensor]:
        """Of every target: its negative log likelihood [n], and whether it was the likeliest token [n], as float32."""
        language = self.model.language_model
        embedded = language.embed(batch.ids)
        is_seen = batch.features.dtype != torch.uint8
        features = batch.features if is_seen else see(self.model, batch.features)
        tokens = self.model.project(features.to(embedded.dtype)).flatten(0, 1)
        embedded = embedded.index_copy(0, batch.visual_rows, tokens.to(embedded.dtype))
        hidden = language(embedded, batch.positions, make(batch))[batch.target_rows]
        parts = [
            checkpoint(self._score_rows, rows, targets, use_reentrant=False)
            for rows, targets in zip(hidden.split(MAX_LOGIT_ROWS), batch.targets.split(MAX_LOGIT_ROWS), strict=True)
        ]
        return torch.cat([nll for nll, _ in parts]), torch.cat([right for _, right in parts])

    def _score_rows(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.language_model.logits(hidden)
        return F.cross_entropy(logits, targets, reduction="none"), (logits.detach().argmax(-1) == targets).float()
