"""A look at the outline of an MP4 file, for what the demuxer's error does not say."""

from __future__ import annotations

import os
from pathlib import Path

MAX_BOXES = 10_000


def is_cut_off(path: Path) -> bool:
    """Whether the file starts as an MP4 and ends inside a box or without its index (`moov`)."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        position, kinds = 0, set()
        for _ in range(MAX_BOXES):
            if position > length:
                break
            file.seek(position)
            head = file.read(16)
            if len(head) < 8:
                break
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if position == 0 and kind != b"ftyp":
                return False
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size == 0:
                size = length - position
            if size < 8:
                return False
            kinds.add(kind)
            position += size
    return bool(kinds) and (position > length or b"moov" not in kinds)
