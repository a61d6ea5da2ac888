"""Dense and block attention against a loop over rows, and against each other."""

from __future__ import annotations

import pytest
import torch

from tests.unit.toy_prompt import toy_prompt
from tests.unit.training.tiny import NUM_VISUAL_TOKENS, clips_of, tiny_features
from training import attention
from training.attention import BlockAttention, DenseAttention, make_attention
from training.batch import Batch
from training.sequence import SequenceBuilder, Visibility

pytestmark = [
    pytest.mark.unit,
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),  # slow, on purpose
]

PROMPT = toy_prompt(NUM_VISUAL_TOKENS)
HEADS = [(1, 1), (4, 4), (4, 2), (6, 3), (6, 1), (8, 2)]
VISIBILITIES: tuple[Visibility, ...] = ("leaf", "terminal", "causal")
STREAM_LENGTHS = ([(0, 2), (1, 1)], [(0, 1)], [(1, 3), (0, 2), (0, 1)])


def make_batch(visibility: Visibility) -> Batch:
    """Three streams of different lengths, some 700 rows; not a whole number of mask blocks."""
    builder = SequenceBuilder(PROMPT, visibility=visibility)
    streams = [clips_of(lengths) for lengths in STREAM_LENGTHS]
    sequences = [builder.build(range(1, num_frames + 1), clips) for num_frames, clips in streams]
    batch = Batch.pack(sequences, [tiny_features(num_frames) for num_frames, _ in streams])
    assert batch.num_rows > 256
    assert batch.num_rows % 128
    return batch


def qkv(num_rows: int, num_heads: int, num_kv_heads: int) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(num_heads + 10 * num_kv_heads)
    return [torch.randn(num_rows, heads, 8, generator=noise) for heads in (num_heads, num_kv_heads, num_kv_heads)]


def attend_row_by_row(batch: Batch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The definition: softmax over the rows of the same sequence, up to the row itself, that are trunk or of its own leaf."""
    groups = q.shape[1] // k.shape[1]
    out = []
    for row in range(batch.num_rows):
        start = next(start for start, stop in batch.spans if start <= row < stop)
        own = int(batch.leaves[row])
        seen = [key for key in range(start, row + 1) if int(batch.leaves[key]) in (0, own)]
        heads = [((k[seen, h // groups] @ q[row, h]) / 8**0.5).softmax(0) @ v[seen, h // groups] for h in range(q.shape[1])]
        out.append(torch.stack(heads))
    return torch.stack(out)


@pytest.mark.parametrize("num_queries", [7, 64, 10_000])
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_dense_attention_is_its_definition(visibility: Visibility, num_queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows it takes at a time."""
    monkeypatch.setattr(attention, "NUM_QUERIES", num_queries)
    batch = make_batch(visibility)
    tensors = qkv(batch.num_rows, 4, 2)
    torch.testing.assert_close(DenseAttention(batch)(0, *tensors), attend_row_by_row(batch, *tensors), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("visibility", VISIBILITIES)
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), HEADS)
def test_block_attention_equals_dense_attention(visibility: Visibility, num_heads: int, num_kv_heads: int) -> None:
    """Only forward: FlexAttention has no gradients on a CPU.  tests/gpu compares those."""
    batch = make_batch(visibility)
    tensors = qkv(batch.num_rows, num_heads, num_kv_heads)
    dense, block = DenseAttention(batch)(0, *tensors), BlockAttention(batch)(0, *tensors)
    assert block.shape == dense.shape == tensors[0].shape
    torch.testing.assert_close(block, dense, rtol=1e-5, atol=1e-5)


def test_what_is_hidden_changes_nothing() -> None:
    """Other keys and values in the leaves change what the leaves' own rows get, and no other row."""
    batch = make_batch("leaf")
    q, k, v = qkv(batch.num_rows, 4, 2)
    in_leaf = batch.leaves > 0
    k2, v2 = (torch.where(in_leaf[:, None, None], -x, x) for x in (k, v))
    before, after = DenseAttention(batch)(0, q, k, v), DenseAttention(batch)(0, q, k2, v2)
    assert torch.equal(before[~in_leaf], after[~in_leaf])
    assert (before[in_leaf] != after[in_leaf]).any(-1).all()


def test_a_cpu_trains_with_the_dense_mask() -> None:
    """The only one of the two that has gradients there."""
    batch = make_batch("leaf")
    assert isinstance(make_attention(batch), DenseAttention)
    tensors = [x.requires_grad_() for x in qkv(batch.num_rows, 2, 1)]
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        BlockAttention(batch)(0, *tensors)
    DenseAttention(batch)(0, *tensors).square().sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in tensors)
