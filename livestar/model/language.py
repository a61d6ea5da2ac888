"""InternLM2: the language model, over a flat batch of tokens from any number of sequences.

Parameter names are those of the checkpoint.  Shapes: T tokens of all sequences together, D width, N query heads, K KV heads,
G query heads per KV head, H head width.  Where keys and values live, and who sees whom, is the attention's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from livestar.model.config import LanguageConfig


MAX_TILE_LOGITS = 2**20
"""Logits held at a time when scoring; 4 MB, about a core's cache.  Larger tiles cost memory traffic, smaller ones calls."""
MIN_TILE = 256
"""Fewest vocabulary entries in a tile, however many rows there are."""


class Attention(Protocol):
    """Attends the tokens of one batch to what they may see, layer by layer."""

    def __call__(self, layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        """Rotated queries and keys, and values, of the batch's new tokens -> [T, N, H]."""
        ...


def rope_frequencies(config: LanguageConfig, device: torch.device | None = None) -> Tensor:
    """Angle per position of each rotated pair: [H / 2] float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    return 1.0 / (config.rope_theta**exponents)


def rope_angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """[n] positions -> [n, H / 2] angles in float32, rounded as the released code rounds them."""
    return positions.to(torch.float32).unsqueeze(-1) * frequencies


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates [..., H] by angles whose cosine and sine are [..., H / 2]; pairs are (i, i + H/2), as in Llama."""
    x1, x2 = x.to(torch.float32).chunk(2, dim=-1)
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm; torch's kernel computes it in float32 whatever the dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class SelfAttention(nn.Module):
    """Grouped-query attention with the released fused projection.

    wqkv's rows are laid out (K, G + 2, H): for each KV head its G query heads, then its key, then its value.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.num_kv_heads = config.num_kv_heads
        self.num_groups = config.num_heads // config.num_kv_heads
        width = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        self.wqkv = nn.Linear(config.hidden_size, width, bias=config.bias)
        self.wo = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)

    def forward(self, x_TD: Tensor, cos: Tensor, sin: Tensor, layer: int, attention: Attention) -> Tensor:
        """[T, D] -> [T, D]; cos and sin are [T, 1, 1, H / 2]."""
        qkv = self.wqkv(x_TD).unflatten(-1, (self.num_kv_heads, self.num_groups + 2, -1))
        qk = rotate(qkv[:, :, :-1], cos, sin)
        out_TNH = attention(layer, qk[:, :, :-1].flatten(1, 2), qk[:, :, -1], qkv[:, :, -1])
        projected: Tensor = self.wo(out_TNH.flatten(1))
        return projected


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        out: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return out


class DecoderLayer(nn.Module):
    """Pre-norm block."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_TD: Tensor, cos: Tensor, sin: Tensor, layer: int, attention: Attention) -> Tensor:
        """[T, D] -> [T, D]."""
        x_TD = x_TD + self.attention(self.attention_norm(x_TD), cos, sin, layer, attention)
        out: Tensor = x_TD + self.feed_forward(self.ffn_norm(x_TD))
        return out


class Decoder(nn.Module):
    """Embeddings, layers and the final norm."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """InternLM2 with its output head; logits are asked for apart, since few rows ever need them."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def embed(self, ids: Tensor) -> Tensor:
        """[T] token ids -> [T, D]."""
        embedded: Tensor = self.model.tok_embeddings(ids)
        return embedded

    def forward(self, x_TD: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Embedded tokens [T, D] at `positions` [T] -> hidden states [T, D] before the final norm."""
        angles = rope_angles(positions, rope_frequencies(self.config, positions.device))
        cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
        for index, layer in enumerate(self.model.layers):
            x_TD = layer(x_TD, cos, sin, index, attention)
        return x_TD

    def logits(self, hidden: Tensor) -> Tensor:
        """Chosen hidden states [n, D] -> [n, vocab] float32."""
        out: Tensor = self.output(self.model.norm(hidden))
        return out.to(torch.float32)

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log likelihood of token targets[i] after hidden[i]: [n, D], [n] -> [n] float32.

        Equals cross entropy of `logits`, but goes over the vocabulary in tiles that fit a cache, and never holds them all.
        """
        normed: Tensor = self.model.norm(hidden)
        tiles = self.output.weight.split(max(MIN_TILE, MAX_TILE_LOGITS // max(1, len(normed))))
        parts = [(normed @ tile.mT).to(torch.float32).logsumexp(-1) for tile in tiles]
        expected = (normed.to(torch.float32) * self.output.weight[targets].to(torch.float32)).sum(-1)
        return torch.stack(parts).logsumexp(0) - expected
