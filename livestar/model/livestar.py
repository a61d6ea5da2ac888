"""The whole model: frames to visual tokens, tokens to hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from livestar.model.config import InternViTConfig
from livestar.model.efficientnet import EfficientNetLite
from livestar.model.language import LanguageModel
from livestar.model.vision import InternViT, merge_tokens, normalise, pixel_shuffle

if TYPE_CHECKING:
    from livestar.model.config import ModelConfig, VisionConfig
    from livestar.model.memo import FrameMemo


class LiveStarModel(nn.Module):
    """Vision tower, merging, projector and language model; `state_dict` names are those of the released checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = 4 * config.vision.hidden_size, config.language.hidden_size
        self.vision_model = make_tower(config.vision)
        self.mlp1 = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.language_model = LanguageModel(config.language)
        self.memo: FrameMemo | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.language_model.output.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language_model.output.weight.device

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Pictures [B, S, S, 3] uint8 RGB -> merged features [B, num_visual_tokens, 4 * width of the tower's map].

        The tower is frozen, so that these can be kept; no gradient flows here.
        """
        tower = self.vision_model
        pixels = normalise(images.to(self.device), self.dtype, mean=tower.PIXEL_MEAN, std=tower.PIXEL_STD)
        shuffled = pixel_shuffle(tower(pixels)).flatten(1, 2)
        return merge_tokens(shuffled, self.config.num_visual_tokens, self.config.language.num_heads)

    def project(self, features: Tensor) -> Tensor:
        """What `features` gave -> visual tokens [B, num_visual_tokens, hidden]; can be differentiated."""
        tokens: Tensor = self.mlp1(features)
        return tokens

    @torch.inference_mode()
    def encode_frames(self, images: Tensor) -> Tensor:
        """Pictures [B, S, S, 3] uint8 RGB -> visual tokens [B, num_visual_tokens, hidden]."""
        if self.memo is not None:
            return self.memo.encode(images, lambda new: self.project(self.features(new)))
        return self.project(self.features(images))


def make_tower(config: VisionConfig) -> InternViT | EfficientNetLite:
    """The vision tower that the config asks for, without its weights."""
    return InternViT(config) if isinstance(config, InternViTConfig) else EfficientNetLite(config.variant)
