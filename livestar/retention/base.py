"""What a retention rule sees and says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

LOW_WATER = 0.75
"""Share of the budget to evict down to, so that eviction is a rare pass over many rows and not one at every frame."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of context rows that stays or goes as one."""

    kind: Literal["opening", "frame", "caption"]
    num_tokens: int
    clip: int = 0
    """Which clip a frame or caption belongs to, from 1."""
    frame: int = 0
    """Frame number; of a caption, the frame that ended its clip."""
    score: float = 0.0
    """Perplexity of the clip's caption at this frame: low where the caption fits best (the paper's peak)."""


class Retention(Protocol):
    """Chooses what to evict.  A pure function of the context."""

    def select(self, units: Sequence[Unit], budget: int) -> list[int]:
        """Indices of units to evict, ascending; empty while there is no need.

        Once `units` hold more than `budget` tokens it brings them within it, or raises `ContextFull`.
        """
        ...


def num_tokens(units: Sequence[Unit]) -> int:
    """Tokens that units hold together."""
    return sum(unit.num_tokens for unit in units)
