"""The language model's parts against plain loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from livestar.model.config import LanguageConfig
from livestar.model.language import RMSNorm, SelfAttention, rope_angles, rope_frequencies, rotate
from livestar.model.weights import load_model
from livestar.reference import PlainCache

pytestmark = pytest.mark.unit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def language_config(num_heads: int, num_kv_heads: int, head_dim: int) -> LanguageConfig:
    return LanguageConfig(
        hidden_size=num_heads * head_dim,
        intermediate_size=16,
        num_layers=1,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        vocab_size=10,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_position_embeddings=64,
        bias=False,
    )


@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(8, 2, 4), (4, 4, 6), (6, 1, 2)])
def test_the_fused_projection_is_split_by_kv_heads(num_heads: int, num_kv_heads: int, head_dim: int) -> None:
    """For each KV head: its query heads, then its key, then its value."""
    config = language_config(num_heads, num_kv_heads, head_dim)
    attention = SelfAttention(config)
    width, groups = config.hidden_size, num_heads // num_kv_heads
    attention.wqkv.weight.data = noise((num_heads + 2 * num_kv_heads) * head_dim, width)
    attention.wo.weight.data = torch.eye(width)
    x = noise(5, width, seed=1)
    seen: dict[str, Any] = {}

    def spy(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        seen.update(layer=layer, q=q, k=k, v=v)
        return q

    with torch.inference_mode():
        out = attention(x, torch.ones(5, 1, 1, head_dim // 2), torch.zeros(5, 1, 1, head_dim // 2), 3, spy)
        for kv_head in range(num_kv_heads):
            first = kv_head * (groups + 2)
            rows = [attention.wqkv.weight[(first + i) * head_dim : (first + i + 1) * head_dim] for i in range(groups + 2)]
            for i in range(groups):
                torch.testing.assert_close(seen["q"][:, kv_head * groups + i], x @ rows[i].T)
            torch.testing.assert_close(seen["k"][:, kv_head], x @ rows[groups].T)
            torch.testing.assert_close(seen["v"][:, kv_head], x @ rows[groups + 1].T)
    assert seen["layer"] == 3
    torch.testing.assert_close(out, seen["q"].flatten(1))


def test_rotation_pairs_the_halves_and_turns_by_position() -> None:
    config = language_config(2, 1, 8)
    x = noise(3, 8)
    positions = torch.tensor([0, 7, 63])
    angles = rope_angles(positions, rope_frequencies(config))
    got = rotate(x, angles.cos(), angles.sin())
    for row, position in enumerate(positions.tolist()):
        for pair in range(4):
            angle = position * 10000.0 ** (-2 * pair / 8)
            a, b = float(x[row, pair]), float(x[row, pair + 4])
            assert float(got[row, pair]) == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-5)
            assert float(got[row, pair + 4]) == pytest.approx(b * math.cos(angle) + a * math.sin(angle), abs=1e-5)


def test_rotations_compose() -> None:
    """What eviction rests on: turning back by the distance moved is being turned less to begin with."""
    frequencies = rope_frequencies(language_config(2, 1, 8))
    x = noise(1, 8)

    def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
        angles = rope_angles(torch.tensor([position]), frequencies)
        return rotate(vector, angles.cos(), angles.sin())

    torch.testing.assert_close(turned(turned(x, 500), -123), turned(x, 377), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned(x, 40).norm(), x.norm())


def test_rms_norm_is_computed_in_float32() -> None:
    norm = RMSNorm(6, 1e-5)
    norm.weight.data = noise(6)
    x = 30 * noise(4, 6, seed=2)
    wanted = norm.weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(norm(x), wanted)
    large = torch.full((1, 6), 300.0, dtype=torch.float16)  # its square is no float16
    assert norm.to(torch.float16)(large).isfinite().all()


def test_a_token_sees_itself_and_all_before_it(json_checkpoint: Path) -> None:
    language = load_model(json_checkpoint, dtype=torch.float32).language_model
    ids = torch.arange(20) + 50
    changed = ids.clone()
    changed[12] = 7
    with torch.inference_mode():
        first, second = (language(language.embed(x), torch.arange(20), PlainCache()) for x in (ids, changed))
    assert torch.equal(first[:12], second[:12])
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in zip(first[12:], second[12:], strict=True))


def test_only_distances_matter(json_checkpoint: Path) -> None:
    language = load_model(json_checkpoint, dtype=torch.float32).language_model
    ids = torch.arange(15) + 30
    with torch.inference_mode():
        near, far = (language(language.embed(ids), torch.arange(15) + start, PlainCache()) for start in (0, 1000))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-3)


def test_logits_are_float32_of_the_rows_asked_for(json_checkpoint: Path) -> None:
    language = load_model(json_checkpoint).language_model
    hidden = noise(3, 32).to(torch.bfloat16)
    with torch.inference_mode():
        logits = language.logits(hidden)
    assert logits.dtype == torch.float32
    assert logits.shape == (3, 403)
