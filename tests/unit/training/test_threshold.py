"""Which threshold a finished model has: set on footage, kept from its base, or the default; and on what footage it is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from livestar.annotations.types import AnnotatedVideo, Event
from livestar.evaluation.calibration import Calibration
from training import run
from training.config import parse_config
from training.export import watching
from training.log import Silent
from training.prepare import Footage

pytestmark = pytest.mark.unit

BASE = {"gate": "scam", "keep_captions": False, "threshold": 1.3, "note": "of the base", "fps": 2}


class Said(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("before", "scam", "is_kept"),
    [
        (BASE, {}, True),
        (BASE, {"visibility": "terminal"}, False),
        (BASE, {"layout": "training"}, False),
        (BASE | {"gate": "leaf"}, {"layout": "training"}, True),
        (BASE | {"keep_captions": None}, {}, False),  # this gate keeps them by default
        (BASE | {"keep_captions": None}, {"visibility": "causal"}, True),
        ({"threshold": 1.3}, {"visibility": "terminal"}, False),  # of the gate compat, which is the default
    ],
)
def test_the_threshold_of_the_base_stays_with_its_gate(before: dict[str, Any], scam: dict[str, str], is_kept: bool) -> None:
    found = watching(before, parse_config({"scam": scam}))
    assert found.get("threshold") == (1.3 if is_kept else None)
    assert "note" not in found and found.get("fps") == before.get("fps")
    assert found["gate"] == ("leaf" if scam.get("layout") else "scam")


def video(name: str, seconds: int, every: int) -> AnnotatedVideo:
    events = tuple(Event(begin_s=b, end_s=b + every, captions=("a",)) for b in range(0, seconds, every))
    return AnnotatedVideo(source=name, events=events, duration_s=float(seconds))


def test_footage_is_measured_and_spread() -> None:
    videos = [video(str(number), 10, 5) for number in range(7)]
    assert run.extent(videos, 2.0) == (140.0, 7)  # the first event of each is there when watching begins
    assert [v.source for v in run.spread(videos, 3)] == ["0", "3", "6"]
    assert run.spread(videos, 7) == tuple(videos)
    assert run.spread(videos, 0) == run.spread((), 3) == ()


@pytest.mark.parametrize(
    ("holdout", "most", "shown", "found", "threshold"),
    [
        pytest.param([video("h", 100, 5)], 20, ["h"], 1.2, 1.2, id="enough"),
        pytest.param([video("h", 59, 1)], 20, ["h", "a", "b"], 1.2, 1.2, id="few frames"),
        pytest.param([video("h", 100, 10)], 2, ["h", "a"], 1.2, 1.2, id="few boundaries"),
        pytest.param([video("h", 10, 5)], 1, ["h"], 1.2, 1.2, id="no room"),
        pytest.param([video("h", 10, 5)], 20, ["h", "a", "b"], 0.9, 1.0, id="below 1"),
    ],
)
def test_too_little_held_out_footage_is_joined_by_training_footage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, holdout: Any, most: int, shown: list[str], found: float, threshold: float
) -> None:
    class Loaded:
        model = None

    seen: list[str] = []

    def calibrate(checkpoint: object, footage: Any, **_: object) -> Calibration:
        seen.extend(v.source for v in footage)
        return Calibration(threshold=found, response_rate=0.1, boundary_f1=0.0, wanted_rate=0.1, trials=())

    written: list[float] = []
    monkeypatch.setattr(run, "load_model_directory", lambda _: Loaded())
    monkeypatch.setattr(run, "frames_per_second", lambda *_: 1.0)
    monkeypatch.setattr(run, "watched_footage", lambda _, videos, fps: videos)
    monkeypatch.setattr(run, "share_cores", lambda *_: 1)
    monkeypatch.setattr(run, "calibrate", calibrate)
    monkeypatch.setattr(run, "write_threshold", lambda _, value: written.append(value))
    said = Said()
    a, b = video("a", 100, 5), video("b", 100, 5)
    config = parse_config({"run": {"calibrate_videos": most}})
    run.set_threshold(tmp_path, config, Footage(train=(a, a, b), holdout=tuple(holdout)), said)
    assert seen == shown
    assert written == [threshold]
    assert said.lines[-1].startswith(f"threshold {threshold:.4f} is set on held-out footage: it responds to 10.0% of frames")
    assert ("training footage included" in said.lines[-1]) == (len(shown) > 1)
    assert ("but one below 1" in said.lines[-1]) == (found < 1)


@pytest.mark.parametrize(("own", "source"), [({"threshold": 1.3}, "1.3 is kept from the base"), ({}, "1.03 is the default")])
def test_a_threshold_that_was_not_set_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: dict[str, float], source: str
) -> None:
    class Config:
        watch = own

    monkeypatch.setattr(run, "load_model_config", lambda _: Config())
    said = Said()
    run.tell_threshold(tmp_path, "nothing was held out", said)
    assert said.lines == [f"threshold {source}: nothing was held out"]
