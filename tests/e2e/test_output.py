"""The JSON lines: a schema that others read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.e2e.command import Finished, Record, of_stream, of_type, read_records, watch

pytestmark = pytest.mark.e2e

KEYS = {
    "caption": {"type", "stream_id", "frame", "time_s", "text"},
    "notice": {"type", "stream_id", "frame", "time_s", "code", "message", "count"},
    "end": {"type", "stream_id", "frame", "time_s", "error"},
    "verdict": {"type", "stream_id", "frame", "time_s", "decision", "perplexity", "reference_perplexity", "ratio", "threshold"},
}


@pytest.fixture(scope="module")
def traced(tiny: Path, pictures: Path, clip: Path) -> tuple[Finished, list[Record]]:
    finished = watch(tiny, pictures, clip, "--threshold", "1.0", "--trace", "--output", "-")
    assert finished.status == 0, finished.err
    return finished, read_records(finished.out)


@pytest.fixture(scope="module")
def records(traced: tuple[Finished, list[Record]]) -> list[Record]:
    return traced[1]


def test_every_line_has_the_keys_of_its_type(records: list[Record]) -> None:
    assert {record["type"] for record in records} >= {"caption", "verdict", "end"}
    for record in records:
        assert set(record) == KEYS[record["type"]]
        assert type(record["frame"]) is int
        assert type(record["time_s"]) is float
        assert math.isfinite(record["time_s"])
        assert type(record["stream_id"]) is str


def test_captions_have_text(records: list[Record]) -> None:
    assert all(record["text"].strip() for record in of_type(records, "caption"))


@pytest.mark.parametrize(("stream_id", "num_frames"), [("pictures", 8), ("clip", 6)])
def test_every_frame_has_one_verdict(records: list[Record], stream_id: str, num_frames: int) -> None:
    verdicts = of_type(of_stream(records, stream_id), "verdict")
    assert [verdict["frame"] for verdict in verdicts] == list(range(1, num_frames + 1))
    assert {verdict["decision"] for verdict in verdicts} == {"respond", "silent"}


@pytest.mark.parametrize("stream_id", ["pictures", "clip"])
def test_perplexity_is_null_exactly_where_there_was_no_caption_yet(records: list[Record], stream_id: str) -> None:
    has_caption = False
    for verdict in of_type(of_stream(records, stream_id), "verdict"):
        assert (verdict["perplexity"] is not None) == has_caption
        assert (verdict["ratio"] is not None) == has_caption
        has_caption = has_caption or verdict["decision"] == "respond"
        assert (verdict["reference_perplexity"] is not None) == has_caption
        assert verdict["threshold"] == 1.0


@pytest.mark.parametrize("stream_id", ["pictures", "clip"])
def test_the_decision_follows_from_the_numbers(records: list[Record], stream_id: str) -> None:
    reference = None
    for verdict in of_type(of_stream(records, stream_id), "verdict"):
        if reference is not None:
            assert verdict["ratio"] == pytest.approx(verdict["perplexity"] / reference)
            assert (verdict["decision"] == "respond") == (verdict["ratio"] > verdict["threshold"])
        reference = verdict["reference_perplexity"]


@pytest.mark.parametrize("stream_id", ["pictures", "clip"])
def test_a_caption_stands_before_its_verdict_and_the_end_stands_last(records: list[Record], stream_id: str) -> None:
    own = of_stream(records, stream_id)
    spoken = [(r["type"], r["frame"]) for r in own if r["type"] == "caption" or r.get("decision") == "respond"]
    assert spoken == [(kind, frame) for _, frame in spoken[::2] for kind in ("caption", "verdict")]
    assert [number for number, record in enumerate(own) if record["type"] == "end"] == [len(own) - 1]
    times = [record["time_s"] for record in own]
    assert times == sorted(times)


def test_events_on_standard_output_have_it_to_themselves(traced: tuple[Finished, list[Record]]) -> None:
    finished, records = traced
    assert len(records) == len(finished.out.splitlines())
    assert "ended" in finished.err


def test_without_trace_there_are_no_verdicts_and_the_captions_are_the_same(
    tiny: Path, pictures: Path, records: list[Record], tmp_path: Path
) -> None:
    written = tmp_path / "events.jsonl"
    finished = watch(tiny, pictures, "--threshold", "1.0", "--output", written)
    assert finished.status == 0, finished.err
    plain = read_records(written.read_text(encoding="utf-8"))
    wanted = of_stream(records, "pictures")
    assert of_stream(plain, "pictures") == [record for record in wanted if record["type"] != "verdict"]


def test_captions_are_printed_for_people_where_there_is_no_output_file(tiny: Path, pictures: Path, records: list[Record]) -> None:
    finished = watch(tiny, pictures, "--threshold", "1.0")
    assert finished.status == 0
    lines = finished.out.splitlines()
    assert len(lines) == len(of_type(of_stream(records, "pictures"), "caption"))
    assert all("[pictures] " in line for line in lines)
    assert lines[0].startswith("0:00:00.0 [pictures] ")


def test_an_existing_output_file_is_written_anew(tiny: Path, pictures: Path, tmp_path: Path) -> None:
    written = tmp_path / "events.jsonl"
    written.write_text("left over\n" * 1000)
    assert watch(tiny, pictures, "--output", written).status == 0
    assert read_records(written.read_text(encoding="utf-8"))[-1]["type"] == "end"
