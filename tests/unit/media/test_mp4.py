"""The outline of MP4 files."""

from __future__ import annotations

from pathlib import Path

import pytest

from livestar.media.mp4 import is_cut_off

pytestmark = pytest.mark.unit


def box(kind: bytes, length: int) -> bytes:
    return (8 + length).to_bytes(4, "big") + kind + bytes(length)


def long_box(kind: bytes, length: int) -> bytes:
    return (1).to_bytes(4, "big") + kind + (16 + length).to_bytes(8, "big") + bytes(length)


FTYP, MDAT, MOOV = box(b"ftyp", 8), box(b"mdat", 100), box(b"moov", 50)


@pytest.mark.parametrize(
    ("content", "cut_off"),
    [
        (FTYP + MDAT + MOOV, False),
        (FTYP + long_box(b"mdat", 100) + MOOV, False),
        (FTYP + MOOV + (0).to_bytes(4, "big") + b"mdat" + bytes(50), False),
        (FTYP + MDAT, True),
        (FTYP + MDAT[:60], True),
        (FTYP + long_box(b"mdat", 100)[:60], True),
        (FTYP + MOOV[:20], True),
        (FTYP + MDAT + MOOV[:-1], True),
        (FTYP + (1).to_bytes(4, "big") + b"mdat" + b"\xff" * 8 + MOOV, True),
        (b"RIFF" + bytes(100), False),
        (b"", False),
        (b"\0\0\0", False),
        (FTYP + (3).to_bytes(4, "big") + b"mdat" + bytes(50), False),
    ],
)
def test_a_file_is_cut_off_where_a_box_or_the_index_is_missing(tmp_path: Path, content: bytes, cut_off: bool) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    assert is_cut_off(path) is cut_off
