"""Samples to train on: windows of annotated videos, cut anew in every epoch, and the batches that they go into.

All that is random follows from (seed, epoch, video), never from what was drawn before: a run that is resumed, or split among
other workers, sees the same windows.
"""

from __future__ import annotations

import logging
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from livestar.annotations.sampled import events_of_frames
from livestar.errors import InvalidConfig

if TYPE_CHECKING:
    from torch import Tensor

    from livestar.annotations.types import AnnotatedVideo
    from training.feature_file import VideoFeatures

logger = logging.getLogger(__name__)

T = TypeVar("T")

POOL_SAMPLES = 64
"""Samples that are sorted by length together: batches of like samples, in an order that is still random."""
KEPT_EPOCHS = 2
"""Epochs whose windows and batches are remembered."""

NumTokens = Callable[[int, Sequence[tuple[int, int]]], int]
"""Estimates the rows of a sequence: number of frames; of each clip, its frames and the tokens of its longest caption."""


class Window(NamedTuple):
    """Some frames of a video, one behind the other."""

    video: int
    """Place of the video in the data set."""
    first: int
    """Place of the first frame among the video's."""
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The frames of a sample during which one event lasts."""

    first_frame: int
    """Place of its first frame in the sample, from 0."""
    num_frames: int
    captions: tuple[str, ...]
    """Paraphrases that are true there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A window of a video as a stream that begins there, maybe in the middle of an event."""

    features: Tensor
    """[F, V, W], in memory of its own."""
    frame_numbers: tuple[int, ...]
    """What the model calls each frame, from 1."""
    times_s: tuple[float, ...]
    """Media time of each frame in its video, in seconds."""
    clips: tuple[Clip, ...]
    """In order; frames of no clip lie in a gap, where no caption is known to be true."""
    name: str
    """What the video is called."""


class StreamDataset:
    """Windows of annotated videos of which the visual tokens are known."""

    def __init__(
        self,
        videos: Sequence[tuple[AnnotatedVideo, VideoFeatures]],
        *,
        max_frames: int,
        max_batch_tokens: int,
        num_tokens: NumTokens,
        count_tokens: Callable[[str], int],
        max_batch_sequences: int = 0,
        windows_per_video: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Windows have at most `max_frames` frames, and fewer where they would not fit into `max_batch_tokens`.

        `count_tokens` gives the tokens of a caption.  With `windows_per_video` 0 every video is cut into as many windows as
        cover it about once; 0.5 takes one window of every video in every other epoch.

        Raises `InvalidConfig` where no frame lies in an event, and where not even one frame fits into a batch.
        """
        self._videos = videos
        self._max_batch_tokens = max_batch_tokens
        self._max_batch_sequences = max_batch_sequences
        self._num_tokens = num_tokens
        self._windows_per_video = windows_per_video
        self._seed = seed
        self._owners = [events_of_frames(video.events, features.times_s) for video, features in videos]
        self._caption_tokens = [[max(map(count_tokens, event.captions)) for event in video.events] for video, _ in videos]
        if all(owner is None for owners in self._owners for owner in owners):
            raise InvalidConfig("no frame lies within an event; raise data.fps, or check the times in the annotation")
        self._max_frames = [self._fitting_frames(number, max_frames) for number in range(len(videos))]
        self._windows: dict[int, list[Window]] = {}
        self._batches: dict[int, list[list[int]]] = {}

    def windows(self, epoch: int) -> Sequence[Window]:
        """All windows of an epoch that have a clip, one at least; a sample's index is its place here."""
        if epoch not in self._windows:
            drawn = (window for number in range(len(self._videos)) for window in self._draw_windows(number, epoch))
            found = [window for window in drawn if self._runs(window)]
            _remember(self._windows, epoch, found or [self._any_window(epoch)])
        return self._windows[epoch]

    def _any_window(self, epoch: int) -> Window:
        """A window with a clip, for an epoch to which `windows_per_video` gives none."""
        draw = random.Random(f"{self._seed} {epoch} any")
        frames = [(n, place) for n, owners in enumerate(self._owners) for place, owner in enumerate(owners) if owner is not None]
        number, place = draw.choice(frames)
        num_all, num_frames = len(self._owners[number]), self._max_frames[number]
        return Window(number, min(max(place - draw.randrange(num_frames), 0), num_all - num_frames), num_frames)

    def length(self, epoch: int, index: int) -> int:
        """Estimated rows of a sample's sequence, without reading its features."""
        return self._estimate(self.windows(epoch)[index])

    def sample(self, epoch: int, index: int) -> Sample:
        """A sample of an epoch; the same arguments give the same."""
        window = self.windows(epoch)[index]
        video, features = self._videos[window.video]
        clips = (
            Clip(first_frame=first, num_frames=num_frames, captions=video.events[event].captions)
            for event, first, num_frames in self._runs(window)
        )
        return Sample(
            features=features.window(window.first, window.num_frames),
            frame_numbers=tuple(range(1, window.num_frames + 1)),
            times_s=features.times_s[window.first : window.first + window.num_frames],
            clips=tuple(clips),
            name=video.name,
        )

    def batches(self, epoch: int) -> list[list[int]]:
        """Indices of the samples of each batch, in order; a run resumes at any place in this list.

        A batch holds samples of like length, estimated rows of at most `max_batch_tokens`, and at most `max_batch_sequences`
        samples (0 is no limit).
        """
        if epoch not in self._batches:
            _remember(self._batches, epoch, self._draw_batches(epoch))
        return self._batches[epoch]

    def _draw_batches(self, epoch: int) -> list[list[int]]:
        draw = random.Random(f"{self._seed} {epoch} batches")
        lengths = [self._estimate(window) for window in self.windows(epoch)]
        indices = list(range(len(lengths)))
        draw.shuffle(indices)
        most = self._max_batch_sequences or POOL_SAMPLES
        batches: list[list[int]] = []
        for start in range(0, len(indices), POOL_SAMPLES):
            room = 0
            for index in sorted(indices[start : start + POOL_SAMPLES], key=lambda index: -lengths[index]):
                if lengths[index] > room or len(batches[-1]) >= most:
                    batches.append([])
                    room = self._max_batch_tokens
                batches[-1].append(index)
                room -= lengths[index]
        draw.shuffle(batches)
        return batches

    def _draw_windows(self, number: int, epoch: int) -> list[Window]:
        """The windows of one video: one in each of as many equal stretches, so that they cover it evenly."""
        num_all, num_frames = len(self._owners[number]), self._max_frames[number]
        if not num_all:
            return []
        per_epoch = self._windows_per_video or max(1.0, num_all / num_frames)
        phase = random.Random(f"{self._seed} {number}").random()
        num_windows = math.floor((epoch + 1) * per_epoch + phase) - math.floor(epoch * per_epoch + phase)
        last = num_all - num_frames
        if last <= 0:
            return [Window(number, 0, num_all)] * num_windows
        draw = random.Random(f"{self._seed} {epoch} {number}")
        # Windows may be drawn beyond the ends and are then moved in: frames near the ends come about as often as others.
        beyond = num_frames / 2
        stretch = (last + 2 * beyond) / max(1, num_windows)
        starts = (round(stretch * (place + draw.random()) - beyond) for place in range(num_windows))
        return [Window(number, min(max(start, 0), last), num_frames) for start in starts]

    def _runs(self, window: Window) -> list[tuple[int, int, int]]:
        """Of each event in a window: its place among the video's, its first frame in the window, its frames there."""
        owners = self._owners[window.video][window.first : window.first + window.num_frames]
        runs = []
        first = 0
        for event, frames in groupby(owners):
            num_frames = sum(1 for _ in frames)
            if event is not None:
                runs.append((event, first, num_frames))
            first += num_frames
        return runs

    def _estimate(self, window: Window) -> int:
        tokens = self._caption_tokens[window.video]
        return self._num_tokens(window.num_frames, [(num_frames, tokens[event]) for event, _, num_frames in self._runs(window)])

    def _fitting_frames(self, number: int, max_frames: int) -> int:
        """The most frames, up to `max_frames`, of which every window of a video fits into a batch."""
        num_all = len(self._owners[number])
        most = min(max_frames, num_all)
        longest = max(self._caption_tokens[number], default=0)
        if self._num_tokens(most, [(1, longest)] * most) <= self._max_batch_tokens:
            return most  # the usual case, without a look at every window

        def is_too_long(num_frames: int) -> bool:
            windows = (Window(number, first, num_frames) for first in range(num_all - num_frames + 1))
            return any(self._estimate(window) > self._max_batch_tokens for window in windows)

        fitting = bisect_right(range(1, most + 1), False, key=is_too_long)
        name = self._videos[number][0].name
        if fitting == 0:
            raise InvalidConfig(
                f"max_batch_tokens is {self._max_batch_tokens}, too few for one frame of {name} with its caption; raise it"
            )
        if fitting < most:
            logger.warning(
                "windows of %s have %d frames, not %d, to fit into %d tokens", name, fitting, most, self._max_batch_tokens
            )
        return fitting


def _remember(epochs: dict[int, T], epoch: int, value: T) -> None:
    """Keeps what was drawn for an epoch, and forgets the oldest beyond `KEPT_EPOCHS`."""
    while len(epochs) >= KEPT_EPOCHS:
        del epochs[next(iter(epochs))]
    epochs[epoch] = value
