"""One training at a time in a run's folder."""

from __future__ import annotations

import contextlib
import fcntl
from typing import TYPE_CHECKING

from livestar.errors import InvalidConfig, LiveStarError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
"""File in a run's folder that its training holds; it stays there, and means nothing when nobody holds it."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run's folder, which is made where it is missing; given back at the end, and by the system when the process dies.

    Raises `InvalidConfig` where another training holds it, `LiveStarError` where the folder cannot be used.  A file system that
    has no locks goes without.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / LOCK).open("a"))
        except OSError as error:
            raise LiveStarError(f"{folder} cannot be used for a run ({error.strerror}); choose another run.output") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidConfig(
                f"another training is going on in {folder}; wait for its end or stop it, or choose another run.output"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
