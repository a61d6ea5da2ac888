"""Draws scripted streams: real cut-outs over real places."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.mini import pixels
from training.mini.catalogue import COLOURS, Picture, Place
from training.mini.script import Actor, Script, Shot, at, holds

SIDE = 256
"""Width and height of a frame, in pixels."""
FPS = 2
Frame = npt.NDArray[np.uint8]
_CLIP_FPS = 2
_LARGEST = 224  # pixels that a cut-out is kept in


class Renderer:
    """Draws scripts from the folder that `fetch` filled; keeps what it has decoded."""

    def __init__(self, assets: Path) -> None:
        self._assets = assets
        self._sprite = functools.cache(self._load_sprite)
        self._place = functools.cache(self._load_place)

    def frames(self, script: Script) -> Iterator[Frame]:
        """Every frame of a script, uint8 [256, 256, 3], frame k at k / 2 seconds.

        Raises:
            InvalidRequest: a file is missing from the assets; it says what to fetch.
        """
        rng = np.random.default_rng([script.seed, len(script.split)])
        for k in range(int(script.duration_s * FPS)):
            yield self._frame(script, k / FPS, rng)

    def _frame(self, script: Script, t: float, rng: np.random.Generator) -> Frame:
        shot = next(shot for shot in reversed(script.shots) if shot.begin_s <= t)
        canvas = self._view(shot, t)
        for actor in script.actors:
            if holds(actor.visible, t):
                self._draw(canvas, actor, t, script.style.tilt)
        if any(begin <= t < end for begin, end in script.shakes):
            dx, dy = (int(d) for d in rng.integers(6, 20, 2) * rng.choice((-1, 1), 2))
            canvas = Image.fromarray(np.roll(np.asarray(canvas), (dy, dx), (0, 1)))
        gain = script.style.gain * at(script.light, t) * (1 + script.style.flicker * rng.standard_normal())
        values = np.asarray(canvas, np.float32) * gain
        if script.style.noise:
            values += rng.standard_normal((SIDE, SIDE, 1), np.float32) * script.style.noise
        frame: Frame = np.clip(values, 0, 255).astype(np.uint8)
        return _squeezed(frame, script.style.quality) if script.style.quality else frame

    def _view(self, shot: Shot, t: float) -> Image.Image:
        pictures = self._place(shot.place)
        picture = pictures[pixels.bounce(int((t - shot.begin_s) * _CLIP_FPS), len(pictures))]
        height, width = picture.shape[:2]
        side = min(at(shot.height, t), 1.0) * (min(height, width) - 1)
        pan = at(shot.pan, t)
        if shot.place.kind == "pano":
            left, top = (pan % 1.0) * width, 0.53 * height - side / 2
        else:
            left, top = min(max(pan, 0.0), 1.0) * (width - side), (height - side) / 2
        columns = (np.arange(int(left), int(left) + int(side) + 1)) % width
        window = picture[int(top) : int(top) + int(side) + 1][:, columns]
        box = (left - int(left), top - int(top))
        return Image.fromarray(window).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC, box=(box[0], box[1], box[0] + int(side), box[1] + int(side))
        )

    def _draw(self, canvas: Image.Image, actor: Actor, t: float, tilt: float) -> None:
        sprite = self._sprite(actor.picture, actor.colour)
        if holds(actor.rightward, t) != (actor.picture.facing == "right"):
            sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        ratio = at(actor.scale, t) * SIDE / max(sprite.size)
        size = (max(1, round(sprite.width * ratio)), max(1, round(sprite.height * ratio)))
        sprite = sprite.resize(size, Image.Resampling.BILINEAR)
        angle = at(actor.angle, t) + tilt
        sprite = sprite.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        x, y = at(actor.x, t) * SIDE, at(actor.y, t) * SIDE
        canvas.paste(sprite, (round(x - sprite.width / 2), round(y - sprite.height / 2)), sprite)

    def _load_sprite(self, picture: Picture, colour: str | None) -> Image.Image:
        sprite = pixels.cutout(self._assets, picture)
        sprite.thumbnail((_LARGEST, _LARGEST))
        return pixels.tinted(sprite, COLOURS[colour]) if colour else sprite

    def _load_place(self, place: Place) -> list[Frame]:
        return pixels.background(self._assets, place, _CLIP_FPS)


def _squeezed(frame: Frame, quality: int) -> Frame:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
