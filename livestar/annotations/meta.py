"""The released meta format: one JSON file that names sets of samples, and how often each is used.

{"narration": {"root": "pictures", "annotation": "narration.jsonl", "data_augment": false, "repeat_time": 2, "length": 6000}}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from livestar.annotations.lines import parse_json
from livestar.annotations.released import read_released
from livestar.errors import InvalidAnnotation

if TYPE_CHECKING:
    from livestar.annotations.problems import Problems
    from livestar.annotations.types import AnnotatedVideo

MAX_META_BYTES = 2**20
MAX_REPEATS = 1000


def read_meta(path: Path, problems: Problems) -> tuple[AnnotatedVideo, ...]:
    """The samples of all sets, in order, each set as often as it says; below 1, that share of its first samples.

    Paths are relative to the meta file.  `data_augment` is accepted and has no effect.
    """
    try:
        text = path.read_bytes()[: MAX_META_BYTES + 1].decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InvalidAnnotation(f"{path} cannot be read ({error}); give a meta file in UTF-8") from error
    if len(text) > MAX_META_BYTES:
        raise InvalidAnnotation(f"{path} is larger than {MAX_META_BYTES // 2**20} MiB; this is no meta file")
    try:
        sets = parse_json(text)
    except ValueError as error:
        raise InvalidAnnotation(f"{path}: {error}") from error
    if not isinstance(sets, dict):
        raise InvalidAnnotation(f"{path}: expected an object of sets, got a {type(sets).__name__}")
    videos: list[AnnotatedVideo] = []
    for name, values in sets.items():
        videos += _read_set(name, values, path, problems)
    return tuple(videos)


def write_meta(name: str, *, root: str, annotation: str, length: int) -> str:
    """The text of a meta file with one set."""
    values = {"root": root, "annotation": annotation, "data_augment": False, "repeat_time": 1, "length": length}
    return json.dumps({name: values}, indent=2, ensure_ascii=False) + "\n"


def _read_set(name: str, values: object, path: Path, problems: Problems) -> list[AnnotatedVideo]:
    if not isinstance(values, dict):
        problems.add(0, name, "is no object; give root, annotation and length")
        return []
    annotation, root, repeats = values.get("annotation"), values.get("root", "."), values.get("repeat_time", 1)
    if not isinstance(annotation, str) or not annotation or "\0" in annotation:
        problems.add(0, f"{name}.annotation", "is no path; name the JSONL file of the set")
        return []
    if not isinstance(root, str) or "\0" in root:
        problems.add(0, f"{name}.root", "is no path; name the folder of the set's pictures")
        return []
    if isinstance(repeats, bool) or not isinstance(repeats, int | float) or not 0 < repeats <= MAX_REPEATS:
        problems.add(0, f"{name}.repeat_time", f"is no number above 0, at most {MAX_REPEATS}; give how often to use the set")
        return []
    if repeats > 1 and repeats != int(repeats):
        problems.add(0, f"{name}.repeat_time", f"is {repeats}; above 1, give a whole number")
        return []
    file = path.parent / annotation
    if not file.is_file():
        problems.add(0, f"{name}.annotation", f"names {file}, which is not there; paths are relative to the meta file")
        return []
    num_before = problems.num_found
    outer, problems.file = problems.file, str(file)
    try:
        videos = list(read_released(file, problems, root=path.parent / root))
    finally:
        problems.file = outer
    length = values.get("length")
    if length is not None and length != len(videos) and problems.num_found == num_before:
        problems.add(0, f"{name}.length", f"is {length!r}, but {file.name} holds {len(videos)} samples; mend one of them")
    return videos[: int(len(videos) * repeats)] if repeats < 1 else videos * int(repeats)
