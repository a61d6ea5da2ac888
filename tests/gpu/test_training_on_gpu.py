"""Training's attention on a GPU: FlexAttention's blocks against the dense mask, forward and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.unit.toy_prompt import toy_prompt
from tests.unit.training.tiny import NUM_VISUAL_TOKENS, clips_of, tiny_features, tiny_model
from training.attention import BlockAttention, DenseAttention, make_attention
from training.batch import Batch
from training.sequence import SequenceBuilder, Visibility
from training.step import SequenceModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),  # exactness is what is measured
]

HEAD_DIM = 16
"""FlexAttention's kernels take no less."""
VISIBILITIES: tuple[Visibility, ...] = ("leaf", "terminal", "causal")


def make_batch(visibility: Visibility, lengths: list[list[tuple[int, int]]]) -> Batch:
    builder = SequenceBuilder(toy_prompt(NUM_VISUAL_TOKENS), visibility=visibility)
    streams = [clips_of(each) for each in lengths]
    sequences = [builder.build(range(1, num_frames + 1), clips) for num_frames, clips in streams]
    return Batch.pack(sequences, [tiny_features(num_frames) for num_frames, _ in streams]).to(torch.device("cuda"))


LONG = [[(0, 3), (1, 4), (0, 2)], [(0, 1)], [(2, 5), (0, 5)]]


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_blocks_attend_as_the_dense_mask_does(visibility: Visibility, num_heads: int, num_kv_heads: int) -> None:
    batch = make_batch(visibility, LONG)
    noise = torch.Generator("cuda").manual_seed(0)
    shapes = [(batch.num_rows, heads, HEAD_DIM) for heads in (num_heads, num_kv_heads, num_kv_heads)]
    tensors = [torch.randn(shape, generator=noise, device="cuda") for shape in shapes]
    wanted = torch.randn(shapes[0], generator=noise, device="cuda")
    found: list[list[Tensor]] = []
    for attention in (DenseAttention(batch), BlockAttention(batch)):
        leaves = [x.clone().requires_grad_() for x in tensors]
        out = attention(0, *leaves)
        (out * wanted).sum().backward()
        found.append([out.detach(), *(x.grad for x in leaves if x.grad is not None)])
    for dense, block in zip(*found, strict=True):
        torch.testing.assert_close(block, dense, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_a_step_learns_the_same_with_either_attention(visibility: Visibility) -> None:
    """Batches of several lengths, since the kernel is compiled for all of them."""
    model = SequenceModel(tiny_model(4, 2, head_dim=HEAD_DIM).to("cuda"))
    for lengths in (LONG, LONG[:2], [*LONG, *LONG]):
        batch = make_batch(visibility, lengths)
        assert isinstance(make_attention(batch), BlockAttention)
        losses, gradients = [], []
        for make in (DenseAttention, BlockAttention):
            model.zero_grad()
            found = model(batch, make)
            found.loss.backward()
            losses.append(found.loss.item())
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-2, atol=1e-3 * scale, msg=name)
