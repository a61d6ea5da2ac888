"""The released training code's rule, written again from its description: labels, a window over them, the mask, the positions.

Source: `get_4d_mask`, the labels and the position ids of the released dataset and model (livestar/train, livestar/model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from livestar.model.prompt import Prompt
from tests.unit.toy_prompt import ToyTokenizer
from tests.unit.training.tiny import NUM_VISUAL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from training.sequence import Clip


class ReleasedToyTokenizer(ToyTokenizer):
    """An assistant's header of four tokens, as the released tokenizer has it; the released window reaches just as far back."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.replace("assistant", "AS"))


RELEASED_PROMPT = Prompt(ReleasedToyTokenizer(), num_visual_tokens=NUM_VISUAL_TOKENS, system_message="SYS", task="DO\n")


def released_dialogue(num_frames: int, clips: Sequence[Clip]) -> tuple[list[int], list[bool]]:
    """A user's turn for every frame and an assistant's behind it, and which tokens carry a label.

    Labelled are a caption's tokens and the end of its turn; neither the header nor the newline behind the turn is.
    """
    encode = RELEASED_PROMPT.tokenizer.encode
    captions = {place: clip.caption for clip in clips for place in range(clip.first, clip.first + clip.num_frames)}
    ids = encode("<s><|im_start|>system\nSYS<|im_end|>\n")
    labelled = [False] * len(ids)
    for frame in range(num_frames):
        task = "DO\n" if frame == 0 else ""
        visual = [-1 - (frame * NUM_VISUAL_TOKENS + j) for j in range(NUM_VISUAL_TOKENS)]
        turn = [
            *encode(f"<|im_start|>user\n{task}Frame-{frame + 1}: <img>"),
            *visual,
            *encode("</img>\n<|im_end|>\n"),
        ]
        ids += turn
        labelled += [False] * len(turn)
        if frame in captions:
            header, answer, newline = (encode(t) for t in ("<|im_start|>assistant\n", f"{captions[frame]}<|im_end|>", "\n"))
            assert len(header) == 4
            ids += header + answer + newline
            labelled += [False] * 4 + [True] * len(answer) + [False]
    return ids, labelled


def released_extent(labelled: Sequence[bool]) -> list[bool]:
    """A convolution with six ones, padded by one before and four behind: some label from the row before to the fourth behind."""
    padded = F.pad(torch.tensor(labelled, dtype=torch.float32), (1, 4))
    return (F.conv1d(padded[None, None], torch.ones(1, 1, 6))[0, 0] > 0).tolist()


def released_mask(is_open: Sequence[bool]) -> Tensor:
    """A column that is not open belongs to a run of such columns, and only rows up to the run's end see it; and all is causal."""
    num_rows = len(is_open)
    mask = torch.zeros(num_rows, num_rows, dtype=torch.bool)
    for column in range(num_rows):
        stop = num_rows
        if not is_open[column]:
            stop = column
            while stop < num_rows and not is_open[stop]:
                stop += 1
        mask[column:stop, column] = True
    return mask


def released_positions(is_open: Sequence[bool]) -> list[int]:
    """Open rows are counted; a hidden run counts on from the last of them, and the count goes back behind it."""
    positions: list[int] = []
    num_open = num_hidden = 0
    for row_is_open in is_open:
        num_hidden = 0 if row_is_open else num_hidden + 1
        positions.append(num_open if row_is_open else num_open - 1 + num_hidden)
        num_open += row_is_open
    return positions


def left_out(ids: Sequence[int], hidden: Sequence[bool]) -> Tensor:
    """Rows that our sequences do without: the end of each caption's turn, and the newline behind it."""
    ends = torch.tensor([is_hidden and token == ord("}") for token, is_hidden in zip(ids, hidden, strict=True)])
    return ends | ends.roll(1)
