"""What the scripted streams are made of: the things and places of `things.toml` and `places.toml`, by split."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, get_args

from livestar.errors import InvalidRequest
from training.mini.grammar import VERBS, Noun, Where

Split = Literal["train", "heldout", "unseen"]
"""`heldout`: other pictures of the same things in other places; `unseen`: things that training never shows, in those places."""
SPLITS: tuple[Split, ...] = get_args(Split)

Facing = Literal["left", "right"]
COLOURS: dict[str, int] = {"red": 0, "yellow": 38, "green": 85, "blue": 152, "purple": 195}
"""Names of the colours that things come in, and their hue of 256."""
_EMOJI = {
    "fluent": ("fluent", "{}.webp"),
    "noto": ("noto", "{}"),
    "twemoji": ("twemoji", "{}.png"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A cut-out picture of a thing."""

    source: str
    """Name of the item in `sources.toml`."""
    file: str
    """File in that item's folder; for a font, the code points of the character, in hexadecimal and joined by "-"."""
    facing: Facing
    heldout: bool

    @property
    def name(self) -> str:
        """Unique among all pictures."""
        return f"{self.source}/{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A thing that moves through the streams."""

    name: str
    kind: str
    pictures: tuple[Picture, ...]
    tint: bool = False
    unseen: bool = False

    def noun(self, colour: str | None = None) -> Noun:
        """What captions call it, in a colour if there is one."""
        return Noun(name=f"{colour} {self.name}" if colour else self.name, kind=self.kind)

    def pictures_of(self, split: Split) -> tuple[Picture, ...]:
        """Its pictures that may be shown in `split`; empty where there are none."""
        if self.unseen or split == "unseen":
            return self.pictures if self.unseen and split == "unseen" else ()
        return tuple(picture for picture in self.pictures if picture.heldout == (split == "heldout"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A background."""

    source: str
    file: str
    kind: Literal["pano", "photo", "clip"]
    where: Where
    heldout: bool

    @property
    def name(self) -> str:
        """Unique among all places."""
        return f"{self.source}/{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All things and places."""

    things: tuple[Thing, ...]
    places: tuple[Place, ...]

    def things_of(self, split: Split) -> tuple[Thing, ...]:
        """The things that have a picture in `split`."""
        return tuple(thing for thing in self.things if thing.pictures_of(split))

    def places_of(self, split: Split) -> tuple[Place, ...]:
        """The places of `split`."""
        return tuple(place for place in self.places if place.heldout == (split != "train"))


@functools.cache
def load() -> Catalogue:
    """The catalogue that ships with the project.

    Raises:
        InvalidRequest: a kind, a thing or a key that does not exist.
    """
    folder = resources.files("training.mini")
    things = tomllib.loads((folder / "things.toml").read_text("utf-8"))
    places = tomllib.loads((folder / "places.toml").read_text("utf-8"))
    return parse(things, places)


def parse(things: dict[str, Any], places: dict[str, Any]) -> Catalogue:
    """A catalogue from the content of the two files."""
    clipart: dict[str, list[Picture]] = {}
    for entry in things.pop("clipart", []):
        picture = Picture(
            source="openclipart",
            file=entry["file"],
            facing=entry.get("facing", "left"),
            heldout=entry.get("heldout", False),
        )
        clipart.setdefault(entry["thing"], []).append(picture)
    found = []
    for kind, entries in things.items():
        if kind not in VERBS:
            raise InvalidRequest(f"things.toml: nothing moves like {kind!r}; the kinds are {', '.join(VERBS)}")
        for key, entry in entries.items():
            pictures = (*_emoji(entry), *clipart.pop(key, ()))
            found.append(
                Thing(
                    name=entry.get("name", key.replace("-", " ")),
                    kind=kind,
                    pictures=pictures,
                    tint=entry.get("tint", False),
                    unseen=entry.get("unseen", False),
                )
            )
    if clipart:
        raise InvalidRequest(f"things.toml: clip art of a thing that is not there: {', '.join(clipart)}")
    return Catalogue(things=tuple(found), places=tuple(map(_place, places["place"])))


def _emoji(entry: dict[str, Any]) -> list[Picture]:
    codes = [entry["code"]] if isinstance(entry["code"], str) else entry["code"]
    facings = entry.get("facing", {})
    return [
        Picture(
            source=source,
            file=pattern.format(code),
            facing=facings.get(source, "left"),
            heldout=entry.get("heldout") == source,
        )
        for source, pattern in _EMOJI.values()
        for code in codes
        if source not in entry.get("without", ())
    ]


def _place(entry: dict[str, Any]) -> Place:
    source, file = entry["file"].split("/", 1)
    return Place(
        source=source,
        file=file,
        kind=entry["kind"],
        where=Where(a=entry["a"], at=entry["at"]),
        heldout=entry.get("heldout", False),
    )
