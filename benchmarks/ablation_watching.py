"""Watching the same streams over and over: pictures are looked at once, by the frozen trunk that all captioners share."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from livestar.config import RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.admission import DEFAULT_GATE, make_prompt, resolve_gate
from livestar.evaluation.calibration import calibrate
from livestar.evaluation.watching import check_failures, watch
from livestar.gate.layout import make_layout
from training.decode import fill_cache
from training.features import vision_fingerprint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from livestar.config import GateConfig
    from livestar.evaluation.calibration import Calibration
    from livestar.evaluation.footage import Footage
    from livestar.evaluation.policies import Policy
    from livestar.evaluation.runs import VideoRun
    from livestar.model.livestar import LiveStarModel
    from livestar.session import Checkpoint
    from training.features import FeatureCache

Runs = tuple["VideoRun", ...]

MAX_NEW_TOKENS = 32
"""Longest caption, as livestar-mini is watched."""
NUM_STREAMS = 8


class Trunk:
    """What a frozen vision trunk gave for every picture so far, found by the picture's content."""

    def __init__(self, model: LiveStarModel) -> None:
        self._fingerprint = vision_fingerprint(model)
        self._compute = model.features
        self._dtype = model.dtype
        self._known: dict[bytes, Tensor] = {}

    def learn(self, footage: Footage, cache: FeatureCache) -> None:
        """Takes over the features that training keeps on disk, computing those that are missing."""
        for index, (_, features) in enumerate(fill_cache(cache, footage.videos)):
            for frame, tokens in zip(footage.frames(index), features.features, strict=True):
                self._known[_digest(frame.image)] = tokens

    def lend(self, model: LiveStarModel) -> bool:
        """Lets a model look up what it would compute; False, and nothing done, where its trunk is another."""
        if vision_fingerprint(model) != self._fingerprint:
            return False
        model.features = self.features  # type: ignore[method-assign]
        return True

    def features(self, images: Tensor) -> Tensor:
        """As `LiveStarModel.features`; pictures that are new are computed and remembered."""
        digests = [_digest(image) for image in images.numpy(force=True)]
        new = {digest: i for i, digest in enumerate(digests) if digest not in self._known}
        if new:
            self._known |= dict(zip(new, self._compute(images[list(new.values())]), strict=True))
        return torch.stack([self._known[digest].to(images.device, self._dtype) for digest in digests])


@dataclass(slots=True, kw_only=True)
class Viewer:
    """A captioner with one way to verify, and what it was seen to do."""

    checkpoint: Checkpoint
    gate: GateConfig
    max_frames: int
    """Most frames in its context: those of a sequence in training."""
    num_workers: int
    calibration: Calibration | None = None

    def stream(self, footage: Footage) -> StreamConfig:
        """How its streams are watched.  The oldest frames go when the context has `max_frames`; where it keeps captions there is
        room for as many as so many frames of the footage have on average."""
        return StreamConfig(
            gate=self.gate,
            retention=RetentionConfig(name="window", kv_tokens=self._budget(footage)),
            sampling=SamplingConfig(max_new_tokens=MAX_NEW_TOKENS),
        )

    def watch(self, footage: Footage, policy: Policy) -> Runs:
        """Watches all of `footage`.  Raises the error of the first video that fails."""
        watched = watch(
            self.checkpoint, footage, policy, stream=self.stream(footage), num_streams=NUM_STREAMS, num_workers=self.num_workers
        )
        check_failures(watched)
        return watched.runs

    def calibrated(self, footage: Footage, rate: float | None = None) -> Calibration:
        """Sets the threshold for a response rate, the truth's if not given, on `footage`; looks first where it was set before."""
        stream = self.stream(footage)
        if self.calibration is not None:
            stream = replace(stream, gate=replace(stream.gate, threshold=self.calibration.threshold))
        self.calibration = calibrate(
            self.checkpoint,
            footage,
            response_rate=rate,
            stream=stream,
            num_streams=NUM_STREAMS,
            num_workers=self.num_workers,
        )
        return self.calibration

    def _budget(self, footage: Footage) -> int:
        prompt = make_prompt(self.checkpoint.model.config, self.checkpoint.tokenizer)
        gate = resolve_gate(self.gate, self.checkpoint.model.config.watch)
        layout = make_layout(gate.name or DEFAULT_GATE, prompt, gate.keep_captions)
        events = [event for video in footage.videos for event in video.events]
        seconds = sum(event.end_s - event.begin_s for event in events)
        num_clips = math.ceil(len(events) * self.max_frames / footage.fps / seconds)
        per_clip = fmean(len(layout.closing(prompt.caption(event.caption))) for event in events)
        line = layout.frame(prompt.frame_line(100, 0), is_first=False)
        return len(prompt.opening()) + (self.max_frames - 1) * len(line) + math.ceil(num_clips * per_clip)


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
