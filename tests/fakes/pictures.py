"""Moving pictures without a video: shapes that drift over a scene, and a new scene now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestar.types import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray


def picture(video: int, index: int, size: int, *, scene_frames: int = 5) -> NDArray[np.uint8]:
    """Picture `index` of a made-up video, [size, size, 3] uint8; the same arguments give the same picture."""
    scene = np.random.default_rng([video, index // scene_frames])
    y, x = np.mgrid[0:size, 0:size] / size
    waves = scene.uniform(1, 9, (3, 2))
    phases = scene.uniform(0, 2 * np.pi, 3)
    image = np.stack([np.sin(2 * np.pi * (a * x + b * y) + p) for (a, b), p in zip(waves, phases, strict=True)], -1)
    image = 127 + scene.uniform(30, 120) * image
    corner, speed = scene.uniform(0, 0.6, 2), scene.uniform(-0.06, 0.06, 2)
    top, left = np.clip((corner + speed * (index % scene_frames)) * size, 0, 0.7 * size).astype(int)
    image[top : top + size // 3, left : left + size // 3] = scene.uniform(0, 255, 3)
    image += np.random.default_rng([video, index, 1]).normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def video(number: int, num_frames: int, size: int, *, scene_frames: int = 5) -> list[Frame]:
    """The first frames of a made-up video, numbered from 1, one per second."""
    return [
        Frame(index, float(index - 1), picture(number, index, size, scene_frames=scene_frames))
        for index in range(1, num_frames + 1)
    ]
