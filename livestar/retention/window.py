"""The two plain rules: keep everything, or keep the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livestar.errors import ContextFull
from livestar.retention.base import LOW_WATER, num_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.retention.base import Unit


class KeepAll:
    """Evicts nothing: a stream ends when its budget is used up."""

    def select(self, units: Sequence[Unit], budget: int) -> list[int]:
        if num_tokens(units) > budget:
            raise ContextFull(
                f"the context holds {num_tokens(units)} tokens of at most {budget}, and retention 'none' evicts nothing; "
                "raise --kv-tokens or choose another --retention"
            )
        return []


class Window:
    """Evicts the oldest frames, and a clip's caption with its last frame; the opening and the newest frames stay."""

    def __init__(self, num_recent_frames: int) -> None:
        self.num_recent_frames = num_recent_frames

    def select(self, units: Sequence[Unit], budget: int) -> list[int]:
        total = num_tokens(units)
        if total <= budget:
            return []
        frames = [i for i, unit in enumerate(units) if unit.kind == "frame"]
        captions = {unit.clip: i for i, unit in enumerate(units) if unit.kind == "caption"}
        last_of_clip = {units[i].clip: i for i in frames}
        evicted: list[int] = []
        for i in frames[: -self.num_recent_frames]:
            if total <= budget * LOW_WATER:
                break
            clip = units[i].clip
            gone = [i, captions[clip]] if last_of_clip[clip] == i and clip in captions else [i]
            evicted.extend(gone)
            total -= num_tokens([units[j] for j in gone])
        if total > budget:
            raise ContextFull(f"{total} tokens remain of a budget of {budget} with only recent frames left; raise --kv-tokens")
        return sorted(evicted)
