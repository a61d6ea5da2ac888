"""Pictures: a folder of them as a source, and the way from any RGB picture to what the model is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from livestar.errors import SourceUnreadable


class FolderPicture(NamedTuple):
    """One entry of a folder."""

    position: int
    """Place in the folder, from 0."""
    image: NDArray[np.uint8] | None
    """RGB, [image_size, image_size, 3]; None where it cannot be read."""
    problem: str
    """Why it cannot be read; empty where it can."""


def fit(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """The picture as the model is shown it: a square, bicubic, without regard to the aspect ratio.

    This is the published preprocessing, bit for bit: `transforms.Resize((size, size), BICUBIC)` on an RGB `PIL.Image`.
    """
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.array(image, dtype=np.uint8)


def read_picture(path: Path, *, image_size: int | None, max_pixels: int) -> NDArray[np.uint8]:
    """Read a picture, upright by its EXIF orientation; of its own size where `image_size` is None.

    Raises `SourceUnreadable` for one that is damaged, or by its header larger than `max_pixels`.
    """
    try:
        with Image.open(path) as picture:
            num_pixels = picture.width * picture.height
            if num_pixels > max_pixels:
                raise SourceUnreadable(too_large(path.name, picture.width, picture.height, max_pixels))
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I;16"):  # converting would cut off what is brighter than 255 of 65,535
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            rgb = upright.convert("RGB")
            return np.array(rgb, dtype=np.uint8) if image_size is None else fit(rgb, image_size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SourceUnreadable(f"{path.name} is too large a picture; make it smaller") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        # Pillow's decoders answer damaged bytes with any of these.
        raise SourceUnreadable(f"{path.name} is no picture that can be read; replace or remove it") from error


def read_pictures(paths: list[Path], *, first: int, image_size: int, max_pixels: int) -> Iterator[FolderPicture]:
    """Read pictures one by one from position `first` on; one that cannot be read comes as its problem."""
    for position in range(first, len(paths)):
        try:
            image = read_picture(paths[position], image_size=image_size, max_pixels=max_pixels)
        except SourceUnreadable as error:
            yield FolderPicture(position, None, str(error))
        else:
            yield FolderPicture(position, image, "")


def too_large(name: str, width: int, height: int, max_pixels: int) -> str:
    """The message for a picture of more than `max_pixels`."""
    size = f"{width} x {height} pixels"
    return f"{name} is {size}, more than the {max_pixels} allowed; make it smaller or raise max_pixels"
