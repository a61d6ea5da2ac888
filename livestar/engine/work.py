"""What a stream asks of the model, and how far the engine has got with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livestar.gate.layout import Fork
    from livestar.model.prompt import Rows


@dataclass(frozen=True, slots=True)
class Score:
    """Perplexity of a fork's targets; answered with a float."""

    fork: Fork


@dataclass(frozen=True, slots=True)
class Generate:
    """A caption behind `rows`; answered with its token ids, the stop token included if it came."""

    rows: Rows


@dataclass(slots=True)
class Work:
    """One request under way: rows still to be fed, and what was found so far."""

    request: Score | Generate
    feed: list[int]
    """Rows not yet in the cache."""
    num_fed: int = 0
    nll: float = 0.0
    """Sum over the targets scored so far."""
    generated: list[int] = field(default_factory=list)

    @property
    def num_left(self) -> int:
        """Rows still to be fed."""
        return len(self.feed) - self.num_fed

    @property
    def is_decoding(self) -> bool:
        """Whether what is left is the last generated token: short, and somebody waits for it."""
        return bool(self.generated)
