"""Visual tokens of a frozen tower, computed once per video and kept on disk.

A file is found by what it depends on: the content of the video (not its name or date, so that a copied or rebuilt data set is
still known, and a changed one never mistaken), the part, the frame rate, the picture size, and the tower with its weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from livestar.annotations.duration import pictures_of
from livestar.annotations.footage import TimedPicture, read_frames
from livestar.annotations.problems import named
from livestar.config import MediaConfig
from livestar.errors import InvalidConfig, LiveStarError, SourceError, SourceNotFound, SourceUnreadable
from livestar.media.source import SourceKind, classify
from training.feature_file import PARTIAL_SUFFIX, SUFFIX, FeatureWriter, VideoFeatures, read_feature_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from livestar.annotations.types import AnnotatedVideo
    from livestar.model.livestar import LiveStarModel

logger = logging.getLogger(__name__)

VERSION = "livestar features 1"
"""Changes when the same video would give other features or another file."""
BATCH_FRAMES = 16
"""Frames in one pass of the tower: the memory that a video takes, however long it is."""
ABANDONED_S = 86_400.0
"""Age from which an unfinished file counts as left behind by a process that was killed."""


class FeatureCache:
    """The visual tokens of videos for one model at one frame rate, in one folder.

    Several processes may use the folder; what two compute at once is computed twice and kept once.
    """

    def __init__(
        self,
        directory: Path,
        model: LiveStarModel,
        *,
        fps: float,
        dtype: torch.dtype | None = None,
        precision: torch.dtype = torch.float32,
        verify: bool = True,
    ) -> None:
        """`dtype` is the number format that is kept; None is the tower's.  `precision` bfloat16 lets the tower compute in it,
        which takes a third of the time on a CPU that has it.  `verify` compares checksums when a file is first used.

        Raises `InvalidConfig` for a frame rate out of range, and a folder that cannot be made.
        """
        self.directory = Path(directory)
        self.model = model
        self.fps = MediaConfig(fps=fps).fps
        self.image_size = model.config.vision.image_size
        self._dtype = dtype
        self._precision = precision
        self._verify = verify
        self._fingerprint = vision_fingerprint(model)
        self._digests: dict[tuple[str, int, int], str] = {}
        self._found: dict[str, VideoFeatures] = {}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self.directory)
        except OSError as error:
            raise InvalidConfig(
                f"cache is {str(directory)!r}, which cannot be used ({error.strerror}); choose another"
            ) from error

    def get(self, video: AnnotatedVideo, *, on_frames: Callable[[int], None] | None = None) -> VideoFeatures:
        """The features of a video's part, from the cache or else computed now.

        `on_frames` is called with the number of frames done so far.  Raises `SourceError` for a video that is missing or
        damaged, `InvalidConfig` for a part that begins behind its end, both with the annotation's file and line; and
        `LiveStarError` where the disk is full.  Nothing half-written is left.
        """
        found = self.find(video)
        if found is not None:
            return found
        with self.compute(video) as work:
            try:
                for frame in read_frames(video, fps=self.fps, image_size=self.image_size):
                    work.push(frame)
                    if on_frames is not None:
                        on_frames(work.num_frames)
            except (SourceError, InvalidConfig) as error:
                raise named(error, video) from error
            return work.finish()

    def find(self, video: AnnotatedVideo) -> VideoFeatures | None:
        """The features where they are in the cache and sound, else None.  Raises `SourceError` for a video that is missing."""
        key = self.key(video)
        found = self._found.get(key)
        if found is None:
            path = self._path(key)
            found = read_feature_file(path, key, verify=self._verify)
            if found is None:
                if path.exists():
                    logger.warning("%s is damaged; its video is decoded again", path)
                return None
            self._found[key] = found
        return found

    def compute(self, video: AnnotatedVideo) -> Computation:
        """Takes the frames of a video one by one, for who decodes elsewhere."""
        key = self.key(video)
        return Computation(self, video, FeatureWriter(self._path(key), key), key)

    def key(self, video: AnnotatedVideo) -> str:
        """Name of a video's features: a digest of all that they depend on."""
        try:
            content = self._content(video)
        except LiveStarError as error:
            raise named(error, video) from error
        parts = (
            VERSION,
            content,
            video.begin_s,
            video.end_s,
            self.fps,
            self.image_size,
            str(self._dtype),
            str(self._precision),
            self._fingerprint,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def encode(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Pictures [n, S, S, 3] -> features [n, V, W] on the CPU, in the format that is kept."""
        is_half = self._precision == torch.bfloat16
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=is_half):
            self.model.vision_model.eval()  # it is frozen, and so must be what its norms have learnt
        features = self.model.features(torch.from_numpy(images))
        return features.to("cpu", self._dtype or features.dtype)

    def keep(self, key: str, features: VideoFeatures) -> VideoFeatures:
        """Remembers what was just written."""
        self._found[key] = features
        return features

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{SUFFIX}"

    def _content(self, video: AnnotatedVideo) -> list[str | float]:
        if not isinstance(video.source, str):  # listed pictures are all wanted, those of a folder as far as they can be read
            return ["listed", video.fps, *(self._digest(Path(path)) for path in video.source)]
        source = classify(video.source)
        if source.kind is SourceKind.URL:
            raise SourceUnreadable(f"{source.name} is an address; fetch the video and annotate the file")
        if source.kind is SourceKind.FILE:
            return ["video", self._digest(Path(source.location))]
        return ["folder", video.fps, *map(self._digest, pictures_of(source))]

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file; read once as long as its size and date stay."""
        try:
            state = path.stat()
            known = (str(path), state.st_size, state.st_mtime_ns)
            if known not in self._digests:
                with path.open("rb") as file:
                    self._digests[known] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SourceNotFound(f"{path} cannot be read ({error.strerror}); get it again, or leave it out") from error
        return self._digests[known]


class Computation:
    """The features of one video while they are computed; use it as a context, and `finish` at the end."""

    def __init__(self, cache: FeatureCache, video: AnnotatedVideo, writer: FeatureWriter, key: str) -> None:
        self._cache = cache
        self._video = video
        self._writer = writer
        self._key = key
        self._waiting: list[TimedPicture] = []
        self.num_frames = 0
        """Frames taken so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Gives up: nothing is left of it."""
        self._writer.discard()
        self._waiting.clear()

    def push(self, frame: TimedPicture) -> None:
        """Takes the next frame.  Raises `LiveStarError` where the disk takes no more."""
        self.num_frames += 1
        self._waiting.append(frame)
        if len(self._waiting) == BATCH_FRAMES:
            self._encode()

    def finish(self) -> VideoFeatures:
        """Encodes what waits and completes the file.  Raises `SourceUnreadable` where there was no frame."""
        if self.num_frames == 0:
            error = SourceUnreadable(f"{self._video.name} has no frame in its part; choose a longer part")
            raise named(error, self._video)
        if self._waiting:
            self._encode()
        return self._cache.keep(self._key, self._writer.commit())

    def _encode(self) -> None:
        images = np.stack([frame.image for frame in self._waiting])
        self._writer.append(self._cache.encode(images), [frame.time_s for frame in self._waiting])
        self._waiting.clear()


def vision_fingerprint(model: LiveStarModel) -> str:
    """A digest of all of a model that decides about its features: config and weights of the tower, and how tokens are merged."""
    config = model.config
    settings = (
        type(config.vision).__name__,
        dataclasses.asdict(config.vision),
        config.num_visual_tokens,
        config.language.num_heads,
    )
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(model.vision_model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _remove_abandoned(directory: Path) -> None:
    for partial in directory.glob(f"*{PARTIAL_SUFFIX}"):
        try:
            if time.time() - partial.stat().st_mtime > ABANDONED_S:
                partial.unlink()
        except FileNotFoundError:  # another process was faster
            continue
