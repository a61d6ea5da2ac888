"""Where the model lies that comes with LiveStar, and which directory a name of a model means."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from livestar.errors import InvalidConfig

MINI_NAME = "livestar-mini"
"""What the packaged model is called, wherever a model's directory is asked for."""


def mini_directory() -> Path:
    """The packaged model's directory.  Raises `InvalidConfig` where this installation has none."""
    directory = Path(str(resources.files("livestar"))) / "assets" / MINI_NAME
    if not (directory / "config.json").is_file():
        raise InvalidConfig(f"{MINI_NAME} is not in this installation ({directory}); install livestar again, or give --model DIR")
    return directory


def model_directory(name: Path | None) -> Path:
    """The directory that `name` means: itself, or the packaged model's for none and for its name, where no such path exists.

    Raises `InvalidConfig` as `mini_directory` does.
    """
    return mini_directory() if name is None or (name == Path(MINI_NAME) and not name.exists()) else name
