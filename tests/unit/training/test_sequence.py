"""Training sequences, spelled out row by row."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.errors import InvalidConfig
from tests.unit.toy_prompt import readable, toy_prompt
from tests.unit.training.tiny import STREAMS
from training.sequence import Clip, LayoutName, SequenceBuilder, TrainingSequence, Visibility

pytestmark = pytest.mark.unit

PROMPT = toy_prompt(num_visual_tokens=2)
OPENING = "^{system\nSYS}\n{user\nDO\n"
VISIBILITIES: tuple[Visibility, ...] = ("leaf", "terminal", "causal")
LAYOUTS: tuple[LayoutName, ...] = ("inference", "training")


class Piece(NamedTuple):
    """Rows that belong together."""

    text: str
    position: int
    """Of the first; the others follow."""
    leaf: int = 0
    learns: str = ""
    """What the last rows are followed by, one row each."""
    weight: float = 1.0


def assert_spells(sequence: TrainingSequence, pieces: list[Piece]) -> None:
    rows = targets = ""
    positions: list[int] = []
    leaves: list[int] = []
    target_rows: list[int] = []
    weights: list[float] = []
    for piece in pieces:
        rows += piece.text
        positions += range(piece.position, piece.position + len(piece.text))
        leaves += [piece.leaf] * len(piece.text)
        target_rows += range(len(rows) - len(piece.learns), len(rows))
        targets += piece.learns
        weights += [piece.weight] * len(piece.learns)
    assert readable(sequence.rows) == rows
    assert [row for row in sequence.rows if row < 0] == [-1 - n for n in range(rows.count("#"))]
    assert sequence.positions == positions
    assert sequence.leaves == leaves
    assert sequence.num_leaves == max(leaves)
    assert sequence.target_rows == target_rows
    assert readable(sequence.targets) == targets
    assert sequence.weights == weights


# Two frames of a clip whose caption is "hi", then one of a clip whose caption is "no".
# The opening has 23 rows, a frame line 14, what ends a turn 2, a user's header 6, an assistant's 11, a caption 2.
TWO_CLIPS = [Clip(0, 2, "hi"), Clip(2, 1, "no")]
SPELLED: dict[tuple[Visibility, LayoutName], list[Piece]] = {
    ("leaf", "inference"): [
        Piece(OPENING, 0),
        Piece("Frame-7: [##]\n", 23),
        Piece("}\n{assistant\nhi", 37, 1, "hi}", 1 / 2),
        Piece("Frame-8: [##]\n", 37),
        Piece("}\n{assistant\nhi", 51, 2, "hi}", 1 / 2),
        Piece("Frame-9: [##]\n", 51),
        Piece("}\n{assistant\nno", 65, 3, "no}"),
    ],
    ("leaf", "training"): [
        Piece(OPENING, 0),
        Piece("Frame-7: [##]\n}\n", 23),
        Piece("{assistant\nhi", 39, 1, "hi}", 1 / 2),
        Piece("{user\nFrame-8: [##]\n}\n", 39),
        Piece("{assistant\nhi", 61, 2, "hi}", 1 / 2),
        Piece("{user\nFrame-9: [##]\n}\n", 61),
        Piece("{assistant\nno", 83, 3, "no}"),
    ],
    ("terminal", "inference"): [
        Piece(OPENING, 0),
        Piece("Frame-7: [##]\n", 23),
        Piece("}\n{assistant\nhi", 37, 1, "hi}", 1 / 2),
        Piece("Frame-8: [##]\n", 37),
        Piece("}\n{assistant\nhi", 51, 2, "hi}", 1 / 2),
        Piece("}\n{assistant\nhi}\n{user\n", 51),
        Piece("Frame-9: [##]\n", 74),
        Piece("}\n{assistant\nno", 88, 3, "no}"),
    ],
    ("terminal", "training"): [
        Piece(OPENING, 0),
        Piece("Frame-7: [##]\n}\n", 23),
        Piece("{assistant\nhi", 39, 1, "hi}", 1 / 2),
        Piece("{user\nFrame-8: [##]\n}\n", 39),
        Piece("{assistant\nhi", 61, 2, "hi}", 1 / 2),
        Piece("{assistant\nhi}\n", 61),
        Piece("{user\nFrame-9: [##]\n}\n", 76),
        Piece("{assistant\nno", 98, 3, "no}"),
    ],
    ("causal", "inference"): [
        Piece(OPENING, 0),
        Piece("Frame-7: [##]\n", 23),
        Piece("}\n{assistant\nhi", 37, 0, "hi}", 1 / 2),
        Piece("}\n{user\n", 52),
        Piece("Frame-8: [##]\n", 60),
        Piece("}\n{assistant\nhi", 74, 0, "hi}", 1 / 2),
        Piece("}\n{user\n", 89),
        Piece("Frame-9: [##]\n", 97),
        Piece("}\n{assistant\nno", 111, 0, "no}"),
        Piece("}\n{user\n", 126),
    ],
    ("causal", "training"): [
        Piece(OPENING, 0),
        Piece("Frame-7: [##]\n}\n", 23),
        Piece("{assistant\nhi", 39, 0, "hi}", 1 / 2),
        Piece("}\n", 52),
        Piece("{user\nFrame-8: [##]\n}\n", 54),
        Piece("{assistant\nhi", 76, 0, "hi}", 1 / 2),
        Piece("}\n", 89),
        Piece("{user\nFrame-9: [##]\n}\n", 91),
        Piece("{assistant\nno", 113, 0, "no}"),
        Piece("}\n", 126),
    ],
}


def builder(
    visibility: Visibility = "leaf", layout: LayoutName = "inference", *, weigh_clips: bool = True, turn_weight: float = 0.0
) -> SequenceBuilder:
    return SequenceBuilder(PROMPT, visibility=visibility, layout=layout, weigh_clips=weigh_clips, turn_weight=turn_weight)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_two_clips_in_every_visibility_and_layout(visibility: Visibility, layout: LayoutName) -> None:
    assert_spells(builder(visibility, layout).build([7, 8, 9], TWO_CLIPS), SPELLED[visibility, layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_without_weighing_every_copy_counts_one(visibility: Visibility, layout: LayoutName) -> None:
    expected = [piece._replace(weight=1.0) for piece in SPELLED[visibility, layout]]
    assert_spells(builder(visibility, layout, weigh_clips=False).build([7, 8, 9], TWO_CLIPS), expected)


@pytest.mark.parametrize(
    ("visibility", "expected"),
    [
        (
            "leaf",
            [
                Piece(OPENING, 0),
                Piece("Frame-1: [##]\n", 23),
                Piece("Frame-2: [##]\n", 37),
                Piece("}\n{assistant\na", 51, 1, "a}"),
                Piece("Frame-3: [##]\n", 51),
                Piece("Frame-5: [##]\n", 65),
                Piece("}\n{assistant\nb", 79, 2, "b}"),
                Piece("Frame-6: [##]\n", 79),
            ],
        ),
        (
            "terminal",  # the caption comes ahead of the next clip, not of the gap: till then the gate holds on to it
            [
                Piece(OPENING, 0),
                Piece("Frame-1: [##]\n", 23),
                Piece("Frame-2: [##]\n", 37),
                Piece("}\n{assistant\na", 51, 1, "a}"),
                Piece("Frame-3: [##]\n", 51),
                Piece("}\n{assistant\na}\n{user\n", 65),
                Piece("Frame-5: [##]\n", 87),
                Piece("}\n{assistant\nb", 101, 2, "b}"),
                Piece("Frame-6: [##]\n", 101),
            ],
        ),
        (
            "causal",
            [
                Piece(OPENING, 0),
                Piece("Frame-1: [##]\n", 23),
                Piece("Frame-2: [##]\n", 37),
                Piece("}\n{assistant\na", 51, 0, "a}"),
                Piece("}\n{user\n", 65),
                Piece("Frame-3: [##]\n", 73),
                Piece("Frame-5: [##]\n", 87),
                Piece("}\n{assistant\nb", 101, 0, "b}"),
                Piece("}\n{user\n", 115),
                Piece("Frame-6: [##]\n", 123),
            ],
        ),
    ],
)
def test_nothing_is_learnt_of_frames_without_a_caption(visibility: Visibility, expected: list[Piece]) -> None:
    """Gaps before, between and behind the clips; a frame that was dropped leaves a gap in the numbers only."""
    assert_spells(builder(visibility).build([1, 2, 3, 5, 6], [Clip(1, 1, "a"), Clip(3, 1, "b")]), expected)


def test_the_first_frames_turn_has_its_header_in_the_opening_even_where_it_has_no_caption() -> None:
    expected = [
        Piece(OPENING, 0),
        Piece("Frame-4: [##]\n}\n", 23),
        Piece("{user\nFrame-5: [##]\n}\n", 39),
        Piece("{assistant\na", 61, 1, "a}"),
    ]
    assert_spells(builder(layout="training").build([4, 5], [Clip(1, 1, "a")]), expected)


def test_chosen_frames_carry_the_copies_and_share_the_clips_weight() -> None:
    clips = [Clip(0, 4, "hi"), Clip(4, 2, "no"), Clip(6, 1, "x")]
    sequence = builder("terminal").build(range(1, 8), clips, chosen=[5, 0, 2, 6])
    expected = [
        Piece(OPENING, 0),
        Piece("Frame-1: [##]\n", 23),
        Piece("}\n{assistant\nhi", 37, 1, "hi}", 1 / 2),
        Piece("Frame-2: [##]\n", 37),
        Piece("Frame-3: [##]\n", 51),
        Piece("}\n{assistant\nhi", 65, 2, "hi}", 1 / 2),
        Piece("Frame-4: [##]\n", 65),
        Piece("}\n{assistant\nhi}\n{user\n", 79),
        Piece("Frame-5: [##]\n", 102),
        Piece("Frame-6: [##]\n", 116),
        Piece("}\n{assistant\nno", 130, 3, "no}"),
        Piece("}\n{assistant\nno}\n{user\n", 130),
        Piece("Frame-7: [##]\n", 153),
        Piece("}\n{assistant\nx", 167, 4, "x}"),
    ]
    assert_spells(sequence, expected)


def test_a_clip_without_a_copy_still_leaves_its_caption_behind() -> None:
    sequence = builder("terminal").build([1, 2], [Clip(0, 1, "a"), Clip(1, 1, "b")], chosen=[1])
    expected = [
        Piece(OPENING, 0),
        Piece("Frame-1: [##]\n", 23),
        Piece("}\n{assistant\na}\n{user\n", 37),
        Piece("Frame-2: [##]\n", 59),
        Piece("}\n{assistant\nb", 73, 1, "b}"),
    ]
    assert_spells(sequence, expected)


def test_a_frame_chosen_twice_carries_one_copy() -> None:
    once = builder().build([1, 2], [Clip(0, 2, "a")], chosen=[0, 1])
    assert builder().build([1, 2], [Clip(0, 2, "a")], chosen=[0, 1, 1]) == once


def test_a_clip_that_reaches_past_the_frames_counts_once_all_the_same() -> None:
    sequence = builder().build([1, 2], [Clip(0, 1, "a"), Clip(1, 5, "b")])
    assert sequence.weights == [1.0] * 4


def test_two_clips_may_have_the_same_caption() -> None:
    """The end of the first is still seen, and each counts for itself."""
    sequence = builder("terminal").build([1, 2, 3], [Clip(0, 2, "a"), Clip(2, 1, "a")])
    assert sequence.weights == [1 / 2] * 4 + [1.0] * 2
    assert readable(sequence.rows).endswith("}\n{assistant\na}\n{user\nFrame-3: [##]\n}\n{assistant\na")


def test_the_end_of_turn_is_learnt_behind_every_frame_of_a_clip() -> None:
    """It ends behind a clip's first frame; behind the others the next frame line follows."""
    sequence = builder(turn_weight=0.25).build([1, 2, 3, 4], [Clip(0, 2, "a"), Clip(3, 1, "b")])
    expected = [
        Piece(OPENING, 0),
        Piece("Frame-1: [##]\n", 23, 0, "}", 0.25),
        Piece("}\n{assistant\na", 37, 1, "a}", 1 / 2),
        Piece("Frame-2: [##]\n", 37, 0, "F", 0.25),
        Piece("}\n{assistant\na", 51, 2, "a}", 1 / 2),
        Piece("Frame-3: [##]\n", 51),
        Piece("Frame-4: [##]\n", 65, 0, "}", 0.25),
        Piece("}\n{assistant\nb", 79, 3, "b}"),
    ]
    assert_spells(sequence, expected)


@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_the_end_of_turn_changes_no_row(visibility: Visibility) -> None:
    with_turns = builder(visibility, turn_weight=1.0).build([1, 2, 3], TWO_CLIPS)
    without = builder(visibility).build([1, 2, 3], TWO_CLIPS)
    assert (with_turns.rows, with_turns.positions, with_turns.leaves) == (without.rows, without.positions, without.leaves)
    assert len(with_turns.targets) == len(without.targets) + 3


def test_the_end_of_turn_cannot_be_learnt_where_every_frame_ends_its_turn() -> None:
    with pytest.raises(InvalidConfig, match=r"turn_weight is set, but .* set layout inference"):
        builder(layout="training", turn_weight=0.1)


CHOICES = st.tuples(st.sampled_from(VISIBILITIES), st.sampled_from(LAYOUTS), st.booleans())


@given(STREAMS, CHOICES, st.randoms(use_true_random=False))
def test_what_holds_for_every_sequence(stream, choices, chance) -> None:
    num_frames, clips = stream
    visibility, layout, weighs = choices
    chosen = chance.choice([None, chance.sample(range(num_frames), chance.randint(0, num_frames))])
    made = builder(visibility, layout, weigh_clips=weighs)
    sequence = made.build(range(1, num_frames + 1), clips, chosen)
    lengths = {len(sequence.rows), len(sequence.positions), len(sequence.leaves)}
    assert lengths == {len(sequence.rows)}
    # The trunk counts on without a gap, and a leaf counts on from the trunk before it.
    trunk = [p for p, leaf in zip(sequence.positions, sequence.leaves, strict=True) if leaf == 0]
    assert trunk == list(range(len(trunk)))
    for leaf in range(1, sequence.num_leaves + 1):
        places = [i for i, number in enumerate(sequence.leaves) if number == leaf]
        assert places == list(range(places[0], places[-1] + 1))
        before = sequence.leaves[: places[0]].count(0)
        assert [sequence.positions[i] for i in places] == list(range(before, before + len(places)))
    # A target is the next row of its own leaf, or else what ends the turn.
    for row, target in zip(sequence.target_rows, sequence.targets, strict=True):
        follows = row + 1 < len(sequence.rows) and sequence.leaves[row + 1] == sequence.leaves[row]
        assert target == (sequence.rows[row + 1] if follows else ord("}"))
    # Every clip with a copy counts as much as one caption, or every copy does.
    carriers = set(range(num_frames) if chosen is None else chosen)
    copies = {clip: len(carriers & set(range(clip.first, clip.first + clip.num_frames))) for clip in clips}
    expected = sum((1 if weighs else n) * (len(clip.caption) + 1) for clip, n in copies.items() if n)
    assert sum(sequence.weights) == pytest.approx(expected)
    assert len(sequence.targets) == sum(n * (len(clip.caption) + 1) for clip, n in copies.items())


@given(STREAMS, st.sampled_from(VISIBILITIES), st.sampled_from(LAYOUTS), st.integers(0, 3), st.integers(0, 9990))
def test_the_estimate_is_never_too_small_and_never_far_off(stream, visibility, layout, max_copies, offset) -> None:
    """Too small, and a batch would not fit; too large, and batches would stay empty."""
    num_frames, clips = stream
    made = builder(visibility, layout)
    numbers = range(1 + offset, num_frames + 1 + offset)
    chosen = [clip.first + n for clip in clips for n in range(min(clip.num_frames, max_copies or clip.num_frames))]
    num_rows = len(made.build(numbers, clips, chosen).rows)
    sizes = [(clip.num_frames, len(PROMPT.caption(clip.caption).rows)) for clip in clips]
    last_closing = len("}\n{assistant\n" + clips[-1].caption + "}\n{user\n")
    spare = num_frames * 3 + last_closing + len("{user\n")  # digits, the last clip's own end, the first frame's header
    assert num_rows <= made.estimate(num_frames, sizes, max_copies) <= num_rows + spare
