"""A batch: the rows of several sequences one behind the other, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from training.sequence import TrainingSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed sequences: T rows, of which V are visual tokens, and n targets."""

    ids: Tensor
    """Token ids, 0 where a visual token stands: [T] int64."""
    visual_rows: Tensor
    """Rows of the visual tokens, in the order of `features`: [V] int64."""
    features: Tensor
    """Output of the vision tower for the frames of all sequences, before the projector: [frames, tokens of a frame, width].

    Where the tower is trained, what it is to see: [frames, side, side * 3] uint8.
    """
    positions: Tensor
    """[T] int64."""
    sequences: Tensor
    """Which sequence a row belongs to: [T] int64."""
    leaves: Tensor
    """0 for rows of a trunk, else a number that no other leaf of the batch has: [T] int64."""
    spans: tuple[tuple[int, int], ...]
    """First row of each sequence, and the first row behind it."""
    target_rows: Tensor
    """[n] int64."""
    targets: Tensor
    """[n] int64."""
    weights: Tensor
    """[n] float32."""

    @classmethod
    def pack(cls, sequences: Sequence[TrainingSequence], features: Sequence[Tensor]) -> Self:
        """`features[i]` is [frames, tokens of a frame, width] of sequence i, whose rows must number just those tokens.

        Pictures that are still to be seen have other shapes, so their number is taken on trust.
        """
        rows: list[int] = []
        positions: list[int] = []
        owners: list[int] = []
        leaves: list[int] = []
        spans: list[tuple[int, int]] = []
        target_rows: list[int] = []
        targets: list[int] = []
        weights: list[float] = []
        num_leaves = num_visual = 0
        for number, (sequence, tokens) in enumerate(zip(sequences, features, strict=True)):
            start = len(rows)
            rows.extend(row if row >= 0 else row - num_visual for row in sequence.rows)
            positions.extend(sequence.positions)
            owners.extend([number] * len(sequence.rows))
            leaves.extend(leaf and leaf + num_leaves for leaf in sequence.leaves)
            spans.append((start, len(rows)))
            target_rows.extend(row + start for row in sequence.target_rows)
            targets.extend(sequence.targets)
            weights.extend(sequence.weights)
            num_leaves += sequence.num_leaves
            is_seen = tokens.dtype != torch.uint8
            num_visual += tokens.shape[0] * tokens.shape[1] if is_seen else sum(row < 0 for row in sequence.rows)
        packed = torch.tensor(rows)
        visual_rows = (packed < 0).nonzero().flatten()
        assert torch.equal(-packed[visual_rows] - 1, torch.arange(num_visual)), "visual rows are out of order"
        return cls(
            ids=packed.clamp(min=0),
            visual_rows=visual_rows,
            features=torch.cat(list(features)),
            positions=torch.tensor(positions),
            sequences=torch.tensor(owners),
            leaves=torch.tensor(leaves),
            spans=tuple(spans),
            target_rows=torch.tensor(target_rows, dtype=torch.int64),
            targets=torch.tensor(targets, dtype=torch.int64),
            weights=torch.tensor(weights, dtype=torch.float32),
        )

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        tensors = {
            name: getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__ if name != "spans"
        }
        return type(self)(spans=self.spans, **tensors)

    @property
    def num_rows(self) -> int:
        """Rows of all sequences."""
        return len(self.ids)
