"""Reading pictures, and the way to what the model is shown."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livestar.errors import SourceUnreadable
from livestar.media.pictures import fit, read_picture, read_pictures

pytestmark = pytest.mark.unit

MAX_PIXELS = 10_000


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def read(path: Path) -> np.ndarray:
    return read_picture(path, image_size=16, max_pixels=MAX_PIXELS)


def test_a_picture_is_resized_as_published_bit_for_bit() -> None:
    picture = noise(50, 30)
    expected = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(fit(picture, 16), expected)


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    picture = noise(16, 16)
    np.testing.assert_array_equal(fit(picture, 16), np.asarray(picture))
    assert fit(picture, 16).flags.writeable


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_mode_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    noise(20, 20, mode).save(path)
    image = read(path)
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.uint8


def test_a_photo_is_turned_upright_by_its_exif_orientation(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 16), "red")
    picture.paste("blue", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: what is on top goes to the right
    picture.save(tmp_path / "x.png", exif=exif)
    image = read(tmp_path / "x.png")
    assert image[8, 15].tolist() == [0, 0, 255]
    assert image[8, 0].tolist() == [255, 0, 0]


def test_a_picture_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (200, 100)).save(path)
    with pytest.raises(SourceUnreadable, match="200 x 100 pixels, more than the 10000 allowed"):
        read(path)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_that_pillow_itself_refuses_is_refused_in_our_words(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (200, 100)).save(path)
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", side, side) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    with pytest.raises(SourceUnreadable, match=r"bomb\.png is .*make it smaller"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"no picture", "half"])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "x.png"
    noise(40, 40).save(path)
    path.write_bytes(path.read_bytes()[:1000] if isinstance(content, str) else content)
    with pytest.raises(SourceUnreadable, match=r"x\.png is no picture that can be read"):
        read(path)


def test_pictures_that_cannot_be_read_keep_their_place(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for path in paths:
        noise(20, 20).save(path)
    paths[2].write_bytes(b"")
    found = list(read_pictures(paths, first=1, image_size=16, max_pixels=MAX_PIXELS))
    assert [(picture.position, picture.image is not None) for picture in found] == [(1, True), (2, False), (3, True)]
    assert "2.png" in found[1].problem
