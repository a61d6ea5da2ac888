"""The list of packages that the footage comes from, `sources.toml`."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, get_args

from livestar.errors import InvalidRequest

Registry = Literal["pypi", "npm", "debian"]
Use = Literal["train", "heldout", "test-only"]

OPEN_LICENCES = ("public domain", "CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "MIT", "BSD-3-Clause", "Apache-2.0")
"""Licences of what shipped weights may learn from: all let the weights be under Apache-2.0, some ask to name the author."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A package of a registry, and the files that are taken from it."""

    name: str
    registry: Registry
    package: str
    version: str
    file: str
    """Name of the package's file."""
    sha256: str
    base: str
    """Folder in the package that holds the files."""
    keep: tuple[str, ...]
    """Patterns of the files to take, below `base`."""
    licence: str
    attribution: str
    use: Use
    options: tuple[str, ...] = ()
    """For the registry's client."""


@functools.cache
def load() -> dict[str, Source]:
    """The list that ships with the project, by name."""
    return parse(tomllib.loads((resources.files("training.mini") / "sources.toml").read_text("utf-8")))


def parse(entries: dict[str, dict[str, Any]]) -> dict[str, Source]:
    """Sources from the content of a `sources.toml`.

    Raises:
        InvalidRequest: a key is missing or unknown, or training is to use something under a licence that does not allow it.
    """
    sources = {}
    for name, entry in entries.items():
        try:
            source = Source(
                name=name,
                keep=tuple(entry.pop("keep")),
                options=tuple(entry.pop("options", ())),
                **entry,
            )
        except (KeyError, TypeError) as error:
            raise InvalidRequest(f"sources.toml: [{name}]: {error}") from error
        if source.registry not in get_args(Registry) or source.use not in get_args(Use):
            raise InvalidRequest(f"sources.toml: [{name}]: unknown registry {source.registry!r} or use {source.use!r}")
        if source.use == "train" and source.licence not in OPEN_LICENCES:
            raise InvalidRequest(f"sources.toml: [{name}]: no weights that ship may learn from {source.licence!r}")
        sources[name] = source
    return sources
