"""A video's visual tokens on disk: one safetensors file, written as they come and mapped when they are read.

Tensors: `features` [F, V, W], `times_s` [F] float64.  The metadata holds the cache key and a checksum of all that follows the
header.  While it is written the file has another name, so that a name that counts stands for a whole file only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

import torch
from safetensors import SafetensorError, safe_open

from livestar.errors import LiveStarError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from torch import Tensor

SUFFIX = ".safetensors"
PARTIAL_SUFFIX = ".partial"
"""What the name of an unfinished file ends with."""
DTYPE_NAMES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.uint8: "U8",  # pictures, where the tower is trained
}
"""Number formats and safetensors' names for them."""
HEADER_BYTES = 1024
"""Room for the header, with the 8 bytes of its length: it is written last, when the number of frames is known."""
READ_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFeatures:
    """The visual tokens of a video's frames.  Holds no tensors: they are mapped from the file when they are asked for."""

    path: Path
    times_s: tuple[float, ...]
    """Media time of each frame, in seconds."""
    num_visual_tokens: int
    width: int
    dtype: torch.dtype

    @property
    def num_frames(self) -> int:
        """Frames in all."""
        return len(self.times_s)

    @property
    def features(self) -> Tensor:
        """[F, V, W], backed by the file: pages are read when they are touched, and can be dropped again."""
        with self._opened() as file:
            tensor: Tensor = file.get_tensor("features")
        return tensor

    def window(self, first: int, num_frames: int) -> Tensor:
        """Features of `num_frames` frames from frame `first` on, in memory of their own: [num_frames, V, W]."""
        return self.features[first : first + num_frames].clone()

    def _opened(self) -> safe_open:
        try:
            return safe_open(self.path, framework="pt", device="cpu")
        except (OSError, SafetensorError) as error:
            raise LiveStarError(f"{self.path} was there and cannot be read any more ({error}); fill the cache again") from error


class FeatureWriter:
    """Writes one file; use it as a context, and call `commit` at the end: without it nothing is left."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self._file: BinaryIO | None = None
        self._partial: Path | None = None
        self._shape: tuple[int, int] | None = None
        self._dtype = torch.float32
        self._times_s: list[float] = []
        self._num_bytes = 0
        self._checksum = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()

    def append(self, features: Tensor, times_s: Sequence[float]) -> None:
        """Adds frames [n, V, W] with their times.  Raises `LiveStarError` where the disk takes no more."""
        assert len(features) == len(times_s)
        shape = (features.shape[1], features.shape[2])
        if self._shape is None:
            self._shape, self._dtype = shape, features.dtype
        assert (shape, features.dtype) == (self._shape, self._dtype), "frames of one video differ in their features"
        self._times_s += times_s
        self._write(_bytes_of(features))

    def commit(self) -> VideoFeatures:
        """Finishes the file and gives it its name."""
        assert self._shape is not None, "no frame was appended"
        end = self._num_bytes
        self._write(_bytes_of(torch.tensor(self._times_s, dtype=torch.float64)))
        num_frames = len(self._times_s)
        header = {
            "__metadata__": {"key": self._key, "crc32": f"{self._checksum:08x}"},
            "features": {"dtype": DTYPE_NAMES[self._dtype], "shape": [num_frames, *self._shape], "data_offsets": [0, end]},
            "times_s": {"dtype": "F64", "shape": [num_frames], "data_offsets": [end, self._num_bytes]},
        }
        text = json.dumps(header).encode().ljust(HEADER_BYTES - 8)
        assert self._file is not None and self._partial is not None and len(text) == HEADER_BYTES - 8
        try:
            self._file.seek(0)
            self._file.write(struct.pack("<Q", len(text)) + text)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)
        except OSError as error:
            raise self._failed(error) from error
        self._file = self._partial = None
        return VideoFeatures(
            path=self._path,
            times_s=tuple(self._times_s),
            num_visual_tokens=self._shape[0],
            width=self._shape[1],
            dtype=self._dtype,
        )

    def discard(self) -> None:
        """Removes what was written and not committed."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what was buffered need not reach a full disk
                self._file.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
        self._file = self._partial = None

    def _write(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._partial = self._path.with_name(f"{self._path.stem}-{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
                self._file = self._partial.open("xb")
                self._file.write(bytes(HEADER_BYTES))
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error
        self._num_bytes += len(data)
        self._checksum = zlib.crc32(data, self._checksum)

    def _failed(self, error: OSError) -> LiveStarError:
        folder = self._path.parent
        return LiveStarError(
            f"visual tokens cannot be written to {folder} ({error.strerror}); make room there, or choose another cache folder"
        )


def read_feature_file(path: Path, key: str, *, verify: bool) -> VideoFeatures | None:
    """The features in a file; None where it is missing, damaged or about something else.

    `verify` reads all of it and compares the checksum; otherwise only the header and its sizes are compared.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key or set(file.keys()) != {"features", "times_s"}:
                return None
            features, times_s = file.get_slice("features"), file.get_tensor("times_s")
            shape = features.get_shape()
            dtype = next((dtype for dtype, name in DTYPE_NAMES.items() if name == features.get_dtype()), None)
        if dtype is None or len(shape) != 3 or list(times_s.shape) != [shape[0]] or times_s.dtype != torch.float64:
            return None
        if verify and f"{_checksum_of(path):08x}" != metadata.get("crc32"):
            return None
    except (OSError, SafetensorError):
        return None
    return VideoFeatures(path=path, times_s=tuple(times_s.tolist()), num_visual_tokens=shape[1], width=shape[2], dtype=dtype)


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _checksum_of(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        while data := file.read(READ_BYTES):
            checksum = zlib.crc32(data, checksum)
    return checksum
