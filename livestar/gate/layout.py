"""The three ways to lay out frames and captions for a verification (SVeD).

A stream's context is a row of units: the opening, then frames and kept captions.  A layout says which rows a frame and a
finished clip's caption add to the context, and which rows are laid behind it, to be rolled back, to score a caption.
Everything here is a pure function of token rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from livestar.config import GateName
    from livestar.model.prompt import CaptionRows, Prompt, Rows


class Fork(NamedTuple):
    """Rows to lay behind the context, and what the last of them are scored against."""

    rows: Rows
    targets: Rows
    """The last len(targets) of `rows` predict them, one each."""


class GateLayout(Protocol):
    """What a gate asks of the context."""

    keep_captions: bool
    """Whether a finished clip's caption stays in the context (the paper's section 3.1: terminal captions stay visible)."""

    def frame(self, line: Rows, *, is_first: bool) -> Rows:
        """What a frame adds to the context."""
        ...

    def first_turn_end(self) -> Rows:
        """The last rows of the first frame, which stay when it goes: they end the turn that the opening began."""
        ...

    def closing(self, caption: CaptionRows) -> Rows:
        """What the caption of a finished clip adds to the context, ahead of the next clip's first frame."""
        ...

    def answer(self) -> Rows:
        """What stands between the context and a caption to be generated."""
        ...

    def verification(self, line: Rows, caption: CaptionRows) -> Fork:
        """Behind the context without the new frame: that frame, then the caption to be scored against it."""
        ...

    def reference(self, line: Rows, caption: CaptionRows) -> Fork:
        """Behind the context with the frame that the caption was generated on: the caption, for its own perplexity."""
        ...


class _Layout:
    """The pieces that every layout is made of."""

    keeps_captions_by_default = True

    def __init__(self, prompt: Prompt, *, keep_captions: bool | None = None) -> None:
        self.keep_captions = self.keeps_captions_by_default if keep_captions is None else keep_captions
        self._turn_end = prompt.turn_end
        self._user_header = prompt.user_header
        self._assistant_header = prompt.assistant_header


class _SharedTurnLayout(_Layout):
    """Frames share one user turn until a caption answers it, as in the released inference code."""

    def frame(self, line: Rows, *, is_first: bool) -> Rows:
        return line

    def first_turn_end(self) -> Rows:
        return ()

    def closing(self, caption: CaptionRows) -> Rows:
        return self._exchange(caption) if self.keep_captions else ()

    def answer(self) -> Rows:
        return self._turn_end + self._assistant_header

    def _exchange(self, caption: CaptionRows) -> Rows:
        """Ends the open user turn, gives the caption as its answer, and opens the next user turn."""
        return self._turn_end + caption.rows + self._turn_end + self._user_header


class CompatLayout(_SharedTurnLayout):
    """The released inference code: the scored caption is a repetition.

    The last caption stands in the context when it is scored, and the reference is its perplexity after the frame that it was
    generated on is sent a second time.  Source: inference/demo.py, `chat(check_answer=..., self_check=...)`.
    """

    def verification(self, line: Rows, caption: CaptionRows) -> Fork:
        return Fork(self._exchange(caption) + line + self._turn_end + caption.rows, caption.targets)

    def reference(self, line: Rows, caption: CaptionRows) -> Fork:
        return self.verification(line, caption)


class ScamLayout(_SharedTurnLayout):
    """As in SCAM training the scored caption does not see a copy of itself, with the turns of inference."""

    def verification(self, line: Rows, caption: CaptionRows) -> Fork:
        return Fork(line + self._turn_end + caption.rows, caption.targets)

    def reference(self, line: Rows, caption: CaptionRows) -> Fork:
        return Fork(self._turn_end + caption.rows, caption.targets)


class LeafLayout(_Layout):
    """The released training layout: each frame its own user turn, each caption a leaf behind it that nothing later sees.

    The context only grows, a caption's positions are used again by the next frame, and one verification costs one frame's
    turn, a header and the caption.
    """

    keeps_captions_by_default = False

    def frame(self, line: Rows, *, is_first: bool) -> Rows:
        return (line if is_first else self._user_header + line) + self._turn_end

    def first_turn_end(self) -> Rows:
        return self._turn_end

    def closing(self, caption: CaptionRows) -> Rows:
        return caption.rows + self._turn_end if self.keep_captions else ()

    def answer(self) -> Rows:
        return self._assistant_header

    def verification(self, line: Rows, caption: CaptionRows) -> Fork:
        return Fork(self.frame(line, is_first=False) + caption.rows, caption.targets)

    def reference(self, line: Rows, caption: CaptionRows) -> Fork:
        return Fork(caption.rows, caption.targets)


def make_layout(name: GateName, prompt: Prompt, keep_captions: bool | None) -> GateLayout:
    """The layout of that name; `keep_captions` None takes its own default."""
    match name:
        case "compat":
            return CompatLayout(prompt, keep_captions=keep_captions)
        case "scam":
            return ScamLayout(prompt, keep_captions=keep_captions)
        case "leaf":
            return LeafLayout(prompt, keep_captions=keep_captions)
