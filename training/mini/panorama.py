"""Reads panoramas: OpenEXR, which holds light as it is, shown as the eye would see it."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from livestar.errors import InvalidRequest

_GREY = 0.288  # what the mean of the logarithms of light is brought to


def read_panorama(path: Path) -> npt.NDArray[np.uint8]:
    """A panorama, uint8 [height, width, 3], from an OpenEXR file or a JavaScript module that holds one as base64.

    Raises:
        InvalidRequest: it is neither.
    """
    data = path.read_bytes()
    if path.suffix == ".js":
        try:
            data = base64.b64decode(data.split(b"base64,", 1)[1].split(b"'", 1)[0], validate=True)
        except (IndexError, binascii.Error) as error:
            raise InvalidRequest(f"{path} holds no base64 of a panorama; fetch it again") from error
    return _shown(_light(data, path))


def _light(data: bytes, path: Path) -> npt.NDArray[np.float32]:
    """Linear light of an OpenEXR file, float32 [height, width, 3]."""
    try:
        with av.open(io.BytesIO(data), mode="r", format="exr_pipe") as file:
            frame = next(file.decode(video=0))
    except (av.error.FFmpegError, StopIteration) as error:
        raise InvalidRequest(f"{path} is no OpenEXR picture that can be read; fetch it again") from error
    kind = np.dtype("<f2" if "f16" in frame.format.name else "<f4")
    green, blue, red = (
        np.frombuffer(bytes(plane), kind).reshape(frame.height, -1)[:, : frame.width].astype(np.float32)
        for plane in frame.planes[:3]
    )
    return np.nan_to_num(np.clip(np.stack([red, green, blue], -1), 0, 1e4))


def _shown(light: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Light between 0 and anything as pixels: exposed to a middle grey, highlights rolled off (Reinhard), gamma 2.2."""
    light = light * np.float32(_GREY / np.exp(np.mean(np.log(light.mean(-1) + 1e-3))))
    rolled = light * (1 + light / 9) / (1 + light)
    return (np.clip(rolled, 0, 1) ** np.float32(1 / 2.2) * 255).astype(np.uint8)
