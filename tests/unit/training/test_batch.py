"""Packing sequences behind one another."""

from __future__ import annotations

import pytest
import torch

from tests.unit.toy_prompt import toy_prompt
from tests.unit.training.tiny import NUM_VISUAL_TOKENS, clips_of, tiny_features
from training.batch import Batch
from training.sequence import Clip, SequenceBuilder, TrainingSequence

pytestmark = pytest.mark.unit


def small(rows: list[int], *, leaves: list[int], learns: tuple[int, int, float]) -> TrainingSequence:
    """A sequence of given rows, of which one is learnt from."""
    row, target, weight = learns
    return TrainingSequence(
        rows=rows,
        positions=[10 * n for n in range(len(rows))],
        leaves=leaves,
        target_rows=[row],
        targets=[target],
        weights=[weight],
        num_leaves=max(leaves),
    )


def test_rows_leaves_and_visual_tokens_are_numbered_on() -> None:
    """By hand: two frames of two tokens, then one frame."""
    first = small([7, -1, -2, 8, -3, -4, 9], leaves=[0, 0, 0, 1, 0, 0, 2], learns=(3, 11, 0.5))
    second = small([5, -1, -2, 6, 6], leaves=[0, 0, 0, 0, 1], learns=(4, 12, 2.0))
    features = torch.arange(3 * 2 * 1, dtype=torch.float32).view(3, 2, 1)
    batch = Batch.pack([first, second], [features[:2], features[2:]])
    assert batch.ids.tolist() == [7, 0, 0, 8, 0, 0, 9, 5, 0, 0, 6, 6]
    assert batch.visual_rows.tolist() == [1, 2, 4, 5, 8, 9]
    assert torch.equal(batch.features, features)
    assert batch.positions.tolist() == [0, 10, 20, 30, 40, 50, 60, 0, 10, 20, 30, 40]
    assert batch.sequences.tolist() == [0] * 7 + [1] * 5
    assert batch.leaves.tolist() == [0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 3]
    assert batch.spans == ((0, 7), (7, 12))
    assert batch.target_rows.tolist() == [3, 11]
    assert batch.targets.tolist() == [11, 12]
    assert batch.weights.tolist() == [0.5, 2.0]
    assert batch.num_rows == 12
    assert (batch.ids.dtype, batch.targets.dtype, batch.weights.dtype) == (torch.int64, torch.int64, torch.float32)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_features_of_other_frames_than_the_rows_name_are_refused(num_frames: int) -> None:
    sequence = small([-1, -2, -3, -4], leaves=[0] * 4, learns=(0, 1, 1.0))
    with pytest.raises(AssertionError, match="visual rows are out of order"):
        Batch.pack([sequence], [torch.zeros(num_frames, 2, 1)])


def test_as_many_features_as_sequences() -> None:
    sequence = small([-1, -2], leaves=[0, 0], learns=(0, 1, 1.0))
    with pytest.raises(ValueError, match="zip"):
        Batch.pack([sequence, sequence], [torch.zeros(1, 2, 1)])


def test_a_sequence_from_which_nothing_is_learnt_can_be_packed() -> None:
    builder = SequenceBuilder(toy_prompt(NUM_VISUAL_TOKENS))
    batch = Batch.pack([builder.build([1, 2], [])], [tiny_features(2)])
    assert batch.targets.dtype == batch.target_rows.dtype == torch.int64
    assert len(batch.targets) == len(batch.weights) == 0


def test_every_row_of_a_batch_is_that_of_its_sequence() -> None:
    builder = SequenceBuilder(toy_prompt(NUM_VISUAL_TOKENS), visibility="terminal")
    streams = [clips_of([(0, 2), (1, 2)]), clips_of([(2, 1)]), (1, [Clip(0, 1, "x")])]
    sequences = [builder.build(range(1, n + 1), clips) for n, clips in streams]
    features = [tiny_features(n, seed) for seed, (n, _) in enumerate(streams)]
    together = Batch.pack(sequences, features)
    first_leaf = first_visual = 0
    for (start, stop), sequence, tokens in zip(together.spans, sequences, features, strict=True):
        alone = Batch.pack([sequence], [tokens])
        assert torch.equal(together.ids[start:stop], alone.ids)
        assert torch.equal(together.positions[start:stop], alone.positions)
        own = together.leaves[start:stop]
        assert torch.equal(own, torch.where(alone.leaves > 0, alone.leaves + first_leaf, 0))
        num_visual = len(alone.visual_rows)
        assert torch.equal(together.visual_rows[first_visual : first_visual + num_visual], alone.visual_rows + start)
        first_leaf, first_visual = first_leaf + sequence.num_leaves, first_visual + num_visual
    assert together.features.flatten(0, 1).shape[0] == first_visual


def test_a_batch_moves_whole() -> None:
    builder = SequenceBuilder(toy_prompt(NUM_VISUAL_TOKENS))
    batch = Batch.pack([builder.build([1], [Clip(0, 1, "a")])], [tiny_features(1)])
    moved = batch.to(torch.device("meta"))
    assert moved.spans == batch.spans
    tensors = [name for name in Batch.__dataclass_fields__ if name != "spans"]
    assert all(getattr(moved, name).is_meta and getattr(moved, name).shape == getattr(batch, name).shape for name in tensors)
