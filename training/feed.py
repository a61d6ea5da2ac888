"""From samples to batches on the worker's device: paraphrases, copies and frame numbers are drawn here, from the seed.

A step takes the next `accumulate` x workers batches of the epoch, whoever computes them: two workers with one batch each learn
just what one worker learns from two.  Where an epoch's end does not come out even, workers that have none left compute a batch
that weighs nothing, so that all make the same calls.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from training.batch import Batch
from training.sequence import Clip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from training.config import DataConfig
    from training.dataset import Sample, StreamDataset
    from training.sequence import SequenceBuilder, TrainingSequence
    from training.world import World


class Place(NamedTuple):
    """How far into the data a run is."""

    epoch: int
    batch: int
    """Batches of that epoch that are done, by all workers together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Batches of one worker, in an order that follows from the seed."""

    config: DataConfig
    seed: int
    world: World
    builder: SequenceBuilder
    train: StreamDataset
    holdout: StreamDataset | None

    @property
    def has_holdout(self) -> bool:
        """Whether there is anything to measure the held-out loss on."""
        return self.holdout is not None

    def steps_per_epoch(self, accumulate: int) -> int:
        """Optimiser steps in one pass over the data."""
        return -(-len(self.train.batches(0)) // (accumulate * self.world.size))

    def next_step(self, epoch: int, batch: int, accumulate: int) -> tuple[list[Batch], Place]:
        """This worker's batches of the optimiser step from that place, and the place behind it.

        An epoch's last step may be shorter.
        """
        order = self.train.batches(epoch)
        chosen = order[batch : batch + accumulate * self.world.size]
        behind = batch + len(chosen)
        made = list(self._share(self.train, epoch, chosen))
        return made, Place(epoch + 1, 0) if behind >= len(order) else Place(epoch, behind)

    def holdout_batches(self) -> Iterator[Batch]:
        """This worker's held-out batches: the same windows, captions and copies every time."""
        if self.holdout is not None:
            yield from self._share(self.holdout, 0, self.holdout.batches(0))

    def _share(self, dataset: StreamDataset, epoch: int, batches: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Every worker's part of some batches, dealt in turn; all get the same number."""
        size, rank = self.world.size, self.world.rank
        for turn in range(0, len(batches), size):
            if turn + rank < len(batches):
                yield self._make(dataset, epoch, batches[turn + rank])
            else:
                spare = self._make(dataset, epoch, batches[turn])
                yield replace(spare, weights=torch.zeros_like(spare.weights))

    def _make(self, dataset: StreamDataset, epoch: int, indices: Sequence[int]) -> Batch:
        samples = [dataset.sample(epoch, index) for index in indices]
        sequences = [self._sequence(s, epoch, i, dataset is self.train) for s, i in zip(samples, indices, strict=True)]
        return Batch.pack(sequences, [sample.features for sample in samples]).to(self.world.device)

    def _sequence(self, sample: Sample, epoch: int, index: int, is_training: bool) -> TrainingSequence:
        draw = random.Random(f"{self.seed} {epoch} {index} captions")
        clips = [
            Clip(clip.first_frame, clip.num_frames, draw.choice(clip.captions) if is_training else clip.captions[0])
            for clip in sample.clips
        ]
        offset = draw.randrange(self.config.max_first_frame) if is_training else 0
        numbers = [number + offset for number in sample.frame_numbers]
        return self.builder.build(numbers, clips, self._copies(clips, draw) if is_training else None)

    def _copies(self, clips: Sequence[Clip], draw: random.Random) -> list[int] | None:
        """Places of the frames that carry a copy of their clip's caption; None is all."""
        most = self.config.max_copies
        if not most:
            return None
        places: list[int] = []
        for clip in clips:
            frames = range(clip.first, clip.first + clip.num_frames)
            places.extend(sorted(draw.sample(frames, min(most, len(frames)))))
        return places
