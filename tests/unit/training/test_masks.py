"""Who sees whom: small masks by hand, and the paper's and the released code's rules written again from their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask

from tests.unit.toy_prompt import readable, toy_prompt
from tests.unit.training.released import (
    RELEASED_PROMPT,
    left_out,
    released_dialogue,
    released_extent,
    released_mask,
    released_positions,
)
from tests.unit.training.tiny import STREAMS
from training.masks import block_mask, dense_mask, mask_mod
from training.sequence import Clip, LayoutName, SequenceBuilder, Visibility

pytestmark = pytest.mark.unit

PROMPT = toy_prompt(num_visual_tokens=1)


def drawn(mask: torch.Tensor) -> list[str]:
    """A mask as text: a line per query, x where it sees the key."""
    return ["".join(".x"[bool(seen)] for seen in line) for line in mask]


@pytest.mark.parametrize(
    ("leaves", "expected"),
    [
        ([0, 0, 0], ["x..", "xx.", "xxx"]),
        ([1, 1], ["x.", "xx"]),
        (
            [0, 1, 1, 0, 2, 0],
            [
                "x.....",  # trunk
                "xx....",  # leaf 1
                "xxx...",
                "x..x..",  # trunk: leaf 1 is gone
                "x..xx.",  # leaf 2
                "x..x.x",
            ],
        ),
        ([0, 1, 2, 2, 0], ["x....", "xx...", "x.x..", "x.xx.", "x...x"]),  # two leaves behind one frame
        ([], []),
    ],
)
def test_small_masks_by_hand(leaves: list[int], expected: list[str]) -> None:
    assert drawn(dense_mask(torch.tensor(leaves, dtype=torch.int64))) == expected


def test_packed_sequences_do_not_see_each_other() -> None:
    """Leaf numbers of the first end where those of the second begin, as `Batch.pack` numbers them."""
    sequences, leaves = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 0, 0, 2, 2])
    mask = create_mask(mask_mod(sequences, leaves), None, None, 6, 6, device="cpu")
    assert drawn(mask[0, 0]) == ["x.....", "xx....", "x.x...", "...x..", "...xx.", "...xxx"]


RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 12)), min_size=1, max_size=12)
"""Runs of rows: whether they are a leaf, and how many."""


def leaf_numbers(runs: Sequence[tuple[bool, int]]) -> list[int]:
    leaves: list[int] = []
    for number, (is_leaf, count) in enumerate(runs, 1):
        leaves += [number if is_leaf else 0] * count
    return leaves


@given(st.lists(RUNS, min_size=1, max_size=4))
def test_the_packed_rule_is_the_dense_mask_of_every_sequence(packed: list[list[tuple[bool, int]]]) -> None:
    parts = [torch.tensor(leaf_numbers(runs)) for runs in packed]
    sequences = torch.cat([torch.full_like(part, number) for number, part in enumerate(parts)])
    leaves = torch.cat([torch.where(part > 0, part + 100 * number, 0) for number, part in enumerate(parts)])
    num_rows = len(leaves)
    mask = create_mask(mask_mod(sequences, leaves), None, None, num_rows, num_rows, device="cpu")[0, 0]
    assert torch.equal(mask, torch.block_diag(*(dense_mask(part) for part in parts)).bool())


@pytest.mark.parametrize("seed", range(4))
def test_only_blocks_that_somebody_sees_are_computed(seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 300, (9,), generator=noise)
    leaves = torch.cat([torch.full((int(n),), i if i % 2 else 0) for i, n in enumerate(lengths)])
    sequences = (torch.arange(len(leaves)) > len(leaves) // 2).long()
    rule = create_mask(mask_mod(sequences, leaves), None, None, len(leaves), len(leaves), device="cpu")[0, 0]
    num_blocks = -(-len(leaves) // 128)
    whole = torch.zeros(num_blocks * 128, num_blocks * 128, dtype=torch.bool)
    whole[: len(leaves), : len(leaves)] = rule
    seen = whole.unflatten(0, (num_blocks, 128)).unflatten(2, (num_blocks, 128)).any(3).any(1)
    assert torch.equal(block_mask(sequences, leaves).to_dense()[0, 0].bool(), seen)
    assert seen.sum() < num_blocks * (num_blocks + 1) // 2  # fewer than plain causal attention computes


# The paper's visibility, in its own terms.


@dataclass(frozen=True)
class Unit:
    """What the paper speaks of, or what stands around it."""

    kind: Literal["prompt", "frame", "copy", "terminal caption"]
    frame: int = -1
    """The frame itself, or the one that a caption stands behind."""
    clip: int | None = None
    """Which clip it belongs to, from 0; a frame in a gap still belongs to the clip before."""
    text: str = ""


def sees(query: Unit, key: Unit, *, keeps_terminal: bool) -> bool:
    """Section 3.1: a caption token at frame t of clip k sees all frames up to t, its own previous tokens, and the terminal
    caption of each earlier clip; neither the earlier copies in clip k nor the other copies of earlier clips.  A frame sees what
    is there whatever captions are scored: the frames up to itself and, as a caption of its own clip does, the terminal captions
    of earlier clips.  Without terminal captions no unit sees any caption but itself.
    """
    match key.kind:
        case "prompt":
            return True
        case "frame":
            return key.frame <= query.frame
        case "copy":
            return key == query
        case "terminal caption":
            if key == query:
                return True
            assert key.clip is not None
            return keeps_terminal and query.clip is not None and query.clip > key.clip


def units_of(num_frames: int, clips: Sequence[Clip], layout: LayoutName, visibility: Visibility) -> list[Unit]:
    """The whole stream in order, as text; frames are numbered from 1."""
    owner = {place: number for number, clip in enumerate(clips) for place in range(clip.first, clip.first + clip.num_frames)}
    units = [Unit("prompt", text="^{system\nSYS}\n{user\nDO\n")]
    spoken: int | None = None
    for frame in range(num_frames):
        clip = owner.get(frame)
        if visibility == "terminal" and clip is not None and spoken is not None and clip != spoken:
            text = clips[spoken].caption
            turn = f"{{assistant\n{text}}}\n" if layout == "training" else f"}}\n{{assistant\n{text}}}\n{{user\n"
            units.append(Unit("terminal caption", frame - 1, spoken, turn))
        spoken = spoken if clip is None else clip
        line = f"Frame-{frame + 1}: [#]\n"
        if layout == "training":
            line = f"{'{user' + chr(10) if frame else ''}{line}}}\n"
        units.append(Unit("frame", frame, spoken, line))
        if clip is not None:
            text = f"{{assistant\n{clips[clip].caption}"
            units.append(Unit("copy", frame, clip, text if layout == "training" else f"}}\n{text}"))
    return units


@pytest.mark.parametrize("layout", ["inference", "training"])
@pytest.mark.parametrize("visibility", ["leaf", "terminal"])
@given(stream=STREAMS)
def test_the_mask_is_the_papers_sentence(visibility: Visibility, layout: LayoutName, stream: tuple[int, list[Clip]]) -> None:
    num_frames, clips = stream
    sequence = SequenceBuilder(PROMPT, visibility=visibility, layout=layout).build(range(1, num_frames + 1), clips)
    units = units_of(num_frames, clips, layout, visibility)
    assert readable(sequence.rows) == "".join(unit.text for unit in units)
    keeps_terminal = visibility == "terminal"
    of_units = torch.tensor([[sees(query, key, keeps_terminal=keeps_terminal) for key in units] for query in units])
    owners = torch.tensor([number for number, unit in enumerate(units) for _ in unit.text])
    causal = torch.ones(len(owners), len(owners), dtype=torch.bool).tril()
    assert torch.equal(dense_mask(torch.tensor(sequence.leaves)), of_units[owners][:, owners] & causal)


def test_a_caption_sees_what_the_paper_says_in_a_stream_of_three_clips() -> None:
    """The same, for one stream and in words."""
    clips = [Clip(0, 2, "red"), Clip(2, 2, "blue"), Clip(4, 1, "green")]
    seen: dict[Visibility, list[str]] = {}
    for visibility in ("leaf", "terminal", "causal"):
        sequence = SequenceBuilder(PROMPT, visibility=visibility).build(range(1, 6), clips)
        text = readable(sequence.rows)
        mask = dense_mask(torch.tensor(sequence.leaves))
        for clip, frame in (("blue", 4), ("green", 5)):
            behind = text.index(f"Frame-{frame}")
            last_token = text.index(clip, behind) + len(clip) - 1
            visible = "".join(c for c, is_seen in zip(text, mask[last_token], strict=True) if is_seen)
            words = [word for word in visible.replace("\n", " ").split() if word in {"red}", "blue}", "red", "blue", "green"}]
            seen.setdefault(visibility, []).append(" ".join(words))
            assert [f"Frame-{n}" in visible for n in range(1, 6)] == [n <= frame for n in range(1, 6)]
    assert seen == {
        "leaf": ["blue", "green"],
        "terminal": ["red} blue", "red} blue} green"],
        "causal": ["red} red} blue} blue", "red} red} blue} blue} green"],
    }


# The released training code's rule.


COVERED = STREAMS.map(lambda stream: (sum(clip.num_frames for clip in stream[1]), close_gaps(stream[1])))
"""Clips without gaps, as the released data has them."""


def close_gaps(clips: Sequence[Clip]) -> list[Clip]:
    closed: list[Clip] = []
    for clip in clips:
        closed.append(Clip(sum(other.num_frames for other in closed), clip.num_frames, clip.caption))
    return closed


def test_the_released_rule_hides_whole_assistant_turns() -> None:
    ids, labelled = released_dialogue(2, [Clip(0, 1, "a"), Clip(1, 1, "bc")])
    hidden = released_extent(labelled)
    text = "".join("." if is_hidden else c for c, is_hidden in zip(readable(ids), hidden, strict=True))
    assert text == "^{system\nSYS}\n{user\nDO\nFrame-1: [###]\n}\n.......{user\nFrame-2: [###]\n}\n........"
    assert readable([i for i, is_hidden in zip(ids, hidden, strict=True) if is_hidden]) == "{AS\na}\n{AS\nbc}\n"


@given(st.one_of(COVERED, STREAMS))
def test_leaf_in_the_training_layout_is_the_released_code(stream: tuple[int, list[Clip]]) -> None:
    """But for the two rows that end a caption's turn: we leave them out, since nobody sees them and nothing is learnt there."""
    num_frames, clips = stream
    ids, labelled = released_dialogue(num_frames, clips)
    hidden = released_extent(labelled)
    is_open = [not is_hidden for is_hidden in hidden]
    mask, positions = released_mask(is_open), released_positions(is_open)
    dropped = left_out(ids, hidden)
    kept = ~dropped
    # Nobody but they themselves sees the rows left out, and none of them has a labelled token behind it.
    assert int(dropped.sum()) == 2 * sum(clip.num_frames for clip in clips)
    assert not mask[kept][:, dropped].any()
    assert not any(labelled[row + 1] for row in range(len(ids) - 1) if dropped[row])

    sequence = SequenceBuilder(RELEASED_PROMPT, layout="training").build(range(1, num_frames + 1), clips)
    where = kept.nonzero().flatten().tolist()
    assert sequence.rows == [ids[row] for row in where]
    assert sequence.positions == [positions[row] for row in where]
    assert torch.equal(dense_mask(torch.tensor(sequence.leaves)), mask[kept][:, kept])
    learnt = {(where[row], target) for row, target in zip(sequence.target_rows, sequence.targets, strict=True)}
    assert learnt == {(row - 1, ids[row]) for row in range(len(ids)) if labelled[row]}
