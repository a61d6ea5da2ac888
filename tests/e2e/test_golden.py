"""The command decides, says and measures what the released code did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.command import (
    Record,
    assert_same_verdicts,
    captions,
    errors,
    is_close,
    livestar,
    of_stream,
    of_type,
    read_records,
    watch_records,
)

pytestmark = pytest.mark.e2e

TOLERANCE = 1e-3
"""Relative.  The smallest distance of a golden perplexity from its threshold is 3.5 times that."""


def options(trace: Record, model: Path) -> list[object]:
    return [
        *("--model", model, "--gate", "compat", "--threshold", trace["alpha"], "--fps", "1", "--dtype", "float32"),
        *("--max-new-tokens", trace["max_new_tokens"], "--repetition-penalty", "1.05"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "pace"),
    [("case1", "fast"), ("case2", "fast"), pytest.param("case1", "realtime", marks=pytest.mark.slow)],
)
def test_a_golden_case_is_watched_as_the_released_code_watched_it(
    golden_dir: Path, golden_checkpoint: Path, tmp_path: Path, case: str, pace: str
) -> None:
    trace = json.loads((golden_dir / case / "trace.json").read_text())
    written = tmp_path / "trace.jsonl"
    finished = livestar(
        *("watch", golden_dir / case / "frames", *options(trace, golden_checkpoint)),
        *("--pace", pace, "--trace", "--output", written),
    )
    assert finished.status == 0, finished.err
    records = read_records(written.read_text(encoding="utf-8"))
    verdicts = of_type(records, "verdict")
    wanted = trace["frames"]
    assert [(v["frame"], v["decision"]) for v in verdicts] == [(w["frame"], w["decision"]) for w in wanted]
    assert [v["time_s"] for v in verdicts] == [float(number) for number in range(len(wanted))]
    assert captions(records) == [(w["frame"], w["caption"]) for w in wanted if w["caption"] is not None]
    for verdict, entry in zip(verdicts, wanted, strict=True):
        for key in ("perplexity", "reference_perplexity"):
            assert is_close(verdict[key], entry[key], TOLERANCE), (verdict, entry)
    assert errors(records) == {"frames": None}


@pytest.mark.slow
def test_sources_watched_together_give_what_each_gives_alone(
    golden_dir: Path, golden_checkpoint: Path, clip: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(golden_dir / "case1" / "frames", one)
    shutil.copytree(golden_dir / "case2" / "frames", two)
    settings = ("--threshold", "1.03", "--fps", "1", "--dtype", "float32")
    sources = {"one": one, "two": two, "clip": clip, "one-2": one}
    together = watch_records(golden_checkpoint, *sources.values(), *settings, max_new_tokens=16)
    assert errors(together) == dict.fromkeys(sources, None)
    for stream_id, source in sources.items():
        if stream_id == "one-2":
            continue
        alone = watch_records(golden_checkpoint, source, *settings, max_new_tokens=16)
        assert_same_verdicts(of_stream(together, stream_id), alone, TOLERANCE)
    assert_same_verdicts(of_stream(together, "one-2"), of_stream(together, "one"), TOLERANCE)
