"""InternViT, and what makes a frame's tokens of a tower's output: pixel shuffle and token merging.

Parameter names are those of the checkpoint.  Shapes: B frames, P patches + 1 class token, C width, H heads, D head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.model.config import InternViTConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and deviation of each colour over ImageNet, of values from 0 to 1."""


class Embeddings(nn.Module):
    """Patches, a class token, and learned positions."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        num_patches = config.grid**2
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1, num_patches + 1, config.hidden_size))
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, 1 + P, C]."""
        patches_BPC = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        class_B1C = self.class_embedding.expand(len(pixels), -1, -1)
        return torch.cat([class_B1C, patches_BPC], dim=1) + self.position_embedding


class VisionAttention(nn.Module):
    """Full self-attention over one frame's patches."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BPC: Tensor) -> Tensor:
        """[B, P, C] -> [B, P, C]."""
        q_BHPD, k_BHPD, v_BHPD = self.qkv(x_BPC).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out_BHPD = F.scaled_dot_product_attention(q_BHPD, k_BHPD, v_BHPD)
        projected: Tensor = self.proj(out_BHPD.transpose(1, 2).flatten(2))
        return projected


class VisionMLP(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class VisionLayer(nn.Module):
    """Pre-norm block with layer scale: x += ls1 * attn(norm1 x); x += ls2 * mlp(norm2 x)."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ls1 = nn.Parameter(torch.ones(config.hidden_size))
        self.ls2 = nn.Parameter(torch.ones(config.hidden_size))

    def forward(self, x_BPC: Tensor) -> Tensor:
        """[B, P, C] -> [B, P, C]."""
        x_BPC = x_BPC + self.ls1 * self.attn(self.norm1(x_BPC))
        out: Tensor = x_BPC + self.ls2 * self.mlp(self.norm2(x_BPC))
        return out


class Encoder(nn.Module):
    """The stack of layers; there is no final norm."""

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_layers))

    def forward(self, x_BPC: Tensor) -> Tensor:
        """[B, P, C] -> [B, P, C]."""
        for layer in self.layers:
            x_BPC = layer(x_BPC)
        return x_BPC


class InternViT(nn.Module):
    """A batch of frames to a map of patch features each."""

    PIXEL_MEAN = IMAGENET_MEAN
    PIXEL_STD = IMAGENET_STD

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] normalised pixels -> [B, grid, grid, C]; the class token is dropped."""
        features_BPC = self.encoder(self.embeddings(pixels))
        grid: Tensor = features_BPC[:, 1:].unflatten(1, (self.grid, self.grid))
        return grid


def normalise(
    images: Tensor, dtype: torch.dtype, *, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Pictures [B, S, S, 3] uint8 RGB -> [B, 3, S, S], scaled to [0, 1] and normalised with each channel's mean and deviation."""
    pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    shift = torch.tensor(mean, device=images.device).view(3, 1, 1)
    scale = torch.tensor(std, device=images.device).view(3, 1, 1)
    return ((pixels - shift) / scale).to(dtype)


def pixel_shuffle(x: Tensor) -> Tensor:
    """Halves each side of a map: [B, h, w, C] -> [B, h/2, w/2, 4C].

    Plain space-to-depth, the released "v2": out[i, j] concatenates in[2i, 2j], in[2i, 2j+1], in[2i+1, 2j], in[2i+1, 2j+1].
    """
    blocks = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))  # [B, h/2, 2, w/2, 2, C]
    shuffled: Tensor = blocks.permute(0, 1, 3, 2, 4, 5).flatten(3)
    return shuffled


def merge_schedule(num_tokens: int, target: int) -> list[int]:
    """Tokens to merge away at each step on the way from `num_tokens` to `target`; a step can at most halve."""
    steps = []
    while num_tokens > target:
        steps.append(min(num_tokens - target, num_tokens // 2))
        num_tokens -= steps[-1]
    return steps


def merge_tokens(x: Tensor, target: int, num_heads: int) -> Tensor:
    """Token merging (ToMe): [B, p, C] -> [B, target, C], similar neighbours averaged, weighted by what they stand for.

    At each step the even tokens that have the most similar odd token are added to it; the rest is kept in front.
    The metric is the mean over `num_heads` slices of the features.  Source: `merge_tokens` of the released
    modeling_livestar_chat.py, with its scatter-add replaced by a product with a one-hot matrix in float32: the same
    sum, but in an order that does not change from call to call on a GPU.
    """
    out = x.to(torch.float32)
    sizes = out.new_ones(out.shape[:-1])
    for num_merged in merge_schedule(out.shape[1], target):
        metric = out.unflatten(-1, (num_heads, -1)).mean(-2)
        metric = metric / metric.norm(dim=-1, keepdim=True)
        similarity, partner = (metric[:, ::2] @ metric[:, 1::2].mT).max(-1)
        order = similarity.argsort(dim=-1, descending=True, stable=True)
        merged, kept = order[:, :num_merged], order[:, num_merged:]

        weighted = out * sizes.unsqueeze(-1)
        even, odd = weighted[:, ::2], weighted[:, 1::2]
        even_sizes, odd_sizes = sizes[:, ::2], sizes[:, 1::2]
        onto = F.one_hot(partner.gather(1, merged), odd.shape[1]).to(torch.float32).mT  # [B, odd, merged]
        odd = odd + onto @ _take(even, merged)
        odd_sizes = odd_sizes + (onto @ even_sizes.gather(1, merged).unsqueeze(-1)).squeeze(-1)

        sizes = torch.cat([even_sizes.gather(1, kept), odd_sizes], dim=1)
        out = torch.cat([_take(even, kept), odd], dim=1) / sizes.unsqueeze(-1)
    return out.to(x.dtype)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of [B, p, C] chosen per batch entry by [B, n] -> [B, n, C]."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
