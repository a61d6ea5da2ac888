"""Reads cut-outs and places from the fetched packages: pictures, characters of an emoji font, panoramas, clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from livestar.annotations.footage import read_frames
from livestar.annotations.types import AnnotatedVideo
from livestar.errors import InvalidRequest
from training.mini.catalogue import Picture, Place
from training.mini.panorama import read_panorama

_FONT = "NotoColorEmoji.ttf"
_FONT_SIZE = 109  # the one size that the bitmaps of this font have
_LONGEST = 1400  # pixels that a photograph is kept in
Pixels = npt.NDArray[np.uint8]


def located(assets: Path, source: str, file: str) -> Path:
    """Path of a fetched file.

    Raises:
        InvalidRequest: it is not there.
    """
    path = assets / source / file
    if not path.is_file():
        raise InvalidRequest(f"{path} is missing; python -m training.mini fetch --to {assets} fetches it")
    return path


def cutout(assets: Path, picture: Picture) -> Image.Image:
    """A picture of a thing as RGBA, cut to what is visible."""
    if picture.source == "noto":
        image = _character(located(assets, "noto", _FONT), picture.file)
    else:
        image = Image.open(located(assets, picture.source, picture.file))
        image.thumbnail((512, 512))
        image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 if a > 24 else 0).getbbox()
    if box is None:
        raise InvalidRequest(f"{picture.name} shows nothing; take it out of things.toml")
    return image.crop(box)


def _character(font: Path, codes: str) -> Image.Image:
    face = ImageFont.truetype(font, _FONT_SIZE)
    image = Image.new("RGBA", (3 * _FONT_SIZE, 2 * _FONT_SIZE))
    text = "".join(chr(int(code, 16)) for code in codes.split("-"))
    ImageDraw.Draw(image).text((8, 8), text, font=face, embedded_color=True)
    return image


def tinted(sprite: Image.Image, hue: int) -> Image.Image:
    """A cut-out whose colourful parts have another hue (of 256)."""
    values = np.asarray(sprite.convert("RGB").convert("HSV")).copy()
    colourful = values[..., 1] > 70
    values[..., 0][colourful] = hue
    values[..., 1][colourful] = np.maximum(values[..., 1][colourful], 150)
    if colourful.mean() < 0.1:  # a grey thing: colour all but its darkest parts
        values[..., 0] = hue
        values[..., 1] = np.where(values[..., 2] > 60, 150, values[..., 1])
    coloured = Image.fromarray(values, "HSV").convert("RGB")
    coloured.putalpha(sprite.getchannel("A"))
    return coloured


def bounce(k: int, count: int) -> int:
    """Index of picture `k` of a clip of `count` pictures that runs forwards, backwards, forwards..."""
    if count == 1:
        return 0
    k %= 2 * count - 2
    return min(k, 2 * count - 2 - k)


def background(assets: Path, place: Place, fps: int) -> list[Pixels]:
    """The pictures of a place, uint8 [height, width, 3]: one, or those of a clip, `fps` a second."""
    path = located(assets, place.source, place.file)
    if place.kind == "pano":
        return [read_panorama(path)]
    if place.kind == "clip":
        return _clip(path, fps)
    image = Image.open(path).convert("RGB")
    image.thumbnail((_LONGEST, _LONGEST))
    return [np.asarray(image)]


def _clip(path: Path, fps: int, seconds: float = 4.0) -> list[Pixels]:
    """The pictures of the first `seconds` of a video file."""
    video = AnnotatedVideo(source=str(path), events=(), end_s=seconds)
    pictures = []
    for picture in read_frames(video, fps=fps, image_size=None):
        image = Image.fromarray(picture.image)
        image.thumbnail((_LONGEST // 2, _LONGEST // 2))
        pictures.append(np.asarray(image))
    if not pictures:
        raise InvalidRequest(f"{path} has no picture; fetch it again")
    return pictures
