"""One training sequence: a stream's frames, and its captions where the gate will score them (SCAM).

The pieces come from the layouts that the engine uses, so that a caption is trained on exactly the rows, positions and visible
context that it is scored with.  The trunk is what stays in a stream's context; a leaf is a copy of a caption that hangs off the
trunk behind one frame, that nothing later sees, and whose positions the next frame uses again.

Source: section 3.1 of the paper; `get_4d_mask` and the position ids of the released training code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from livestar.errors import InvalidConfig
from livestar.gate.layout import make_layout
from livestar.model.prompt import CaptionRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.config import GateName
    from livestar.gate.layout import GateLayout
    from livestar.model.prompt import Prompt

Visibility = Literal["leaf", "terminal", "causal"]
"""Which captions later rows see: none (the released code), each finished clip's last (the paper), or every copy."""
LayoutName = Literal["inference", "training"]
"""Frames that share a user's turn, as the `scam` gate lays them, or a turn for each frame, as the `leaf` gate does."""

GATE_OF_LAYOUT: dict[LayoutName, GateName] = {"inference": "scam", "training": "leaf"}
"""The gate that watches with the context that a layout trains on."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A run of frames during which one caption is true."""

    first: int
    """Place of its first frame in the sequence, from 0."""
    num_frames: int
    caption: str


@dataclass(slots=True)
class TrainingSequence:
    """Rows of one stream, and what is learnt from them.  All lists but the last three have one entry per row."""

    rows: list[int] = field(default_factory=list)
    """Token ids; negative for visual tokens, as in `visual_rows`, numbered by the frame's place in the sequence."""
    positions: list[int] = field(default_factory=list)
    """Positions for RoPE."""
    leaves: list[int] = field(default_factory=list)
    """0 for the trunk, else the number of the leaf that the row belongs to."""
    target_rows: list[int] = field(default_factory=list)
    """Rows whose next token is learnt."""
    targets: list[int] = field(default_factory=list)
    """That token."""
    weights: list[float] = field(default_factory=list)
    """How much it counts."""
    num_leaves: int = 0

    def add_trunk(self, rows: Sequence[int]) -> None:
        """Adds rows that stay visible, behind the trunk so far."""
        self._add(rows, leaf=0)

    def add_leaf(self, rows: Sequence[int]) -> None:
        """Adds rows that only they themselves see."""
        self.num_leaves += 1
        self._add(rows, leaf=self.num_leaves)

    def learn(self, stop: int, targets: Sequence[int], weight: float) -> None:
        """Learns that the last len(targets) rows before row `stop` are followed by `targets`, one each."""
        self.target_rows.extend(range(stop - len(targets), stop))
        self.targets.extend(targets)
        self.weights.extend([weight] * len(targets))

    def _add(self, rows: Sequence[int], leaf: int) -> None:
        self.rows.extend(rows)
        self.positions.extend(range(self._trunk_length, self._trunk_length + len(rows)))
        self.leaves.extend([leaf] * len(rows))
        if leaf == 0:
            self._trunk_length += len(rows)

    _trunk_length: int = 0


class SequenceBuilder:
    """Builds training sequences for one checkpoint's prompt."""

    def __init__(
        self,
        prompt: Prompt,
        *,
        visibility: Visibility = "leaf",
        layout: LayoutName = "inference",
        weigh_clips: bool = True,
        turn_weight: float = 0.0,
    ) -> None:
        """`weigh_clips` lets every clip count as much as a clip of one frame; without it every copy of a caption does.

        A `turn_weight` above 0 also learns, behind every frame, whether the user's turn ends there: the end-of-turn gate of
        VideoLLM-online, to compare with.  It needs the inference layout, in which a silent frame does not end the turn.
        """
        if turn_weight and layout != "inference":
            raise InvalidConfig("turn_weight is set, but in the training layout every frame ends its turn; set layout inference")
        self._prompt = prompt
        self._visibility = visibility
        self._weigh_clips = weigh_clips
        self._turn_weight = turn_weight
        self._layout: GateLayout = make_layout(GATE_OF_LAYOUT[layout], prompt, visibility != "leaf")

    def build(self, frame_numbers: Sequence[int], clips: Sequence[Clip], chosen: Sequence[int] | None = None) -> TrainingSequence:
        """The sequence of frames `Frame-<number>`, of which those in `chosen` (None: all) carry a copy of their clip's caption.

        `clips` are in order and do not overlap.
        """
        owners = {place: clip for clip in clips for place in range(clip.first, clip.first + clip.num_frames)}
        copies = owners.keys() & (range(len(frame_numbers)) if chosen is None else chosen)
        captions = {clip.first: self._prompt.caption(clip.caption) for clip in clips}
        num_copies = {clip.first: sum(owners[place] is clip for place in copies) for clip in clips}

        sequence = TrainingSequence()
        sequence.add_trunk(self._prompt.opening())
        last: Clip | None = None
        for place, number in enumerate(frame_numbers):
            clip = owners.get(place)
            if self._visibility == "terminal" and clip is not None and last is not None and clip is not last:
                sequence.add_trunk(self._layout.closing(captions[last.first]))
            last = clip or last
            sequence.add_trunk(self._layout.frame(self._prompt.frame_line(number, place), is_first=place == 0))
            if self._turn_weight and clip is not None:
                self._learn_turn(sequence, speaks=place == clip.first)
            if clip is None or place not in copies:
                continue
            weight = 1 / num_copies[clip.first] if self._weigh_clips else 1.0
            self._add_copy(sequence, captions[clip.first], weight)
        return sequence

    def estimate(self, num_frames: int, clips: Sequence[tuple[int, int]], max_copies: int = 0) -> int:
        """Most rows of a sequence, to plan batches with; frame numbers have up to four digits.

        `clips` gives each clip's frames and the rows of its caption's turn (`CaptionRows.rows`); of its frames at most
        `max_copies` carry a copy, or all for 0.
        """
        line = self._prompt.frame_line(10**3, 0)
        num_rows = len(self._prompt.opening()) + num_frames * len(self._layout.frame(line, is_first=False))
        for clip_frames, caption_rows in clips:
            caption = CaptionRows("", (0,) * caption_rows, ())
            copies = min(clip_frames, max_copies) if max_copies else clip_frames
            fork, closing = self._layout.reference((), caption).rows, self._layout.closing(caption)
            num_rows += copies * len(closing) if self._visibility == "causal" else copies * len(fork) + len(closing)
        return num_rows

    def _add_copy(self, sequence: TrainingSequence, caption: CaptionRows, weight: float) -> None:
        """The caption, scored behind the newest frame."""
        fork = self._layout.reference((), caption)
        if self._visibility != "causal":
            sequence.add_leaf(fork.rows)
            sequence.learn(len(sequence.rows), fork.targets, weight)
            return
        closing = self._layout.closing(caption)
        sequence.add_trunk(closing)
        rest = len(closing) - len(fork.rows)  # what ends the answer's turn
        sequence.learn(len(sequence.rows) - rest, fork.targets, weight)

    def _learn_turn(self, sequence: TrainingSequence, *, speaks: bool) -> None:
        target = self._prompt.turn_end[0] if speaks else self._prompt.frame_line(0, 0)[0]
        sequence.learn(len(sequence.rows), (target,), self._turn_weight)
