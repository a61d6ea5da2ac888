"""Scripted streams: the same for the same seed, exact in time, true to their captions, and apart between splits."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from training.mini import catalogue, grammar
from training.mini.catalogue import SPLITS, Split
from training.mini.script import Actor, Script, Track, at, holds, write
from training.mini.scripted import seed_of

pytestmark = pytest.mark.unit


def scripts(split: Split = "train", count: int = 150) -> list[Script]:
    return [write(seed, split, catalogue.load()) for seed in range(count)]


@pytest.mark.parametrize("split", SPLITS)
def test_a_seed_always_gives_the_same_stream(split: Split) -> None:
    assert write(7, split, catalogue.load()) == write(7, split, catalogue.load())
    assert write(7, split, catalogue.load()) != write(8, split, catalogue.load())


@pytest.mark.parametrize("split", SPLITS)
def test_events_follow_on_one_another_from_the_first_moment_to_the_last(split: Split) -> None:
    for script in scripts(split):
        assert script.events[0].begin_s == 0.0
        assert script.events[-1].end_s == script.duration_s
        assert 16 <= script.duration_s <= 28 and 4 <= len(script.events) <= 12
        for event, following in zip(script.events, script.events[1:], strict=False):
            assert event.end_s == following.begin_s
            assert event.caption != following.caption
        assert all(1.4 < event.end_s - event.begin_s <= 6 for event in script.events)


def test_captions_are_sentences_and_their_paraphrases_differ() -> None:
    for script in scripts():
        for event in script.events:
            assert 3 <= len(event.captions) <= 4 and len(set(event.captions)) == len(event.captions)
            for caption in event.captions:
                assert re.fullmatch(r"[A-Z][a-z ,]+\.", caption), caption
                assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  ", caption.lower()), caption


def far(track: Track, begin: float, end: float) -> float:
    return at(track, end) - at(track, begin)


TRUE: dict[str, Callable[[Actor, float, float], bool]] = {
    r" in from the left": lambda a, begin, end: at(a.x, begin) < 0 < at(a.x, end) < 1,
    r" in from the right": lambda a, begin, end: at(a.x, begin) > 1 > at(a.x, end) > 0,
    r" past .*from left to right": lambda a, begin, end: at(a.x, begin) < 0 and at(a.x, end) > 1,
    r" past .*from right to left": lambda a, begin, end: at(a.x, begin) > 1 and at(a.x, end) < 0,
    r" off to the left": lambda a, begin, end: at(a.x, begin) > 0 > at(a.x, end),
    r" off to the right": lambda a, begin, end: at(a.x, begin) < 1 < at(a.x, end),
    r"s to the left\.": lambda a, begin, end: far(a.x, begin, end) < -0.15,
    r"s to the right\.": lambda a, begin, end: far(a.x, begin, end) > 0.15,
    r"(s up|rises)\.": lambda a, begin, end: far(a.y, begin, end) < -0.15,
    r"(s down|sinks)\.": lambda a, begin, end: far(a.y, begin, end) > 0.1,
    r"comes closer": lambda a, begin, end: at(a.scale, end) > 1.3 * at(a.scale, begin),
    r"gets smaller": lambda a, begin, end: at(a.scale, end) < at(a.scale, begin) / 1.3,
    r"spins around": lambda a, begin, end: abs(far(a.angle, begin, end)) >= 359,
    r"turns upside down": lambda a, begin, end: abs(far(a.angle, begin, end)) == pytest.approx(180),
    r" appears": lambda a, begin, end: not holds(a.visible, begin - 0.01) and holds(a.visible, begin),
    r"s on the left[^,]*\.": lambda a, begin, end: at(a.x, begin) == at(a.x, end) < 0.4,
    r"s in the middle": lambda a, begin, end: at(a.x, begin) == at(a.x, end) and 0.4 <= at(a.x, end) <= 0.6,
}
"""What a caption says, and what is then true of the first thing that it names."""


def named(actor: Actor, caption: str) -> int:
    """Where a caption names an actor; -1 where it does not."""
    found = re.search(rf"\b(a|an|the) {actor.thing.noun(actor.colour).name}\b", caption.lower())
    return found.start() if found else -1


def test_positions_agree_with_what_the_captions_say() -> None:
    seen: set[str] = set()
    for script in scripts(count=400):
        for event in script.events:
            begin, end, said = event.begin_s, event.end_s, event.caption
            there = [actor for actor in script.actors if holds(actor.visible, (begin + end) / 2)]
            first = min((actor for actor in there if named(actor, said) >= 0), key=lambda a: named(a, said), default=None)
            if " is on the left and " in said:
                left, right = sorted(there, key=lambda actor: named(actor, said))
                assert at(left.x, begin) < at(right.x, begin), (script.seed, said)
                continue
            if said.startswith("The camera pans to the "):
                pan = next(shot.pan for shot in reversed(script.shots) if shot.begin_s <= begin)
                assert (far(pan, begin, end) > 0.05) == said.endswith("right."), (script.seed, said)
                continue
            for pattern, is_true in TRUE.items():
                if re.search(pattern, said):
                    seen.add(pattern)
                    assert first is not None and is_true(first, begin, end), (script.seed, said)
            if said.endswith("is empty."):
                assert not there
            if said.endswith("disappears."):
                assert first is None, (script.seed, said)
                assert any(named(a, said) >= 0 and holds(a.visible, begin - 0.01) for a in script.actors), (script.seed, said)
    assert seen == set(TRUE)


def test_the_light_and_the_place_change_when_the_captions_say_so() -> None:
    seen: set[str] = set()
    for script in scripts(count=300):
        for event in script.events:
            if event.caption == "It gets dark.":
                seen.add("dark")
                assert at(script.light, event.begin_s) == 1.0 and at(script.light, event.end_s) < 0.4
            if event.caption == "It gets bright again.":
                seen.add("bright")
                assert at(script.light, event.begin_s) < 0.4 and at(script.light, event.end_s) == 1.0
            if event.caption.startswith("The scene changes to "):
                seen.add("cut")
                shot = next(shot for shot in script.shots if shot.begin_s == event.begin_s)
                assert event.caption == f"The scene changes to {shot.place.where.a}."
            if event.caption == "The camera shakes.":
                seen.add("shake")
                assert (event.begin_s, event.end_s) in script.shakes
    assert seen == {"dark", "bright", "cut", "shake"}


def test_heldout_streams_share_no_picture_no_place_and_no_seed_with_training() -> None:
    shown = {
        split: (
            {actor.picture.name for script in scripts(split) for actor in script.actors},
            {shot.place.name for script in scripts(split) for shot in script.shots},
            {seed_of(number, split) for number in range(1000)},
        )
        for split in SPLITS
    }
    for other in ("heldout", "unseen"):
        for kind in range(3 if other == "heldout" else 2):
            assert shown["train"][kind] and shown[other][kind]
            assert not shown["train"][kind] & shown[other][kind]
    assert not shown["heldout"][0] & shown["unseen"][0]
    assert not shown["train"][2] & shown["unseen"][2]


def test_heldout_things_and_places_have_names_that_training_knows_and_unseen_things_do_not() -> None:
    known = catalogue.load()
    names = {split: {thing.name for thing in known.things_of(split)} for split in SPLITS}
    places = {split: {place.where.a for place in known.places_of(split)} for split in SPLITS}
    assert names["heldout"] <= names["train"] and len(names["heldout"]) >= 60
    assert len(names["unseen"]) >= 5 and not names["unseen"] & names["train"]
    assert places["heldout"] <= places["train"]


def test_about_a_fifth_of_the_pictures_and_places_is_held_out() -> None:
    known = catalogue.load()
    pictures = [picture for thing in known.things if not thing.unseen for picture in thing.pictures]
    assert 0.15 < sum(picture.heldout for picture in pictures) / len(pictures) < 0.3
    assert 0.15 < sum(place.heldout for place in known.places) / len(known.places) < 0.3


def test_a_kind_that_nothing_moves_like_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing moves like 'hoverer'"):
        catalogue.parse({"hoverer": {"dog": {"code": "1f415"}}}, {"place": []})


def test_clip_art_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not there: dgo"):
        catalogue.parse({"walker": {}, "clipart": [{"thing": "dgo", "file": "x.png"}]}, {"place": []})


@pytest.mark.parametrize(
    ("base", "inflected"), [("fly", "flies"), ("dash", "dashes"), ("go", "goes"), ("run", "runs"), ("stay", "stays")]
)
def test_verbs_take_the_right_ending(base: str, inflected: str) -> None:
    assert grammar.third(base) == inflected


def test_tracks_are_linear_between_their_keys_and_constant_outside() -> None:
    track = ((1.0, 0.0), (3.0, 4.0), (3.0, 10.0))
    assert [at(track, t) for t in (0, 1, 2, 2.5, 3, 9)] == [0, 0, 2, 3, 10, 10]


def test_steps_hold_from_their_time_on() -> None:
    steps = ((1.0, True), (2.0, False))
    assert [holds(steps, t) for t in (0.9, 1.0, 1.9, 2.0)] == [False, True, True, False]


def test_a_calm_stream_lasts_longer_and_its_events_too() -> None:
    for seed in range(30):
        calm = write(seed, "train", catalogue.load(), calm=3.0)
        assert 48 <= calm.duration_s <= 84
        assert all(event.end_s - event.begin_s > 4.4 for event in calm.events)
