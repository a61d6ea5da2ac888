"""OmniStar-RNG: the released timestamped text, or any annotation file, beside a folder of its videos.

The other four tasks of OmniStar (OTG, FDQ, COQ, MIQ) are not public, so there is nothing to read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from livestar.annotations.types import AnnotatedVideo
from livestar.errors import InvalidAnnotation
from livestar.evaluation.benchmarks.files import VideoFolder
from livestar.evaluation.predictions import read_truth

if TYPE_CHECKING:
    from collections.abc import Iterator


class OmniStar(NamedTuple):
    """The videos that are there, and how many are not."""

    videos: tuple[AnnotatedVideo, ...]
    num_missing: int


def read_omnistar(path: Path, folder: Path) -> OmniStar:
    """Videos with the segments of the released metric code.  Raises `InvalidAnnotation` where none is there."""
    videos = VideoFolder(folder)
    found, num_missing = [], 0
    for video in _annotated(path):
        source = _find(videos, video)
        if source is None:
            num_missing += 1
        else:
            found.append(replace(video, source=source))
    if not found:
        raise InvalidAnnotation(f"no video that {path} names is in {folder} ({num_missing} missing); check --videos")
    return OmniStar(tuple(found), num_missing)


def _annotated(path: Path) -> Iterator[AnnotatedVideo]:
    if path.suffix.lower() != ".txt":
        from livestar.annotations.read import read_annotations

        yield from read_annotations(path)
        return
    for run, line in read_truth(path):
        yield AnnotatedVideo(source=run.name, events=run.events, file=str(path), line=line)


def _find(videos: VideoFolder, video: AnnotatedVideo) -> str | tuple[str, ...] | None:
    """Where a video is: in the folder by its name, as a folder of pictures there, or where the annotation says."""
    stem = Path(video.name).stem
    pictures = videos.root / stem
    found = videos.find_stem(stem) or (pictures if pictures.is_dir() else None)
    if found is not None:
        return str(found)
    return video.source if Path(video.name).exists() else None
