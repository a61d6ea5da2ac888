"""From a picture to a frame's tokens, against plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from livestar.model.vision import merge_schedule, merge_tokens, normalise, pixel_shuffle
from livestar.model.weights import load_model
from tests.fakes.pictures import picture

pytestmark = pytest.mark.unit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pictures_are_normalised_with_imagenets_statistics() -> None:
    image = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    image[0, 0, 1] = torch.tensor([255, 128, 1])
    pixels = normalise(image, torch.float32)
    assert pixels.shape == (1, 3, 2, 2)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        value = float(image[0, 0, 1, channel]) / 255
        assert float(pixels[0, channel, 0, 1]) == pytest.approx((value - mean) / std, rel=1e-6)
        assert float(pixels[0, channel, 1, 1]) == pytest.approx(-mean / std, rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 2, 1), (2, 4, 4, 3), (3, 8, 8, 5)])
def test_pixel_shuffle_equals_a_loop(shape: tuple[int, int, int, int]) -> None:
    x = noise(*shape)
    out = pixel_shuffle(x)
    frames, height, width, channels = shape
    assert out.shape == (frames, height // 2, width // 2, 4 * channels)
    for frame in range(frames):
        for i in range(height // 2):
            for j in range(width // 2):
                parts = [x[frame, 2 * i + di, 2 * j + dj] for di in (0, 1) for dj in (0, 1)]
                assert torch.equal(out[frame, i, j], torch.cat(parts))


@pytest.mark.parametrize(
    ("num_tokens", "target", "steps"),
    [(256, 16, [128, 64, 32, 16]), (64, 16, [32, 16]), (16, 16, []), (50, 16, [25, 9]), (17, 16, [1]), (5, 1, [2, 1, 1])],
)
def test_each_step_merges_at_most_half(num_tokens: int, target: int, steps: list[int]) -> None:
    assert merge_schedule(num_tokens, target) == steps


def merge_slowly(
    tokens: NDArray[np.float64], target: int, num_heads: int
) -> tuple[NDArray[np.float64], list[list[int]], list[int]]:
    """Token merging of one frame, token by token.  Also which of the first tokens each is made of, and its anchor."""
    made_of = [[i] for i in range(len(tokens))]
    anchors = list(range(len(tokens)))
    rows = list(tokens)
    while len(rows) > target:
        num_merged = min(len(rows) - target, len(rows) // 2)
        metric = [row.reshape(num_heads, -1).mean(0) for row in rows]
        metric = [m / math.sqrt((m * m).sum()) for m in metric]
        even, odd = range(0, len(rows), 2), range(1, len(rows), 2)
        best = {a: max(odd, key=lambda b, a=a: metric[a] @ metric[b]) for a in even}  # type: ignore[misc]
        order = sorted(even, key=lambda a: -(metric[a] @ metric[best[a]]))
        merged, kept = order[:num_merged], order[num_merged:]
        sums = {i: rows[i] * len(made_of[i]) for i in range(len(rows))}
        groups = {i: list(made_of[i]) for i in range(len(rows))}
        for a in merged:
            sums[best[a]] = sums[best[a]] + sums[a]
            groups[best[a]] += made_of[a]
        stay = [*kept, *odd]
        rows = [sums[i] / len(groups[i]) for i in stay]
        made_of, anchors = [groups[i] for i in stay], [anchors[i] for i in stay]
    return np.stack(rows), made_of, anchors


@pytest.mark.parametrize(("num_tokens", "target", "num_heads"), [(256, 16, 4), (64, 16, 2), (50, 16, 1), (33, 4, 3), (16, 16, 2)])
def test_merging_equals_a_loop(num_tokens: int, target: int, num_heads: int) -> None:
    x = noise(3, num_tokens, 6 * num_heads, seed=num_tokens)
    got = merge_tokens(x, target, num_heads)
    assert got.shape == (3, target, 6 * num_heads)
    for frame in range(3):
        wanted, made_of, _ = merge_slowly(x[frame].double().numpy(), target, num_heads)
        np.testing.assert_allclose(got[frame].numpy(), wanted, rtol=1e-4, atol=1e-5)
        assert sorted(i for group in made_of for i in group) == list(range(num_tokens))


def test_merging_256_to_16_keeps_one_token_of_each_row_in_order() -> None:
    """Every even token is merged, so that token k is the last of row k of the 16 x 16 map, whatever it gathered."""
    x = noise(256, 12, seed=7)
    got = merge_tokens(x.unsqueeze(0), 16, 2)[0]
    _, made_of, anchors = merge_slowly(x.double().numpy(), 16, 2)
    assert anchors == [16 * row + 15 for row in range(16)]
    assert sum(map(len, made_of)) == 256
    for row, group in enumerate(made_of):
        torch.testing.assert_close(got[row], x[group].mean(0), rtol=1e-4, atol=1e-5)


def test_merging_keeps_the_mean_of_all_tokens() -> None:
    x = noise(1, 256, 8)
    x[:, :, -1] = 1.0  # whatever is merged with whatever, weights sum to one
    assert torch.allclose(merge_tokens(x, 16, 2)[:, :, -1], torch.ones(1, 16))


def test_equal_tokens_stay_what_they_are() -> None:
    x = torch.ones(2, 64, 8) * torch.arange(1, 9)
    torch.testing.assert_close(merge_tokens(x, 16, 2), x[:, :16])


def test_merging_does_not_look_at_other_frames() -> None:
    x = noise(5, 64, 8)
    together = merge_tokens(x, 16, 2)
    for frame in range(5):
        torch.testing.assert_close(merge_tokens(x[frame : frame + 1], 16, 2)[0], together[frame], rtol=1e-6, atol=1e-6)


def test_half_precision_is_merged_in_float32() -> None:
    x = noise(1, 64, 8).to(torch.bfloat16)
    got = merge_tokens(x, 16, 2)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, merge_tokens(x.float(), 16, 2).to(torch.bfloat16))


def test_encoding_is_deterministic_and_each_frame_for_itself(json_checkpoint: Path) -> None:
    model = load_model(json_checkpoint, dtype=torch.float32)
    images = torch.stack([torch.from_numpy(picture(1, index, 112)) for index in range(5)])
    first = model.encode_frames(images)
    assert first.shape == (5, 16, 32)
    assert torch.equal(model.encode_frames(images), first)
    for index in range(5):
        torch.testing.assert_close(model.encode_frames(images[index : index + 1])[0], first[index], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_features_can_be_kept_and_projected_later(json_checkpoint: Path) -> None:
    model = load_model(json_checkpoint, dtype=torch.float32)
    images = torch.stack([torch.from_numpy(picture(1, index, 112)) for index in range(3)])
    features = model.features(images)
    assert features.shape == (3, 16, 64)
    assert torch.equal(model.project(features), model.encode_frames(images))


def test_training_reaches_the_projector_but_not_the_tower(json_checkpoint: Path) -> None:
    model = load_model(json_checkpoint, dtype=torch.float32).requires_grad_(True)
    features = model.features(torch.from_numpy(picture(1, 0, 112)).unsqueeze(0))
    assert not features.requires_grad
    assert not features.is_inference()
    model.project(features).sum().backward()
    assert all(parameter.grad is not None for parameter in model.mlp1.parameters())
    assert all(parameter.grad is None for parameter in model.vision_model.parameters())
