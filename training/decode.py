"""Filling the cache of visual tokens: videos are decoded by the project's own media code, in this process or on Ray Data.

Ray is used where it is initialised: decoding then runs in tasks on the cluster's CPUs, while the tower stays here.  Both ways
give the tower the same frames in the same batches.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from livestar.errors import InvalidConfig, SourceError

if TYPE_CHECKING:
    from livestar.annotations.types import AnnotatedVideo
    from training.feature_file import VideoFeatures
    from training.features import FeatureCache

logger = logging.getLogger(__name__)

OnBad = Literal["raise", "skip"]


OnProgress = Callable[[int, int], None]
"""Called with the videos done so far, skipped ones too, and the videos in all."""


def fill_cache(
    cache: FeatureCache,
    videos: Sequence[AnnotatedVideo],
    *,
    on_progress: OnProgress | None = None,
    num_decoders: int | None = None,
    on_bad: OnBad = "raise",
) -> list[tuple[AnnotatedVideo, VideoFeatures]]:
    """Puts the features of all videos into the cache, and returns them, in the same order.

    Call it before Ray Train takes the CPUs: decoding tasks would wait for them for ever.
    `num_decoders` is the most Ray tasks at a time (None: as many as Ray finds room for), and has no effect without Ray.
    Raises `SourceError` for a video that is missing or damaged, and `InvalidConfig` for a part that begins behind its end, both
    with the annotation's file and line; with `on_bad` skip they are left out, logged and counted.  Raises `LiveStarError` where
    the disk is full.
    """
    ray = sys.modules.get("ray")
    fill = Fill(cache, len(videos), on_progress, on_bad)
    if ray is not None and ray.is_initialized():
        # Here, because Ray is an optional extra and takes a second to import.
        from training.decode_on_ray import decode_on_ray

        missing = {number: video for number, video in enumerate(videos) if not fill.take_cached(number, video)}
        first = {cache.key(video): number for number, video in reversed(missing.items())}
        decode_on_ray(cache, {number: videos[number] for number in sorted(first.values())}, fill, num_decoders=num_decoders)
        for number in missing.keys() - first.values():  # the same video once more
            fill.take_cached(number, videos[number])
    else:
        for number, video in enumerate(videos):
            fill.take_decoded(number, video)
    return fill.result(videos)


class Fill:
    """What was found, computed and skipped so far."""

    def __init__(self, cache: FeatureCache, num_videos: int, on_progress: OnProgress | None, on_bad: OnBad) -> None:
        self._cache = cache
        self._num_videos = num_videos
        self._on_progress = on_progress
        self._on_bad = on_bad
        self._features: dict[int, VideoFeatures] = {}
        self._num_skipped = 0

    def take_cached(self, number: int, video: AnnotatedVideo) -> bool:
        """Takes a video from the cache; False where it is not there.  One that is not even on disk is bad, and taken too."""
        try:
            found = self._cache.find(video)
        except SourceError as error:
            self.bad(error)
            return True
        if found is not None:
            self.done(number, found)
        return found is not None

    def take_decoded(self, number: int, video: AnnotatedVideo) -> None:
        """Takes a video from the cache, or decodes it in this process."""
        try:
            features = self._cache.get(video)
        except (SourceError, InvalidConfig) as error:
            self.bad(error)
        else:
            self.done(number, features)

    def done(self, number: int, features: VideoFeatures) -> None:
        """A video is complete."""
        self._features[number] = features
        self._tell()

    def bad(self, error: SourceError | InvalidConfig) -> None:
        """A video cannot be used.  Raises the error unless such videos are skipped."""
        if self._on_bad == "raise":
            raise error
        self._num_skipped += 1
        logger.warning("left out: %s", error)
        self._tell()

    def result(self, videos: Sequence[AnnotatedVideo]) -> list[tuple[AnnotatedVideo, VideoFeatures]]:
        """All that can be trained on."""
        if self._num_skipped:
            logger.warning("left out %d of %d videos that cannot be used", self._num_skipped, len(videos))
        return [(videos[number], self._features[number]) for number in sorted(self._features)]

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(len(self._features) + self._num_skipped, self._num_videos)
