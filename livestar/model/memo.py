"""Visual tokens of pictures that come again, for who watches the same footage several times."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from livestar.model.livestar import LiveStarModel

MAX_BYTES = 512 * 2**20
"""Visual tokens that are remembered at most; pictures beyond it are encoded each time."""


class FrameMemo:
    """Remembers what pictures were encoded to, by a digest of their pixels.  Safe to use from several threads."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._tokens: dict[bytes, Tensor] = {}

    def encode(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Pictures [B, S, S, 3] -> visual tokens [B, V, hidden]; `encode` is called for those that are new."""
        keys = [hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=16).digest() for image in images]
        tokens = [self._tokens.get(key) for key in keys]
        new = [place for place, found in enumerate(tokens) if found is None]
        if new:
            for place, computed in zip(new, encode(images[new]), strict=True):
                tokens[place] = computed
                if self._num_bytes + computed.nbytes <= self._max_bytes:
                    self._tokens[keys[place]] = computed.clone()
                    self._num_bytes += computed.nbytes
        return torch.stack([found for found in tokens if found is not None])


@contextlib.contextmanager
def remembered_frames(model: LiveStarModel) -> Iterator[None]:
    """Within it the model encodes a picture once, however often it comes."""
    outer, model.memo = model.memo, model.memo or FrameMemo()
    try:
        yield
    finally:
        model.memo = outer
