"""A tiny model over the toy prompt's characters, and what it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st

from livestar.model.config import InternViTConfig, LanguageConfig, ModelConfig
from livestar.model.livestar import LiveStarModel
from training.sequence import Clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NUM_VISUAL_TOKENS = 3
VISION_WIDTH = 4
VOCABULARY = 128
"""The toy prompt's ids are those of ASCII characters."""


def tiny_model(
    num_heads: int = 4, num_kv_heads: int = 2, *, num_layers: int = 2, head_dim: int = 8, seed: int = 0
) -> LiveStarModel:
    """A model with random weights, large enough that what a row sees reaches its logits."""
    vision = InternViTConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=8,
        num_layers=1,
        num_heads=1,
        image_size=28,
        patch_size=7,
        layer_norm_eps=1e-6,
        qkv_bias=True,
    )
    language = LanguageConfig(
        hidden_size=num_heads * head_dim,
        intermediate_size=24,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        vocab_size=VOCABULARY,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_position_embeddings=4096,
        bias=False,
    )
    config = ModelConfig(vision=vision, language=language, num_visual_tokens=NUM_VISUAL_TOKENS, watch={}, raw={})
    model = LiveStarModel(config)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=noise)
            is_norm = "norm" in name or name.startswith("mlp1.0")
            spread = 0.1 if parameter.dim() < 2 else 1.0 if "tok_embeddings" in name else 1.6 * parameter.shape[-1] ** -0.5
            parameter.copy_(spread * values + (is_norm and name.endswith("weight")))
    return model


def tiny_features(num_frames: int, seed: int = 0) -> Tensor:
    """What the vision tower would have given: [frames, tokens of a frame, width]."""
    return torch.randn(num_frames, NUM_VISUAL_TOKENS, 4 * VISION_WIDTH, generator=torch.Generator().manual_seed(seed))


def clips_of(lengths: Sequence[tuple[int, int]]) -> tuple[int, list[Clip]]:
    """(gap, frames) of one clip after the other -> all frames, and the clips; every clip has a caption of its own."""
    place, clips = 0, []
    for number, (gap, num_frames) in enumerate(lengths):
        clips.append(Clip(place + gap, num_frames, "abcdefgh"[number % 8] * (1 + number % 3)))
        place += gap + num_frames
    return place, clips


STREAMS = st.builds(clips_of, st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.integers(1, 3)), min_size=1, max_size=4))
"""Frames, and clips with gaps here and there."""
