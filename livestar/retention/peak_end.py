"""Peak-end memory: of each clip keep the frames that its caption fits best, and the ends.

A frame's score is the perplexity of its clip's caption when it arrived; low is good.  The rules differ in which frames go:

- `code`: every clip keeps its better half, rounded up (released eval_inference_speed.py);
- `median`: clips from the oldest on keep the frames at most at their median, until there is room (LiveStarPro, tshm.py);
- `prob`: frames older than a window go at random, the likelier the worse their score within their clip and the older they
  are (the paper's text; it gives no formula).

When that is not enough, whole clips go, oldest first, caption and all (LiveStarPro); the current clip never does.  Protected:
the newest frames of the current clip and, as long as a clip is there, its first and last frame.
"""

from __future__ import annotations

import math
import random
from statistics import median
from typing import TYPE_CHECKING, Protocol

from livestar.errors import ContextFull
from livestar.retention.base import LOW_WATER, num_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.retention.base import Unit


def better_half(scores: Sequence[float]) -> list[int]:
    """Indices of the ceil(n / 2) lowest scores, at least one, ascending; of equal scores the earlier ones."""
    ranked = sorted(range(len(scores)), key=lambda i: scores[i])
    return sorted(ranked[: (len(scores) + 1) // 2])


def at_most_median(scores: Sequence[float]) -> list[int]:
    """Indices of the scores at most at their median, ascending."""
    middle = median(scores) if scores else 0.0
    return [i for i, score in enumerate(scores) if score <= middle]


class _Draft:
    """A context being thinned out."""

    def __init__(self, units: Sequence[Unit], num_recent_frames: int, protect_ends: bool) -> None:
        self.units = units
        self.total = num_tokens(units)
        self.evicted: set[int] = set()
        self.clips: dict[int, list[int]] = {}
        for i, unit in enumerate(units):
            if unit.kind != "opening":
                frames = self.clips.setdefault(unit.clip, [])  # a clip may have its caption left and no frame
                frames.extend([i] if unit.kind == "frame" else [])
        self.current = max(self.clips, default=0)
        self.protected = set(self.clips.get(self.current, [])[-num_recent_frames:] if num_recent_frames else [])
        if protect_ends:
            self.protected |= {end for frames in self.clips.values() for end in (*frames[:1], *frames[-1:])}

    def frames(self, clip: int) -> list[int]:
        """A clip's remaining frames."""
        return [i for i in self.clips[clip] if i not in self.evicted]

    def evict(self, i: int) -> None:
        self.evicted.add(i)
        self.total -= self.units[i].num_tokens

    def keep_only(self, clip: int, kept: Sequence[int]) -> None:
        """Evicts a clip's frames except those at places `kept` and the protected ones."""
        for place, i in enumerate(self.frames(clip)):
            if place not in kept and i not in self.protected:
                self.evict(i)

    def scores(self, clip: int) -> list[float]:
        return [self.units[i].score for i in self.frames(clip)]


class Rule(Protocol):
    """Which frames go first."""

    def thin(self, draft: _Draft, target: float) -> None:
        """Evicts unprotected frames from `draft`, until `target` tokens remain or the rule has no more to give."""
        ...


class Code:
    """Every clip keeps its better half, the current one included."""

    def thin(self, draft: _Draft, target: float) -> None:
        for clip in draft.clips:
            draft.keep_only(clip, better_half(draft.scores(clip)))


class Median:
    """Clips from the oldest on keep the frames at most at their median, until there is room."""

    def thin(self, draft: _Draft, target: float) -> None:
        for clip in draft.clips:
            if draft.total <= target:
                return
            draft.keep_only(clip, at_most_median(draft.scores(clip)))


class Prob:
    """Frames older than a window go at random, in proportion to score within the clip and age."""

    def __init__(self, window_frames: int, seed: int) -> None:
        self.window_frames = window_frames
        self.seed = seed

    def thin(self, draft: _Draft, target: float) -> None:
        newest = max(unit.frame for unit in draft.units)
        chance = random.Random(f"{self.seed}:{newest}:{len(draft.evicted)}")  # stateless: the same context, the same choice
        weights: dict[int, float] = {}
        for clip in draft.clips:
            whole = sum(filter(math.isfinite, draft.scores(clip))) or 1.0
            for i in draft.frames(clip):
                age = newest - draft.units[i].frame
                if age > self.window_frames and i not in draft.protected:
                    score = draft.units[i].score
                    weights[i] = (score / whole if math.isfinite(score) else 1.0) * age  # no caption yet: worst of its clip
        while weights and draft.total > target:
            (chosen,) = chance.choices(list(weights), list(weights.values())) if any(weights.values()) else [next(iter(weights))]
            draft.evict(chosen)
            del weights[chosen]


class PeakEnd:
    """Thins clips by a rule, then drops whole clips, until the context is within its budget."""

    def __init__(
        self, rule: Rule, *, num_recent_frames: int = 4, protect_ends: bool = True, max_frames: int | None = None
    ) -> None:
        self.rule = rule
        self.num_recent_frames = num_recent_frames
        self.protect_ends = protect_ends
        self.max_frames = max_frames

    def select(self, units: Sequence[Unit], budget: int) -> list[int]:
        draft = _Draft(units, self.num_recent_frames, self.protect_ends)
        if self.max_frames is not None and sum(map(len, draft.clips.values())) > self.max_frames:
            self.rule.thin(draft, 0)
        if draft.total > budget:
            self._shrink(draft, budget * LOW_WATER)
        if draft.total > budget:
            raise ContextFull(
                f"{draft.total} tokens remain of a budget of {budget} with only protected frames left; raise --kv-tokens"
            )
        return sorted(draft.evicted)

    def _shrink(self, draft: _Draft, target: float) -> None:
        num_evicted = -1
        while draft.total > target and len(draft.evicted) > num_evicted:
            num_evicted = len(draft.evicted)
            self.rule.thin(draft, target)
        for clip in sorted(draft.clips):
            if draft.total <= target or clip == draft.current:
                break
            for i, unit in enumerate(draft.units):
                if unit.clip == clip and unit.kind != "opening" and i not in draft.evicted:
                    draft.evict(i)
        worst_first = sorted(draft.frames(draft.current), key=lambda i: -draft.units[i].score) if draft.clips else []
        for i in worst_first:
            if draft.total <= target:
                break
            if i not in draft.protected:
                draft.evict(i)
