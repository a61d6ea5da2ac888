"""Annotated videos: reading, checking and converting the formats that say what happens when.

Start at `read.py`; each format is a file of its own.  Videos are opened by `duration.py` and `footage.py` only.
"""

from livestar.annotations.part import Part, cut, parse_part
from livestar.annotations.read import read_annotations
from livestar.annotations.types import AnnotatedVideo, Event

__all__ = ["AnnotatedVideo", "Event", "Part", "cut", "parse_part", "read_annotations"]
