"""The whole model: frames to visual tokens, tokens to hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from livestar.model.language import LanguageModel
from livestar.model.vision import VisionTower, merge_tokens, normalise, pixel_shuffle

if TYPE_CHECKING:
    from livestar.model.config import ModelConfig


class LiveStarModel(nn.Module):
    """Vision tower, merging, projector and language model; `state_dict` names are those of the released checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = 4 * config.vision.hidden_size, config.language.hidden_size
        self.vision_model = VisionTower(config.vision)
        self.mlp1 = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.language_model = LanguageModel(config.language)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.language_model.output.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language_model.output.weight.device

    @torch.inference_mode()
    def encode_frames(self, images: Tensor) -> Tensor:
        """Pictures [B, S, S, 3] uint8 RGB -> visual tokens [B, num_visual_tokens, hidden]."""
        pixels = normalise(images.to(self.device), self.dtype)
        shuffled = pixel_shuffle(self.vision_model(pixels)).flatten(1, 2)
        merged = merge_tokens(shuffled, self.config.num_visual_tokens, self.config.language.num_heads)
        tokens: Tensor = self.mlp1(merged)
        return tokens
