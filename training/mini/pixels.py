"""Reads cut-outs and places from the fetched packages: pictures, characters of an emoji font, panoramas, clips."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from livestar.errors import InvalidRequest
from training.mini.catalogue import Picture, Place

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
        return [_panorama(path)]
    if place.kind == "clip":
        return _clip(path, fps)
    image = Image.open(path).convert("RGB")
    image.thumbnail((_LONGEST, _LONGEST))
    return [np.asarray(image)]


def _panorama(path: Path) -> Pixels:
    """A panorama in OpenEXR, or in a JavaScript module that holds one as base64, with light as the eye would take it."""
    data = path.read_bytes()
    if path.suffix == ".js":
        try:
            data = base64.b64decode(data.split(b"base64,", 1)[1].split(b"'", 1)[0], validate=True)
        except (IndexError, binascii.Error) as error:
            raise InvalidRequest(f"{path} holds no base64 of a panorama; fetch it again") from error
    with av.open(io.BytesIO(data), format="exr_pipe") as file:
        frame = next(file.decode(video=0))
    kind = np.dtype("<f2" if "f16" in frame.format.name else "<f4")
    planes = [
        np.frombuffer(bytes(plane), kind).reshape(frame.height, -1)[:, : frame.width].astype(np.float32)
        for plane in frame.planes[:3]
    ]
    light = np.nan_to_num(np.clip(np.stack([planes[2], planes[0], planes[1]], -1), 0, 1e4))
    light *= 0.288 / np.exp(np.mean(np.log(light.mean(-1) + 1e-3)))
    light = light * (1 + light / 9) / (1 + light)
    return (np.clip(light, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def _clip(path: Path, fps: int, seconds: float = 4.0) -> list[Pixels]:
    pictures: list[Pixels] = []
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            if frame.time is None or frame.time > seconds:
                break
            if frame.time * fps >= len(pictures):
                image = frame.to_image()
                image.thumbnail((_LONGEST // 2, _LONGEST // 2))
                pictures.append(np.asarray(image))
    if not pictures:
        raise InvalidRequest(f"{path} has no picture; fetch it again")
    return pictures
