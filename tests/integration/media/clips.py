"""Small real videos, made with PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = ((RED, GREEN), (BLUE, WHITE))
"""Colours of a clip's quarters, as seen."""


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Four quarters in four colours, and a grey bar that moves."""
    image = np.zeros((height, width, 3), np.uint8)
    for row, colours in enumerate(QUARTERS):
        for column, colour in enumerate(colours):
            image[row * height // 2 : (row + 1) * height // 2, column * width // 2 : (column + 1) * width // 2] = colour
    x = number * 4 % width
    image[height // 2 - 4 : height // 2 + 4, x : x + 8] = 128
    return image


def make_clip(
    path: Path | str,
    *,
    num_frames: int = 75,
    rate: Fraction | int = 25,
    size: tuple[int, int] = (128, 96),
    times_ms: Sequence[int] | None = None,
    format: str | None = None,
    codec: str = "libx264",
    gop: int = 25,
    options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write a video; `times_ms` gives each frame's own time, `tags` are the track's."""
    with av.open(str(path), "w", format=format, options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": str(gop)}
        stream.metadata.update(tags or {})
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def make_sound(path: Path, codec: str) -> Path:
    """Write one second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix (a, b, c, d) into an MP4's track header."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        content[at + offset : at + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(content)


def quarters(image: NDArray[np.uint8]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The nearest pure colours in the middles of an image's quarters."""
    side = image.shape[0]
    return tuple(
        tuple(tuple(255 if value > 127 else 0 for value in image[y, x].tolist()) for x in (side // 4, side * 3 // 4))
        for y in (side // 4, side * 3 // 4)
    )


def damage(path: Path, ranges: Iterable[tuple[float, float]], *, step: int = 7) -> None:
    """Overwrite every `step`-th byte in ranges given as shares of the file."""
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(1)
    for start, end in ranges:
        for at in range(int(len(content) * start), int(len(content) * end), step):
            content[at] = int(noise.integers(0, 256))
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    """Keep only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
