"""What stays: the published rules on worked examples, and properties over random contexts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestar.config import RetentionConfig, RetentionName
from livestar.errors import ContextFull
from livestar.retention.base import LOW_WATER, Unit, num_tokens
from livestar.retention.make import make_retention
from livestar.retention.peak_end import Median, PeakEnd, at_most_median, better_half

pytestmark = pytest.mark.unit

OPENING = Unit("opening", 60)
PEAK_END: tuple[RetentionName, ...] = ("peak-end", "peak-end-code", "peak-end-median", "peak-end-prob")


def context(*clips: Sequence[float], caption_tokens: int = 50) -> list[Unit]:
    """An opening, then each clip's frames of 24 tokens with these scores and, but for the last, its caption."""
    units, number = [OPENING], 0
    for clip, scores in enumerate(clips, 1):
        for score in scores:
            number += 1
            units.append(Unit("frame", 24, clip, number, score))
        if clip < len(clips):
            units.append(Unit("caption", caption_tokens, clip, number))
    return units


def frames_left(units: Sequence[Unit], evicted: Sequence[int]) -> list[int]:
    return [unit.frame for i, unit in enumerate(units) if unit.kind == "frame" and i not in evicted]


# The published index lists


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([], []),
        ([5.0], [0]),
        ([2.0, 1.0], [1]),
        ([1.0, 1.0], [0]),
        ([3.0, 1.0, 2.0], [1, 2]),
        ([4.0, 4.0, 4.0, 4.0, 4.0], [0, 1, 2]),
        ([9.0, 1.0, 8.0, 2.0, 7.0, 3.0], [1, 3, 5]),
    ],
)
def test_the_better_half_is_rounded_up_and_never_empty(scores: list[float], kept: list[int]) -> None:
    assert better_half(scores) == kept


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([], []),
        ([5.0], [0]),
        ([2.0, 1.0], [1]),
        ([3.0, 1.0, 2.0], [1, 2]),
        ([4.0, 1.0, 3.0, 2.0], [1, 3]),
        ([1.0, 1.0, 1.0], [0, 1, 2]),
        ([1.0, 2.0, 2.0, 3.0], [0, 1, 2]),
    ],
)
def test_at_most_the_median_of_odd_and_even_counts(scores: list[float], kept: list[int]) -> None:
    assert at_most_median(scores) == kept


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=40))
def test_both_keep_at_least_half_and_the_best(scores: list[float]) -> None:
    for kept in (better_half(scores), at_most_median(scores)):
        assert len(kept) >= (len(scores) + 1) // 2 or len(kept) >= 1
        assert scores.index(min(scores)) in kept
        assert max(scores[i] for i in kept) <= min((s for i, s in enumerate(scores) if i not in kept), default=float("inf"))
    assert len(better_half(scores)) == (len(scores) + 1) // 2


def released(**more: int) -> RetentionConfig:
    return RetentionConfig(name="peak-end-code", num_recent_frames=1, protect_ends=False, **more)


def test_the_released_rule_keeps_thirteen_of_twenty_five_frames() -> None:
    rule = make_retention(released())
    assert rule.select(context([float(n % 5) for n in range(24)]), 10**6) == []
    units = context([float(n) for n in range(24)] + [-1.0])
    assert frames_left(units, rule.select(units, 10**6)) == [*range(1, 13), 25]


def test_the_released_rule_halves_every_clip_and_never_deletes_the_last_frame_of_one() -> None:
    rule = make_retention(released())
    clips = [[7.0], [5.0, 4.0], [1.0, 3.0, 2.0], [float(n) for n in range(19, 0, -1)]]
    units = context(*clips)
    assert frames_left(units, rule.select(units, 10**6)) == [1, 3, 4, 6, *range(16, 26)]
    many = context(*[[1.0]] * 30)
    assert rule.select(many, 10**6) == []  # groups of one never go, however many


def test_the_newest_frame_of_the_current_clip_stays_whatever_its_score() -> None:
    units = context([float(n) for n in range(25)])
    assert frames_left(units, make_retention(released()).select(units, 10**6)) == [*range(1, 14), 25]


# Protection and whole clips


def test_recent_first_and_last_frames_are_protected() -> None:
    rule = PeakEnd(Median(), num_recent_frames=3)
    rising = [99.0, *map(float, range(20)), 99.0]
    units = context(rising, rising)
    evicted = rule.select(units, num_tokens(units) - 1)
    assert frames_left(units, evicted) == [*range(1, 13), 22, *range(23, 35), 42, 43, 44]
    assert not any(units[i].kind != "frame" for i in evicted)


def test_ends_are_protected_only_if_asked() -> None:
    units = context([9.0, 1.0, 2.0, 9.0, 3.0, 4.0, 5.0, 1.0])
    budget = num_tokens(units) - 1
    assert frames_left(units, PeakEnd(Median(), num_recent_frames=1, protect_ends=False).select(units, budget)) == [2, 3, 5, 8]
    assert frames_left(units, PeakEnd(Median(), num_recent_frames=1, protect_ends=True).select(units, budget)) == [1, 2, 3, 5, 8]


def test_whole_clips_go_oldest_first_with_their_captions_and_never_the_current_one() -> None:
    units = context(*[[1.0, 1.0]] * 8)  # 794 tokens, 98 a clip, all of it protected
    rule = make_retention(RetentionConfig(num_recent_frames=1))
    for budget, num_gone in ((793, 3), (600, 4), (200, 7), (108, 7)):
        evicted = rule.select(units, budget)
        assert evicted == [i for i, unit in enumerate(units) if 1 <= unit.clip <= num_gone]
    with pytest.raises(ContextFull):
        rule.select(units, 107)


def test_the_current_clip_gives_its_worst_frames_when_there_is_nothing_else() -> None:
    units = context([1.0, 1.0], [3.0, 9.0, 5.0, 7.0, 4.0, 8.0, 2.0, 6.0])
    rule = make_retention(RetentionConfig(num_recent_frames=2, name="peak-end-prob", window_frames=40))
    assert frames_left(units, rule.select(units, 250)) == [3, 5, 7, 9, 10]  # 9, 8 and 7 went; 6 is among the newest


def test_with_only_protected_frames_left_the_context_is_full() -> None:
    units = context([1.0, 2.0, 3.0, 4.0])
    for name in PEAK_END:
        with pytest.raises(ContextFull, match="raise --kv-tokens"):
            make_retention(RetentionConfig(name=name)).select(units, 60 + 3 * 24)


# None and window


def test_none_evicts_nothing_and_says_when_it_is_full() -> None:
    units = context([1.0, 2.0], [3.0])
    rule = make_retention(RetentionConfig(name="none"))
    assert rule.select(units, num_tokens(units)) == []
    with pytest.raises(ContextFull, match="'none' evicts nothing"):
        rule.select(units, num_tokens(units) - 1)


def test_window_evicts_the_oldest_down_to_the_low_water_mark() -> None:
    units = context([float(n) for n in range(20)])
    total = num_tokens(units)
    rule = make_retention(RetentionConfig(name="window", num_recent_frames=4))
    assert rule.select(units, total) == []
    evicted = rule.select(units, total - 1)
    assert evicted == list(range(1, len(evicted) + 1))
    left = total - 24 * len(evicted)
    assert left <= LOW_WATER * (total - 1) < left + 24


def test_window_takes_a_caption_with_its_clips_last_frame() -> None:
    units = context([1.0, 1.0], [1.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    rule = make_retention(RetentionConfig(name="window", num_recent_frames=2))
    assert rule.select(units, 350) == [1, 2, 3]
    assert frames_left(units, rule.select(units, 200)) == [6, 7, 8]
    with pytest.raises(ContextFull):
        rule.select(units, 100)


# Probabilistic


def test_prob_repeats_itself_and_follows_its_seed() -> None:
    units = context([float(n % 7 + 1) for n in range(60)], [float(n % 5 + 1) for n in range(60)])
    choices = []
    for seed in (1, 1, 2):
        rule = make_retention(RetentionConfig(name="peak-end-prob", seed=seed, window_frames=10))
        choices.append(rule.select(units, num_tokens(units) - 24))
    assert choices[0] == choices[1] != choices[2]


def test_prob_prefers_bad_and_old_frames() -> None:
    counts = dict.fromkeys(range(1, 102), 0)
    scores = [9.0 if n % 2 else 1.0 for n in range(100)] + [1.0]
    units = context(scores, [1.0])
    for seed in range(150):
        rule = make_retention(RetentionConfig(name="peak-end-prob", seed=seed, window_frames=20))
        for i in rule.select(units, num_tokens(units) - 1):
            counts[units[i].frame] += 1
    bad = sum(counts[n] for n in range(2, 81, 2))
    good = sum(counts[n] for n in range(3, 81, 2))
    assert bad > 2 * good
    assert sum(counts[n] for n in range(2, 42)) > 1.3 * sum(counts[n] for n in range(42, 82))
    assert not any(counts[n] for n in range(82, 102))  # younger than the window
    assert counts[1] == 0  # an end


# Properties

SCORES = st.floats(1, 1e4)
CLIPS = st.lists(st.lists(SCORES, min_size=1, max_size=15), min_size=1, max_size=8)
CONFIGS = st.builds(
    RetentionConfig,
    name=st.sampled_from([name for name in get_args(RetentionName) if name != "none"]),
    num_recent_frames=st.integers(1, 6),
    protect_ends=st.booleans(),
    max_frames=st.none() | st.integers(1, 30),
    window_frames=st.integers(0, 30),
    seed=st.integers(0, 5),
)


@given(CLIPS, CONFIGS, st.floats(0.1, 1.2), st.integers(5, 200))
def test_the_budget_is_met_or_the_context_is_full(
    clips: list[list[float]], config: RetentionConfig, share: float, caption_tokens: int
) -> None:
    units = context(*clips, caption_tokens=caption_tokens)
    budget = int(num_tokens(units) * share)
    current = [i for i, unit in enumerate(units) if unit.kind == "frame" and unit.clip == len(clips)]
    protected = set(current[-config.num_recent_frames :])
    if config.protect_ends and config.name != "window":
        protected |= {current[0], current[-1]}
    try:
        evicted = make_retention(config).select(units, budget)
    except ContextFull:
        all_frames = [i for i, unit in enumerate(units) if unit.kind == "frame"]
        stays = set(all_frames[-config.num_recent_frames :]) if config.name == "window" else protected
        kept_clips = {units[i].clip for i in stays}
        captions = [u for u in units if u.kind == "caption" and config.name == "window" and u.clip in kept_clips]
        assert num_tokens([OPENING, *(units[i] for i in stays), *captions]) > budget
        return
    assert evicted == sorted(set(evicted))
    assert num_tokens([unit for i, unit in enumerate(units) if i not in evicted]) <= budget
    assert 0 not in evicted
    assert not protected & set(evicted)
    if num_tokens(units) <= budget and config.max_frames is None and config.name != "peak-end-code":
        assert evicted == []


@given(CLIPS, CONFIGS, st.floats(0.2, 1.0))
def test_a_caption_goes_with_its_whole_clip_and_older_clips_before_it(
    clips: list[list[float]], config: RetentionConfig, share: float
) -> None:
    units = context(*clips)
    try:
        evicted = set(make_retention(config).select(units, int(num_tokens(units) * share)))
    except ContextFull:
        return
    for i, unit in enumerate(units):
        if unit.kind == "caption" and i in evicted:
            assert {j for j, other in enumerate(units) if 0 < other.clip <= unit.clip} <= evicted
    if config.protect_ends and config.name != "window":
        captions = {unit.clip: i for i, unit in enumerate(units) if unit.kind == "caption"}
        for clip, caption in captions.items():
            frames = [i for i, unit in enumerate(units) if unit.kind == "frame" and unit.clip == clip]
            assert caption in evicted or not {frames[0], frames[-1]} & evicted


@given(CLIPS, st.integers(0, 30), st.integers(0, 5), st.floats(0.3, 1.0))
def test_prob_never_thins_frames_younger_than_its_window(
    clips: list[list[float]], window_frames: int, seed: int, share: float
) -> None:
    """Only where the old ones did not suffice do whole clips or the current clip's worst go."""
    units = context(*clips)
    newest = max(unit.frame for unit in units)
    budget = int(num_tokens(units) * share)
    config = RetentionConfig(
        name="peak-end-prob", window_frames=window_frames, seed=seed, num_recent_frames=1, protect_ends=False
    )
    try:
        evicted = make_retention(config).select(units, budget)
    except ContextFull:
        return
    young = [i for i in evicted if units[i].kind == "frame" and newest - units[i].frame <= window_frames]
    old = {i for i, unit in enumerate(units) if unit.kind == "frame" and newest - unit.frame > window_frames} - {len(units) - 1}
    assert not young or old <= set(evicted)


@given(CLIPS, CONFIGS, st.floats(0.3, 1.0))
def test_the_same_context_gives_the_same_choice(clips: list[list[float]], config: RetentionConfig, share: float) -> None:
    units = context(*clips)
    budget = int(num_tokens(units) * share)
    choices = []
    for _ in range(2):
        try:
            choices.append(make_retention(config).select(units, budget))
        except ContextFull as full:
            choices.append(str(full))  # type: ignore[arg-type]
    assert choices[0] == choices[1]


def test_evicting_again_after_eviction_works_on_clips_that_lost_their_ends() -> None:
    """A long life: each round adds frames and captions to what the last round left."""
    for name in (*PEAK_END, "window"):
        rule = make_retention(RetentionConfig(name=name, num_recent_frames=2, window_frames=6))
        units, clip = [OPENING], 1
        for number in range(1, 400):
            if number % 9 == 0:
                units.append(Unit("caption", 30 + number % 40, clip, number))
                clip += 1
            units.append(Unit("frame", 24, clip, number, 1.0 + number * 7 % 13))
            evicted = rule.select(units, 500)
            units = [unit for i, unit in enumerate(units) if i not in evicted]
            assert num_tokens(units) <= 500
            assert units[0] is OPENING
            newest = [unit.frame for unit in units if unit.kind == "frame"]
            assert newest[-1] == number
