"""Where the footage of livestar-mini comes from: every item has a licence and is used according to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from training.mini import catalogue, real, sources
from training.mini.catalogue import SPLITS

pytestmark = pytest.mark.unit


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "registry": "npm",
        "package": "p",
        "version": "1",
        "file": "p-1.tgz",
        "sha256": "0" * 64,
        "base": "package",
        "keep": ["*.png"],
        "licence": "MIT",
        "attribution": "somebody",
        "use": "train",
    } | changes


def test_every_source_names_its_version_checksum_licence_and_author() -> None:
    for source in sources.load().values():
        assert source.package and source.version and source.licence and source.attribution and source.keep, source.name
        assert re.fullmatch("[0-9a-f]{64}", source.sha256), source.name


def test_all_that_the_scripted_streams_show_may_be_learnt_from() -> None:
    known = catalogue.load()
    used = {picture.source for thing in known.things for picture in thing.pictures} | {place.source for place in known.places}
    assert used
    for name in used:
        source = sources.load()[name]
        assert source.use == "train" and source.licence in sources.OPEN_LICENCES, name


def test_every_source_is_used() -> None:
    known = catalogue.load()
    used = {picture.source for thing in known.things for picture in thing.pictures} | {place.source for place in known.places}
    assert set(sources.load()) == (used | {clip.source for clip in real.load()}) - {"livestar"}


@pytest.mark.parametrize("licence", ["GPL-2.0", "CC-BY-SA-4.0", "unstated"])
def test_training_on_what_the_licence_does_not_allow_is_refused(licence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"no weights that ship may learn from '{licence}'")):
        sources.parse({"x": entry(licence=licence)})
    assert sources.parse({"x": entry(licence=licence, use="test-only")})["x"].use == "test-only"


@pytest.mark.parametrize("changes", [{"registry": "ftp"}, {"use": "sell"}, {"surplus": 1}])
def test_an_entry_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\[x\]"):
        sources.parse({"x": entry(**changes)})


def test_rooms_are_kept_out_of_training_and_of_the_held_out_footage() -> None:
    rooms = [clip for clip in real.load() if clip.room]
    assert len(rooms) == 3
    others = {clip.file for clip in real.load() if not clip.room}
    for room in rooms:
        assert room.train is None and room.heldout is None and room.file not in others
        assert 30 <= real.annotation(room)["duration"] <= 140


def test_what_is_held_out_of_a_training_clip_comes_after_what_is_learnt() -> None:
    clips = [clip for clip in real.load() if clip.train]
    assert clips
    for clip in clips:
        assert clip.train is not None and clip.heldout is not None and clip.train[1] <= clip.heldout[0]


def test_training_on_a_clip_of_unstated_origin_is_refused() -> None:
    clip = {"file": "v.avi", "source": "opencv", "inner": "vtest.avi", "train": [0.0, 5.0]}
    with pytest.raises(ValueError, match=r"v\.avi is a room or its source does not allow training"):
        real.parse([clip])


def test_hand_annotations_are_in_order_within_the_clip_and_have_paraphrases() -> None:
    for clip in real.load():
        line = real.annotation(clip)
        assert line["video"] == clip.file and line["licence"] and line["annotator"]
        end = 0.0
        for event in line["events"]:
            assert end <= event["begin"] < event["end"] <= line["duration"], (clip.file, event)
            assert 2 <= len(event["caption"]) <= 3 and all(text.endswith(".") for text in event["caption"]), (clip.file, event)
            end = event["end"]
        parts = [part for part in (clip.train, clip.heldout) if part]
        edges = {0.0, line["duration"]} | {event["begin"] for event in line["events"]}
        assert all(bound in edges for part in parts for bound in part), f"{clip.file}: a part cuts an event in two"


def test_the_model_cards_table_lists_every_source_and_the_right_counts() -> None:
    text = (Path(catalogue.__file__).parent / "README.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for source in sources.load().values():
        row = next((row for row in rows if f"{source.package} {source.version}" in row), "")
        assert source.licence.split()[0].removesuffix(",") in row, source.name
    known = catalogue.load()
    for column, split in enumerate(SPLITS, 2):
        things = known.things_of(split)
        counted = [sum(len(thing.pictures_of(split)) for thing in things), len(things), len(known.places_of(split))]
        for label, count in zip(("pictures of things", "things", "places"), counted, strict=True):
            cell = next(row for row in rows if row.startswith(f"| {label} |")).split("|")[column]
            assert re.search(rf"\b{count}\b", cell), (label, split, cell)
