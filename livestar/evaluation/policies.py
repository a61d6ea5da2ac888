"""When to speak: the model's own gate, or a schedule that knows nothing of the content, with the same captioner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from livestar.errors import InvalidConfig
from livestar.gate.threshold import FixedThreshold, ScheduledThreshold

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from livestar.gate.threshold import Threshold


class Policy(Protocol):
    """Decides for every video when a stream of it speaks."""

    def threshold(self, name: str, fps: float) -> Threshold | None:
        """The threshold of a video's stream, sampled at `fps`; None leaves it to the stream's config and the model."""
        ...


@dataclass(frozen=True, slots=True)
class Gate:
    """The model's own gate (SVeD), as the stream's config sets it."""

    ratio: float | None = None
    """Threshold in place of the config's."""

    def threshold(self, name: str, fps: float) -> Threshold | None:
        """The given one, or None."""
        return None if self.ratio is None else FixedThreshold(self.ratio)


@dataclass(frozen=True, slots=True)
class Interval:
    """The first frame, and the first at or after every further `interval_s` seconds."""

    interval_s: float

    def __post_init__(self) -> None:
        if not self.interval_s > 0:
            raise InvalidConfig(f"interval is {self.interval_s!r}; give seconds above 0")

    def threshold(self, name: str, fps: float) -> Threshold:
        """Speaks on frames by their number, which stands for their time."""
        step = self.interval_s * fps
        return ScheduledThreshold(lambda frame: _num_passed(frame, step) > _num_passed(frame - 1, step))


@dataclass(frozen=True, slots=True)
class AtFrames:
    """Given frames of each video, by number from 1; the first frame is spoken on anyway."""

    frames: Mapping[str, Collection[int]]

    def threshold(self, name: str, fps: float) -> Threshold:
        """A video that is not named is silent after its first frame."""
        chosen = frozenset(self.frames.get(name, ()))
        return ScheduledThreshold(chosen.__contains__)


def _num_passed(frame: int, step: float) -> int:
    """Intervals of `step` frames that have passed when a frame is shown."""
    return int((frame - 1) / step + 1e-9)
