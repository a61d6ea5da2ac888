"""Pictures that come again are not encoded again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from livestar.model.memo import FrameMemo

pytestmark = pytest.mark.unit

PICTURES = torch.arange(4 * 2 * 2 * 3, dtype=torch.uint8).view(4, 2, 2, 3)


class Encoder:
    """Sums a picture's pixels, and counts how many it was given."""

    def __init__(self) -> None:
        self.num_encoded = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.num_encoded += len(images)
        return images.flatten(1).sum(1, dtype=torch.float32).view(-1, 1, 1).expand(-1, 2, 5)


def test_the_tokens_are_those_of_the_encoder_in_order_and_made_once() -> None:
    memo, encode = FrameMemo(), Encoder()
    assert torch.equal(memo.encode(PICTURES[:2], encode), Encoder()(PICTURES[:2]))
    assert torch.equal(memo.encode(PICTURES[[1, 2, 0, 3]], encode), Encoder()(PICTURES[[1, 2, 0, 3]]))
    assert encode.num_encoded == 4


def test_what_is_over_the_bound_is_encoded_each_time() -> None:
    memo, encode = FrameMemo(max_bytes=2 * 2 * 5 * 4), Encoder()
    for _ in range(2):
        assert torch.equal(memo.encode(PICTURES, encode), Encoder()(PICTURES))
    assert encode.num_encoded == 4 + 2
