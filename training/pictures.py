"""A vision tower that is trained: pictures are kept in place of its tokens, and it sees them anew in every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from livestar.errors import InvalidConfig
from livestar.model.vision import merge_tokens, normalise, pixel_shuffle
from training.features import FeatureCache

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from livestar.model.livestar import LiveStarModel
    from training.config import TrainConfig

TOWER = "vision_model"


class PictureCache(FeatureCache):
    """The frames of videos for a picture size at a frame rate: [F, S, S * 3] uint8 in place of [F, V, W]."""

    def __init__(self, directory: Path, model: LiveStarModel, *, fps: float, verify: bool = True) -> None:
        """Of `model` only the picture size matters.  Raises as `FeatureCache` does."""
        super().__init__(directory, model, fps=fps, dtype=torch.uint8, verify=verify)
        self._fingerprint = "pictures"

    def encode(self, images: NDArray[np.uint8]) -> Tensor:
        """Pictures [n, S, S, 3], with their rows joined: [n, S, S * 3]."""
        return torch.from_numpy(images).flatten(2)


def trains_tower(config: TrainConfig) -> bool:
    """Whether any of the vision tower is trained.  Raises `InvalidConfig` where that is asked for beside adapters."""

    def is_named(modules: tuple[str, ...]) -> bool:
        return any(module.split(".")[0] == TOWER for module in modules)

    if config.lora.rank and is_named(config.lora.also_train):
        raise InvalidConfig(
            f"lora.also_train names {TOWER}, which is not trained beside adapters; leave it out, or set lora.rank to 0 and name "
            "it in model.train"
        )
    return not config.lora.rank and is_named(config.model.train)


def see(model: LiveStarModel, pictures: Tensor) -> Tensor:
    """What `LiveStarModel.features` gives, with gradients for the tower: [n, S, S * 3] uint8 -> [n, V, W]."""
    tower = model.vision_model
    images = pictures.unflatten(2, (-1, 3))
    pixels = normalise(images, model.dtype, mean=tower.PIXEL_MEAN, std=tower.PIXEL_STD)
    shuffled = pixel_shuffle(tower(pixels)).flatten(1, 2)
    return merge_tokens(shuffled, model.config.num_visual_tokens, model.config.language.num_heads)
