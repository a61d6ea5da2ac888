"""The grammar of the captions of scripted streams: nouns, verbs by the kind of thing, and pools of paraphrases."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbs:
    """How one kind of thing moves and stays, as base forms; the first of each is the canonical one."""

    slow: tuple[str, ...]
    fast: tuple[str, ...]
    stay: tuple[str, ...]
    up: tuple[str, ...] = ("move",)
    down: tuple[str, ...] = ("move",)


VERBS: dict[str, Verbs] = {
    "walker": Verbs(slow=("walk", "stroll", "trot"), fast=("run", "dash", "race"), stay=("stand", "wait", "stay")),
    "hopper": Verbs(slow=("hop", "bounce"), fast=("hop", "jump", "leap"), stay=("sit", "wait", "stay"), up=("jump",)),
    "crawler": Verbs(slow=("crawl", "creep"), fast=("crawl", "scurry"), stay=("sit", "rest", "stay"), up=("climb",)),
    "flier": Verbs(
        slow=("fly", "flutter", "glide"), fast=("fly", "swoop", "dart"), stay=("hover", "hang"), up=("fly",), down=("fly",)
    ),
    "aircraft": Verbs(slow=("fly", "glide"), fast=("fly", "speed", "zoom"), stay=("hover", "hang"), up=("fly",), down=("fly",)),
    "swimmer": Verbs(slow=("swim", "glide"), fast=("swim", "dart"), stay=("float", "stay"), up=("swim",), down=("swim",)),
    "vehicle": Verbs(slow=("drive", "roll"), fast=("drive", "speed", "race"), stay=("stand", "wait", "stop")),
    "cycle": Verbs(slow=("roll", "ride"), fast=("roll", "speed"), stay=("stand", "stay")),
    "boat": Verbs(slow=("sail", "float"), fast=("sail", "speed"), stay=("float", "lie", "rest")),
    "ball": Verbs(slow=("roll",), fast=("roll", "bounce"), stay=("lie", "rest", "stay"), up=("bounce",), down=("drop",)),
    "balloon": Verbs(slow=("float", "drift"), fast=("float", "drift"), stay=("float", "hang"), up=("rise",), down=("sink",)),
    "person": Verbs(slow=("walk", "stroll"), fast=("run", "hurry"), stay=("stand", "wait", "stay")),
    "thing": Verbs(slow=("slide", "glide"), fast=("slide", "shoot"), stay=("stand", "rest", "stay")),
    "fruit": Verbs(slow=("roll", "slide"), fast=("roll", "slide"), stay=("lie", "rest", "stay"), down=("drop",)),
}

SIDES = {"left": "right", "right": "left"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """A thing on the stage as the captions name it."""

    name: str
    kind: str

    @property
    def a(self) -> str:
        """With the indefinite article."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    @property
    def the(self) -> str:
        """With the definite article."""
        return f"the {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A place as the captions name it: "a room", "the room", "in the room"."""

    a: str
    at: str

    @property
    def the(self) -> str:
        """With the definite article."""
        return "the " + self.a.split(" ", 1)[1]


def third(verb: str) -> str:
    """Third person singular of a regular verb."""
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")


def sentence(text: str) -> str:
    """`text` with a capital at its start and a full stop."""
    return text[0].upper() + text[1:] + "."


def pool(rng: random.Random, canonical: str, others: list[str], most: int = 4) -> tuple[str, ...]:
    """The canonical sentence and up to `most` - 1 different others in an order of chance."""
    first = sentence(canonical)
    rest = [text for text in dict.fromkeys(map(sentence, others)) if text != first]
    rng.shuffle(rest)
    return (first, *rest[: most - 1])


def spot(x: float) -> tuple[str, ...]:
    """Phrases for a horizontal position between 0 (left) and 1 (right), the canonical one first."""
    if x < 0.4:
        return ("on the left", "on the left side", "to the left")
    if x > 0.6:
        return ("on the right", "on the right side", "to the right")
    return ("in the middle", "in the centre", "in the middle of the picture")


def _go(noun: Noun, fast: bool) -> tuple[str, ...]:
    verbs = VERBS[noun.kind]
    return verbs.fast if fast else verbs.slow


def enter(rng: random.Random, noun: Noun, side: str, fast: bool, where: Where) -> tuple[str, ...]:
    """It comes in from `side`."""
    go = _go(noun, fast)
    verb, other = third(go[0]), third(rng.choice(go))
    return pool(
        rng,
        f"{noun.a} {verb} in from the {side}",
        [
            f"{noun.a} {other} in from the {side}",
            f"{noun.a} enters from the {side}",
            f"{noun.a} comes in from the {side}",
            f"from the {side}, {noun.a} {other} into {where.the}",
            f"{noun.a} {other} into the picture from the {side}",
        ],
    )


def cross(rng: random.Random, noun: Noun, side: str, fast: bool, where: Where) -> tuple[str, ...]:
    """It goes through the whole picture, starting at `side`."""
    go = _go(noun, fast)
    verb, other, end = third(go[0]), third(rng.choice(go)), SIDES[side]
    return pool(
        rng,
        f"{noun.a} {verb} past from {side} to {end}",
        [
            f"{noun.a} {other} across {where.the} from {side} to {end}",
            f"{noun.a} crosses the picture from {side} to {end}",
            f"{noun.a} {other} by from the {side} to the {end}",
            f"{noun.a} goes past towards the {end}",
        ],
    )


def leave(rng: random.Random, noun: Noun, side: str, fast: bool) -> tuple[str, ...]:
    """It goes out at `side`."""
    go = _go(noun, fast)
    verb, other = third(go[0]), third(rng.choice(go))
    return pool(
        rng,
        f"{noun.the} {verb} off to the {side}",
        [
            f"{noun.the} {other} away to the {side}",
            f"{noun.the} leaves on the {side}",
            f"{noun.the} {other} out of the picture on the {side}",
            f"{noun.the} goes off to the {side}",
        ],
    )


def move(rng: random.Random, noun: Noun, way: str, fast: bool) -> tuple[str, ...]:
    """It goes left, right, up or down and stays in the picture."""
    verbs = VERBS[noun.kind]
    if way in SIDES:
        go = _go(noun, fast)
        verb, other = third(go[0]), third(rng.choice(go))
        others = [f"{noun.the} {other} over to the {way}", f"{noun.the} moves to the {way}", f"{noun.the} goes {way}"]
        return pool(rng, f"{noun.the} {verb} to the {way}", others)
    verb = third((verbs.up if way == "up" else verbs.down)[0])
    if way == "up":
        others = [f"{noun.the} goes up", f"{noun.the} moves higher", f"{noun.the} moves upwards"]
    else:
        others = [f"{noun.the} goes down", f"{noun.the} moves lower", f"{noun.the} moves downwards"]
    return pool(rng, f"{noun.the} {verb}{'' if verb in ('rises', 'sinks') else ' ' + way}", others)


def stay(rng: random.Random, noun: Noun, x: float, where: Where, *, new: bool, with_place: bool) -> tuple[str, ...]:
    """It keeps its place at `x`; `new` if nobody has named it yet."""
    verbs, spots = VERBS[noun.kind].stay, spot(x)
    verb, other, at = third(verbs[0]), third(rng.choice(verbs)), rng.choice(spots)
    subject = noun.a if new else noun.the
    middle = spots[0] == "in the middle"
    tail = (f" of {where.the}" if middle else f" {where.at}") if with_place else ""
    return pool(
        rng,
        f"{subject} {verb} {spots[0]}{tail}",
        [
            f"{subject} {other} {spots[0]}{tail}",
            f"{subject} is {at}",
            f"{subject} {other} still {at}",
            f"{subject} does not move and stays {at}",
            f"there is {noun.a} {at} {where.at}",
        ],
    )


def size(rng: random.Random, noun: Noun, bigger: bool) -> tuple[str, ...]:
    """It comes closer or goes away."""
    if bigger:
        others = ["gets bigger", "moves towards the camera", "grows larger", "gets closer"]
        return pool(rng, f"{noun.the} comes closer", [f"{noun.the} {o}" for o in others])
    others = ["goes into the distance", "moves away from the camera", "shrinks", "goes further away"]
    return pool(rng, f"{noun.the} gets smaller", [f"{noun.the} {o}" for o in others])


def appear(rng: random.Random, noun: Noun, x: float, where: Where) -> tuple[str, ...]:
    """It is there all at once."""
    spots = spot(x)
    at = rng.choice(spots)
    return pool(
        rng,
        f"{noun.a} appears {spots[0]}",
        [
            f"{noun.a} suddenly appears {at}",
            f"{noun.a} pops up {at}",
            f"{noun.a} shows up {where.at}",
            f"suddenly there is {noun.a} {at}",
        ],
    )


def disappear(rng: random.Random, noun: Noun, where: Where) -> tuple[str, ...]:
    """It is gone all at once."""
    others = ["is gone", "vanishes", "suddenly disappears", f"is no longer {where.at}"]
    return pool(rng, f"{noun.the} disappears", [f"{noun.the} {o}" for o in others])


def spin(rng: random.Random, noun: Noun) -> tuple[str, ...]:
    """It turns round and round."""
    others = ["turns round and round", "spins", "rotates", "turns around and around"]
    return pool(rng, f"{noun.the} spins around", [f"{noun.the} {o}" for o in others])


def flip(rng: random.Random, noun: Noun, over: bool) -> tuple[str, ...]:
    """It turns upside down, or upright again."""
    if over:
        others = ["is upside down", "flips upside down", "stands on its head", "rolls over onto its head"]
        return pool(rng, f"{noun.the} turns upside down", [f"{noun.the} {o}" for o in others])
    others = ["is upright again", "flips back", "turns back upright", "is the right way up again"]
    return pool(rng, f"{noun.the} turns upright again", [f"{noun.the} {o}" for o in others])


def both_enter(rng: random.Random, one: Noun, two: Noun, side: str, where: Where) -> tuple[str, ...]:
    """Two things come in together from `side`."""
    pair = f"{one.a} and {two.a}"
    return pool(
        rng,
        f"{pair} come in from the {side}",
        [
            f"{pair} enter from the {side}",
            f"{two.a} and {one.a} come in from the {side}",
            f"{pair} move into {where.the} from the {side}",
            f"{pair} arrive together from the {side}",
        ],
    )


def both_stay(rng: random.Random, left: Noun, right: Noun, where: Where) -> tuple[str, ...]:
    """Two things keep their places."""
    return pool(
        rng,
        f"{left.the} is on the left and {right.the} is on the right",
        [
            f"{left.the} and {right.the} are side by side",
            f"{left.a} and {right.a} are {where.at}",
            f"{left.the} stays next to {right.the}",
            f"{right.the} is to the right of {left.the}",
        ],
    )


def both_leave(rng: random.Random, one: Noun, two: Noun, side: str) -> tuple[str, ...]:
    """Two things go out together at `side`."""
    pair = f"{one.the} and {two.the}"
    others = [f"{pair} leave on the {side}", f"{pair} move away to the {side}", f"both of them leave on the {side}"]
    return pool(rng, f"{pair} go off to the {side}", others)


def join(rng: random.Random, noun: Noun, other: Noun, side: str, fast: bool) -> tuple[str, ...]:
    """A second thing comes in from `side` and stops beside the first."""
    go = _go(noun, fast)
    verb, alike = third(go[0]), third(rng.choice(go))
    return pool(
        rng,
        f"{noun.a} {verb} in from the {side} towards {other.the}",
        [
            f"{noun.a} {alike} in from the {side} and joins {other.the}",
            f"{noun.a} comes from the {side} to {other.the}",
            f"from the {side}, {noun.a} joins {other.the}",
            f"{noun.a} {alike} up to {other.the} from the {side}",
        ],
    )


def overtake(rng: random.Random, noun: Noun, other: Noun, side: str, fast: bool) -> tuple[str, ...]:
    """A second thing goes through the picture past the first, which stays."""
    go = _go(noun, fast)
    verb, alike, end = third(go[0]), third(rng.choice(go)), SIDES[side]
    return pool(
        rng,
        f"{noun.a} {verb} past {other.the} from {side} to {end}",
        [
            f"{noun.a} {alike} by {other.the} towards the {end}",
            f"{noun.a} passes {other.the} from {side} to {end}",
            f"{noun.a} {alike} past {other.the} to the {end}",
        ],
    )


def nothing(rng: random.Random, where: Where) -> tuple[str, ...]:
    """Nobody and nothing is there."""
    return pool(
        rng,
        f"{where.the} is empty",
        [
            f"nothing happens {where.at}",
            f"nobody is {where.at}",
            f"there is nothing to see but {where.the}",
            f"nothing moves {where.at}",
        ],
    )


def change(rng: random.Random, where: Where) -> tuple[str, ...]:
    """Another place is shown."""
    return pool(
        rng,
        f"the scene changes to {where.a}",
        [f"now we see {where.a}", f"the picture changes to {where.a}", f"cut to {where.a}", f"now the camera shows {where.a}"],
    )


def light(rng: random.Random, where: Where, dark: bool) -> tuple[str, ...]:
    """The lights go out, or on again."""
    if dark:
        others = ["the lights go out", f"it gets dark {where.at}", "the picture goes dark", "the light fades"]
        return pool(rng, "it gets dark", others)
    others = ["the lights come back on", f"it gets light again {where.at}", "the light returns", "the picture is bright again"]
    return pool(rng, "it gets bright again", others)


def shake(rng: random.Random) -> tuple[str, ...]:
    """The camera shakes."""
    return pool(rng, "the camera shakes", ["the picture shakes", "the camera trembles", "the view is shaking"])


def turn(rng: random.Random, side: str, where: Where) -> tuple[str, ...]:
    """The camera pans to `side`."""
    return pool(
        rng,
        f"the camera pans to the {side}",
        [
            f"the camera turns to the {side}",
            f"the view moves to the {side}",
            f"the camera looks around {where.the} to the {side}",
        ],
    )
