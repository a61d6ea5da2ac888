"""Scripted streams: who does what, where and when, with captions and exact times.  Endless, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from livestar.annotations.types import Event
from training.mini import grammar
from training.mini.catalogue import COLOURS, Catalogue, Facing, Picture, Place, Split, Thing
from training.mini.grammar import Noun

Track = tuple[tuple[float, float], ...]
"""Keys (time in seconds, value) of a quantity that is linear between them and constant outside."""
Steps = tuple[tuple[float, bool], ...]
"""Times in seconds, in order, from which on something is so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A thing on the stage.  Positions are those of its centre, in widths and heights of the frame from the upper left."""

    thing: Thing
    picture: Picture
    colour: str | None
    x: Track
    y: Track
    scale: Track
    """Its longer side, in frame sides."""
    angle: Track
    """Degrees, anticlockwise."""
    visible: Steps
    rightward: Steps
    """Whether it faces right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A place from `begin_s` until the next shot."""

    begin_s: float
    place: Place
    pan: Track
    """Direction of the view: turns in a panorama; elsewhere from 0, the left end of the picture, to 1."""
    height: Track
    """Height of the view, in heights of the picture (or widths, whichever is shorter)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How the whole stream was filmed."""

    noise: float = 0.0
    """Standard deviation of the noise, of 255."""
    quality: int = 0
    """JPEG quality that the frames pass through once; 0 for none."""
    gain: float = 1.0
    flicker: float = 0.0
    tilt: float = 0.0
    """Degrees by which everybody leans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A stream before it is drawn."""

    seed: int
    split: Split
    duration_s: float
    events: tuple[Event, ...]
    actors: tuple[Actor, ...]
    shots: tuple[Shot, ...]
    light: Track
    shakes: tuple[tuple[float, float], ...]
    """Stretches of time in which the camera shakes, in seconds."""
    style: Style


def at(track: Track, t: float) -> float:
    """Value of a track at `t` seconds."""
    before = track[0]
    if t <= before[0]:
        return before[1]
    for key in track[1:]:
        if t < key[0]:
            return before[1] + (key[1] - before[1]) * (t - before[0]) / (key[0] - before[0])
        before = key
    return before[1]


def holds(steps: Steps, t: float) -> bool:
    """Value of steps at `t` seconds; False before the first."""
    value = False
    for since, so in steps:
        if since <= t:
            value = so
    return value


PLAIN_THINGS = frozenset(
    (
        "elephant", "zebra", "tiger", "flamingo", "peacock", "turtle", "ladybug", "crab", "lobster", "parrot", "butterfly",
        "rabbit", "airplane", "helicopter", "rocket", "whale", "bus", "fire truck", "tractor", "taxi", "train", "bicycle",
        "sailboat", "basketball", "baseball", "strawberry", "banana", "pineapple", "hamburger", "umbrella", "sofa", "television",
        "guitar", "drum", "sunflower", "snowman",
    )
)  # fmt: skip
"""Things that look like no other thing, from any of their pictures."""
PLAIN_PLANS = frozenset(
    (
        "enter", "cross", "appear", "nothing", "stay", "leave", "disappear", "move", "join", "both leave", "cut", "dark",
        "bright",
    )
)  # fmt: skip
"""What can be told at a glance."""


def write(seed: int, split: Split, catalogue: Catalogue, *, calm: float = 1.0, plain: bool = False) -> Script:
    """The script of stream number `seed` of `split`: 16 to 28 s, 4 to about 9 events that follow on one another without
    a gap.  With `calm` everything lasts that many times longer, as in rooms where little happens.
    With `plain` there are only `PLAIN_THINGS`, larger, and only `PLAIN_PLANS`."""
    return _Writer(random.Random(f"livestar-mini {split} {seed}"), split, catalogue, calm, plain).write(seed)


@dataclass(slots=True)
class _Role:
    """An actor while the script is being written."""

    thing: Thing
    picture: Picture
    colour: str | None
    x: list[tuple[float, float]]
    y: list[tuple[float, float]]
    scale: list[tuple[float, float]]
    since: float
    side: Facing
    angle: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])
    visible: list[tuple[float, bool]] = field(default_factory=list)
    rightward: list[tuple[float, bool]] = field(default_factory=list)
    named: bool = False
    over: bool = False

    @property
    def noun(self) -> Noun:
        return self.thing.noun(self.colour)

    def go(self, track: list[tuple[float, float]], begin: float, end: float, value: float) -> None:
        track += [(begin, track[-1][1]), (end, value)]

    def face(self, side: Facing, since: float) -> None:
        self.side = side
        self.rightward.append((since, side == "right"))


Plan = Callable[[], tuple[str, ...]]


class _Writer:
    def __init__(self, rng: random.Random, split: Split, catalogue: Catalogue, calm: float, plain: bool) -> None:
        self.rng, self.split, self.calm, self.plain = rng, split, calm, plain
        self.things, self.places = catalogue.things_of(split), catalogue.places_of(split)
        if plain:
            self.things = tuple(thing for thing in self.things if thing.name in PLAIN_THINGS)
        self.t, self.end = 0.0, 0.0
        self.stage: list[_Role] = []
        self.cast: list[_Role] = []
        self.shots: list[tuple[float, Place, list[tuple[float, float]], list[tuple[float, float]]]] = []
        self.light: list[tuple[float, float]] = [(0.0, 1.0)]
        self.shakes: list[tuple[float, float]] = []
        self.events: list[Event] = []
        self.last = ""

    # -- the whole stream

    def write(self, seed: int) -> Script:
        rng = self.rng
        target = rng.uniform(16.0, 24.5) * self.calm
        self.cut_to(rng.choice(self.places))
        if rng.random() < 0.45:
            self.bring(x=rng.uniform(0.25, 0.75), visible=True)
        while self.t < 16.0 * self.calm or (self.t < target - 1.5 * self.calm and len(self.events) < 9):
            self.next_event()
        return Script(
            seed=seed,
            split=self.split,
            duration_s=self.t,
            events=tuple(self.events),
            actors=tuple(self.freeze(role) for role in self.cast),
            shots=tuple(
                Shot(begin_s=begin, place=place, pan=self.drifting(pan), height=self.drifting(height))
                for begin, place, pan, height in self.shots
            ),
            light=tuple(self.light),
            shakes=tuple(self.shakes),
            style=self.style(),
        )

    def drifting(self, track: list[tuple[float, float]]) -> Track:
        if len(track) == 1 and self.rng.random() < 0.4:
            value = track[0][1]
            return (track[0], (self.t, value * self.rng.uniform(0.93, 1.07)))
        return tuple(track)

    def style(self) -> Style:
        rng = self.rng
        return Style(
            noise=rng.choice((0.0, 0.0, rng.uniform(2, 10))),
            quality=rng.choice((0, 0, 0, rng.randint(18, 45))),
            gain=rng.uniform(0.8, 1.15),
            flicker=rng.choice((0.0, 0.0, rng.uniform(0.01, 0.04))),
            tilt=rng.uniform(-6, 6),
        )

    def freeze(self, role: _Role) -> Actor:
        return Actor(
            thing=role.thing,
            picture=role.picture,
            colour=role.colour,
            x=tuple(role.x),
            y=tuple(role.y),
            scale=tuple(role.scale),
            angle=tuple(role.angle),
            visible=tuple(role.visible),
            rightward=tuple(role.rightward),
        )

    # -- choosing what comes next

    def next_event(self) -> None:
        plans = self.plans()
        if self.plain:
            plans = {name: plan for name, plan in plans.items() if name in PLAIN_PLANS}
        while True:
            names = list(plans)
            name = self.rng.choices(names, [plans[name][0] for name in names])[0]
            _, low, high, plan = plans[name]
            if name != self.last or len(plans) == 1:
                break
            plans.pop(name)
        duration = round(self.rng.uniform(low, high) * self.calm, 2)
        self.end = round(self.t + duration, 2)
        captions = plan()
        self.events.append(Event(begin_s=self.t, end_s=self.end, captions=captions))
        self.t, self.last = self.end, name

    def plans(self) -> dict[str, tuple[float, float, float, Plan]]:
        """What may come next: name -> weight, shortest and longest duration in seconds, and how to do it."""
        if self.light[-1][1] < 1:
            return {"bright": (1, 1.5, 2.5, self.brighten)}
        everywhere: dict[str, tuple[float, float, float, Plan]] = {
            "shake": (0.25, 1.5, 2.5, self.shake),
            "cut": (0.9 if self.events else 0.0, 1.5, 3.0, self.cut),
            "dark": (0.35 if self.events else 0.0, 1.5, 3.0, self.darken),
        }
        if not self.stage:
            plans = {
                "enter": (5, 1.5, 3.0, self.enter),
                "cross": (3, 2.5, 4.5, self.cross),
                "appear": (2, 1.5, 3.0, self.appear),
                "both enter": (1.5, 2.0, 3.5, self.both_enter),
            }
            if self.last not in ("nothing", "cut"):
                plans["nothing"] = (1.2, 1.5, 4.0, self.nothing)
            if self.place.kind == "pano":
                plans["turn"] = (0.9, 1.5, 3.5, self.turn)
            return plans | everywhere
        if not self.events:
            return {"stay": (1, 2.0, 4.0, self.stay)}
        role = self.rng.choice(self.stage)
        if role.over:
            return {"upright": (1, 1.5, 2.5, lambda: self.flip(role)), "leave": (0.3, 1.5, 3.0, lambda: self.leave(role))}
        plans = {
            "leave": (2.5, 1.5, 3.0, lambda: self.leave(role)),
            "disappear": (0.9, 1.5, 2.5, lambda: self.disappear(role)),
            "spin": (0.9, 1.5, 3.5, lambda: self.spin(role)),
        }
        if self.last not in ("stay", "both stay"):
            plans["stay"] = (3.5, 2.0, 5.0, self.stay)
        if len(self.stage) == 2:
            plans["both leave"] = (0.8, 1.5, 3.0, self.both_leave)
            return plans | everywhere
        lofty = role.thing.kind in ("flier", "aircraft", "swimmer", "balloon", "ball")
        if role.scale[-1][1] < 0.4:
            plans["grow"] = (1.3, 1.5, 3.5, lambda: self.resize(role, bigger=True))
        if role.scale[-1][1] > 0.26:
            plans["shrink"] = (1.3, 1.5, 3.5, lambda: self.resize(role, bigger=False))
        plans |= {
            "move": (3, 1.5, 3.5, lambda: self.move(role)),
            "lift": (1.8 if lofty else 0.7, 1.5, 3.0, lambda: self.lift(role)),
            "turn over": (0.7, 1.5, 2.5, lambda: self.flip(role)),
            "join": (2, 1.5, 3.0, lambda: self.join(role)),
            "pass": (1.2, 2.0, 4.0, lambda: self.overtake(role)),
        }
        return plans | everywhere

    # -- helpers

    @property
    def place(self) -> Place:
        return self.shots[-1][1]

    def bring(self, *, x: float, visible: bool) -> _Role:
        """A new role, on the stage at once or standing off."""
        rng = self.rng
        names = {role.thing.name for role in self.stage}
        thing = rng.choice([thing for thing in self.things if thing.name not in names])
        scale = rng.uniform(*((0.38, 0.6) if self.plain else (0.25, 0.48))) * (0.8 if self.stage else 1.0)
        high = thing.kind in ("flier", "aircraft", "swimmer", "balloon")
        y = rng.uniform(0.3, 0.55) if high else min(rng.uniform(0.52, 0.75), 1.0 - scale / 2)
        role = _Role(
            thing=thing,
            picture=rng.choice(thing.pictures_of(self.split)),
            colour=rng.choice(list(COLOURS)) if thing.tint and rng.random() < 0.6 else None,
            x=[(self.t, x)],
            y=[(self.t, y)],
            scale=[(self.t, scale)],
            since=self.t,
            side="left",
        )
        role.visible.append((self.t, True))
        role.face(rng.choice(("left", "right")), self.t)
        self.cast.append(role)
        if visible:
            self.stage.append(role)
        return role

    def off(self, role: _Role, side: str) -> float:
        """Where it is just out of the picture."""
        reach = role.scale[-1][1] / 2 + 0.02
        return -reach if side == "left" else 1 + reach

    def travel(self, role: _Role, x: float) -> bool:
        """It goes to `x` during this event; whether that is fast."""
        begin = role.x[-1][1]
        role.face("right" if x > begin else "left", self.t)
        role.go(role.x, self.t, self.end, x)
        if role.thing.kind in ("ball", "fruit"):
            turns = -(x - begin) / (3.14 * role.scale[-1][1]) * 360
            role.go(role.angle, self.t, self.end, role.angle[-1][1] + turns)
        return abs(x - begin) / (self.end - self.t) > 0.36

    def side(self) -> Facing:
        return self.rng.choice(("left", "right"))

    def exit(self, role: _Role) -> None:
        role.visible.append((self.end, False))
        self.stage.remove(role)

    # -- one method per event: it moves the actors and gives the captions

    def enter(self) -> tuple[str, ...]:
        side = self.side()
        role = self.bring(x=0.0, visible=True)
        role.x[0] = (self.t, self.off(role, side))
        fast = self.travel(role, self.rng.uniform(0.3, 0.7))
        role.named = True
        return grammar.enter(self.rng, role.noun, side, fast, self.place.where)

    def cross(self) -> tuple[str, ...]:
        side = self.side()
        role = self.bring(x=0.0, visible=True)
        role.x[0] = (self.t, self.off(role, side))
        fast = self.travel(role, self.off(role, grammar.SIDES[side]))
        self.exit(role)
        return grammar.cross(self.rng, role.noun, side, fast, self.place.where)

    def both_enter(self) -> tuple[str, ...]:
        side = self.side()
        one, two = self.bring(x=0.0, visible=True), self.bring(x=0.0, visible=True)
        near, far = (0.29, 0.71) if side == "left" else (0.71, 0.29)
        sign = 1 if side == "right" else -1
        for role, target, lag in ((one, far, 0.0), (two, near, 0.42)):
            role.scale[0] = (self.t, min(role.scale[0][1], 0.38))
            role.x[0] = (self.t, self.off(role, side) + sign * lag)
            self.travel(role, target)
            role.named = True
        return grammar.both_enter(self.rng, one.noun, two.noun, side, self.place.where)

    def join(self, other: _Role) -> tuple[str, ...]:
        x = other.x[-1][1]
        side: Facing = "right" if x < 0.5 else "left"
        role = self.bring(x=0.0, visible=True)
        role.scale[0] = (self.t, min(role.scale[0][1], 0.36))
        role.x[0] = (self.t, self.off(role, side))
        gap = 0.36 if side == "right" else -0.36
        fast = self.travel(role, min(0.86, max(0.14, x + gap)))
        role.named = other.named = True
        return grammar.join(self.rng, role.noun, other.noun, side, fast)

    def overtake(self, other: _Role) -> tuple[str, ...]:
        side = self.side()
        role = self.bring(x=0.0, visible=True)
        role.x[0] = (self.t, self.off(role, side))
        fast = self.travel(role, self.off(role, grammar.SIDES[side]))
        self.exit(role)
        other.named = True
        return grammar.overtake(self.rng, role.noun, other.noun, side, fast)

    def leave(self, role: _Role) -> tuple[str, ...]:
        side: Facing = self.side() if len(self.stage) == 1 else ("left" if self.is_left(role) else "right")
        fast = self.travel(role, self.off(role, side))
        self.exit(role)
        return grammar.leave(self.rng, role.noun, side, fast)

    def is_left(self, role: _Role) -> bool:
        return role.x[-1][1] <= min(other.x[-1][1] for other in self.stage)

    def both_leave(self) -> tuple[str, ...]:
        side = self.side()
        one, two = sorted(self.stage, key=lambda role: role.x[-1][1])
        step = 1 + max(role.scale[-1][1] for role in self.stage)
        for role in (one, two):
            self.travel(role, role.x[-1][1] + (step if side == "right" else -step))
            self.exit(role)
        return grammar.both_leave(self.rng, one.noun, two.noun, side)

    def stay(self) -> tuple[str, ...]:
        if len(self.stage) == 2:
            one, two = sorted(self.stage, key=lambda role: role.x[-1][1])
            one.named = two.named = True
            return grammar.both_stay(self.rng, one.noun, two.noun, self.place.where)
        role = self.stage[0]
        new, role.named = not role.named, True
        with_place = new or self.rng.random() < 0.3
        return grammar.stay(self.rng, role.noun, role.x[-1][1], self.place.where, new=new, with_place=with_place)

    def move(self, role: _Role) -> tuple[str, ...]:
        x, far = role.x[-1][1], self.rng.uniform(0.28, 0.5)
        side: Facing = "right" if x < 0.4 or (x < 0.6 and self.rng.random() < 0.5) else "left"
        fast = self.travel(role, min(0.85, x + far) if side == "right" else max(0.15, x - far))
        role.named = True
        return grammar.move(self.rng, role.noun, side, fast)

    def lift(self, role: _Role) -> tuple[str, ...]:
        y = role.y[-1][1]
        up = y > 0.5
        role.go(role.y, self.t, self.end, self.rng.uniform(0.15, 0.27) if up else self.rng.uniform(0.68, 0.8))
        role.named = True
        return grammar.move(self.rng, role.noun, "up" if up else "down", fast=False)

    def resize(self, role: _Role, *, bigger: bool) -> tuple[str, ...]:
        scale = role.scale[-1][1]
        target = min(0.72, scale * self.rng.uniform(1.7, 2.2)) if bigger else max(0.13, scale / self.rng.uniform(1.7, 2.3))
        role.go(role.scale, self.t, self.end, target)
        role.named = True
        return grammar.size(self.rng, role.noun, bigger)

    def appear(self) -> tuple[str, ...]:
        x = self.rng.uniform(0.22, 0.78)
        role = self.bring(x=x, visible=True)
        role.named = True
        return grammar.appear(self.rng, role.noun, x, self.place.where)

    def disappear(self, role: _Role) -> tuple[str, ...]:
        role.visible.append((self.t, False))
        self.stage.remove(role)
        return grammar.disappear(self.rng, role.noun, self.place.where)

    def spin(self, role: _Role) -> tuple[str, ...]:
        turn = 360 * max(1, round((self.end - self.t) / 2)) * self.rng.choice((-1, 1))
        role.go(role.angle, self.t, self.end, role.angle[-1][1] + turn)
        role.named = True
        return grammar.spin(self.rng, role.noun)

    def flip(self, role: _Role) -> tuple[str, ...]:
        role.over = not role.over
        role.go(role.angle, self.t, self.t + 0.7, role.angle[-1][1] + 180)
        role.named = True
        return grammar.flip(self.rng, role.noun, role.over)

    def nothing(self) -> tuple[str, ...]:
        return grammar.nothing(self.rng, self.place.where)

    def darken(self) -> tuple[str, ...]:
        self.light += [(self.t, 1.0), (self.t + 0.8, self.rng.uniform(0.18, 0.32))]
        return grammar.light(self.rng, self.place.where, dark=True)

    def brighten(self) -> tuple[str, ...]:
        self.light += [(self.t, self.light[-1][1]), (self.t + 0.8, 1.0)]
        return grammar.light(self.rng, self.place.where, dark=False)

    def shake(self) -> tuple[str, ...]:
        self.shakes.append((self.t, self.end))
        return grammar.shake(self.rng)

    def turn(self) -> tuple[str, ...]:
        side = self.side()
        pan = self.shots[-1][2]
        far = self.rng.uniform(0.06, 0.1) * (self.end - self.t)
        pan += [(self.t, pan[-1][1]), (self.end, pan[-1][1] + (far if side == "right" else -far))]
        return grammar.turn(self.rng, side, self.place.where)

    def cut(self) -> tuple[str, ...]:
        others = [place for place in self.places if place.where.a != self.place.where.a]
        for role in self.stage:
            role.visible.append((self.t, False))
        self.stage.clear()
        self.cut_to(self.rng.choice(others))
        return grammar.change(self.rng, self.place.where)

    def cut_to(self, place: Place) -> None:
        if place.kind == "pano":
            pan, height = self.rng.random(), self.rng.uniform(0.5, 0.62)
        else:
            pan, height = self.rng.random(), self.rng.uniform(0.75, 1.0)
        self.shots.append((self.t, place, [(self.t, pan)], [(self.t, height)]))
