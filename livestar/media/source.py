"""What a source string means, and how to name a source without giving away its passwords."""

from __future__ import annotations

import re
import stat
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from livestar.errors import SourceNotFound, SourceUnreadable

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
WEB_SCHEMES = ("http", "https", "hls", "hls+http", "hls+https")
ACCEPTED_FORMS = (
    "a video file, a picture, a folder of pictures (png, jpg, webp, bmp), or a URL that starts with "
    "http, https, rtsp, rtmp, rtmps, srt, udp or file"
)
MAX_ID_CHARS = 48

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*)://")


class SourceKind(StrEnum):
    """How a source is read."""

    PICTURES = "pictures"
    FILE = "file"
    URL = "url"


@dataclass(frozen=True, slots=True)
class Source:
    """A source string, understood."""

    kind: SourceKind
    location: str
    """Path, or the URL as the demuxer takes it.  May hold credentials: never show it."""
    name: str
    """The source as it may be shown to a person."""
    format: str | None = None
    """Container format that the scheme demands; None leaves it to be found out."""


def display_name(uri: str) -> str:
    """The source without user names, passwords and values of a query: fit for messages and logs."""
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return uri
    rest = _hide_user(uri[scheme.end() :]).partition("#")[0]
    path, question, query = rest.partition("?")
    hidden = "&".join(f"{item.partition('=')[0]}=***" if "=" in item else "***" for item in query.split("&") if item)
    return scheme.group() + path + (question + hidden if hidden else "")


def classify(uri: str) -> Source:
    """Say what a source string is.

    Raises `SourceNotFound` where nothing is there, and `SourceUnreadable` for a path that is no file or folder.
    """
    name = display_name(uri)
    scheme = _SCHEME.match(uri)
    if scheme is not None and scheme.group(1).lower() == "file":
        return _classify_path(Path(_file_url_path(uri, name)), name)
    if scheme is not None:
        return _classify_url(scheme.group(1).lower(), uri[scheme.end() :], name)
    return _classify_path(Path(uri), name)


def stream_id_for(uri: str, taken: Container[str]) -> str:
    """A short readable id from the file's or folder's name or the URL's host and path, made unique with -2, -3."""
    scheme = _SCHEME.match(uri)
    if scheme is None or scheme.group(1).lower() == "file":
        path = Path(unquote(uri[scheme.end() :]) if scheme else uri)
        words = path.name if stat.S_ISDIR(_mode(path)) else path.stem
    else:
        host_and_path = display_name(uri)[scheme.end() :].partition("?")[0].rpartition("***@")[2]
        words = re.sub(r"\.[A-Za-z0-9]{2,4}$", "", host_and_path) if "/" in host_and_path else host_and_path
    base = re.sub(r"[^a-z0-9._]+", "-", words.lower())[:MAX_ID_CHARS].strip("-._") or "stream"
    stream_id, number = base, 1
    while stream_id in taken:
        number += 1
        stream_id = f"{base}-{number}"
    return stream_id


def list_pictures(location: str) -> list[Path]:
    """The pictures of a folder, 2.png before 10.png; or the one picture that `location` is."""
    path = Path(location)
    if path.is_file():
        return [path]
    pictures = (entry for entry in path.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file())
    return sorted(pictures, key=lambda entry: _natural_key(entry.name))


def _hide_user(rest: str) -> str:
    """What follows the scheme, with `***` for the user and the password."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    end = 0
    if "@" in authority:
        end = re.split(r"[?#]", rest, maxsplit=1)[0].rindex("@") + 1
    elif re.search(r":(?!\d*$)", authority) and not authority.startswith("["):
        # No port looks like this: it is a password with an unescaped slash or question mark.
        end = rest.rfind("@") + 1
    return f"***@{rest[end:]}" if end > 1 else rest


def _natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Digits compare as numbers; numbers come before words."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.lower())
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name


def _mode(path: Path) -> int:
    """Type and permissions; 0 where there is nothing, or the name is one that nothing can have."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _file_url_path(uri: str, name: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise SourceNotFound(f"{name} is no address that can be read; write file:///path") from error
    if parts.netloc not in ("", "localhost"):
        raise SourceNotFound(f"{name} is on another machine; write file:///path for a file of this one")
    return unquote(parts.path)


def _classify_path(path: Path, name: str) -> Source:
    mode = _mode(path) if name else 0
    if mode == 0:
        raise SourceNotFound(f"there is no file or folder {name!r}; give {ACCEPTED_FORMS}")
    if stat.S_ISDIR(mode):
        return Source(SourceKind.PICTURES, str(path), name)
    if not stat.S_ISREG(mode):
        raise SourceUnreadable(f"{name} is neither a file nor a folder; give {ACCEPTED_FORMS}")
    kind = SourceKind.PICTURES if path.suffix.lower() in PICTURE_SUFFIXES else SourceKind.FILE
    return Source(kind, str(path), name)


def _classify_url(scheme: str, rest: str, name: str) -> Source:
    if scheme not in LIVE_SCHEMES + WEB_SCHEMES:
        raise SourceNotFound(f"{name} has the scheme {scheme!r}, which is not known here; give {ACCEPTED_FORMS}")
    if not rest.strip("/"):
        raise SourceNotFound(f"{name} names no host; write it as {scheme}://host/path")
    if scheme.startswith("hls"):
        carrier = scheme.partition("+")[2] or "http"
        return Source(SourceKind.URL, f"{carrier}://{rest}", name, format="hls")
    return Source(SourceKind.URL, f"{scheme}://{rest}", name)
