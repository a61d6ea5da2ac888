"""The search for a threshold, over a made-up gate, and writing it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from livestar.errors import InvalidConfig
from livestar.evaluation.calibration import MAX_TRIALS, is_packaged, search, write_threshold
from livestar.evaluation.runs import Response, VideoRun, response_rate
from tests.checkpoints import RECIPES, write_checkpoint
from tests.unit.evaluation.making import event, verdict

pytestmark = pytest.mark.unit

NUM_FRAMES = 200


def gate(threshold: float, *, slope: float = 0.01) -> list[VideoRun]:
    """Ratios grow with the time since the last response, a little more on each tenth frame: the rate falls with the threshold."""
    verdicts, responses, since = [verdict(0.0, None, threshold)], [Response(0.0, "x")], 0
    for frame in range(1, NUM_FRAMES):
        since += 1
        ratio = 1.0 + slope * since + (0.05 if frame % 10 == 0 else 0.0)
        verdicts.append(verdict(float(frame), ratio, threshold))
        if ratio > threshold:
            responses.append(Response(float(frame), "x"))
            since = 0
    return [
        VideoRun(
            name="v",
            events=tuple(event(begin, begin + 10) for begin in range(0, NUM_FRAMES, 10)),
            frame_times_s=tuple(map(float, range(NUM_FRAMES))),
            responses=tuple(responses),
            verdicts=tuple(verdicts),
        )
    ]


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.5, 0.9])
def test_the_threshold_gives_the_rate_that_is_asked_for(rate: float) -> None:
    found = search(gate, response_rate=rate)
    assert found.response_rate == pytest.approx(rate, rel=0.3)
    assert len(found.trials) <= MAX_TRIALS
    again = search(gate, response_rate=rate)
    assert again == found
    (run,) = gate(found.threshold)
    assert len(run.responses) - 1 == round(found.response_rate * (NUM_FRAMES - 1))  # the middle of the gap changes nothing


def test_without_a_rate_it_is_the_truths() -> None:
    found = search(gate, response_rate=None)
    assert found.wanted_rate == 19 / (NUM_FRAMES - 1)
    assert found.response_rate == pytest.approx(found.wanted_rate, rel=0.1)


def test_for_f1_the_best_trial_wins() -> None:
    found = search(gate, response_rate=None, objective="f1")
    assert found.boundary_f1 == max(trial.boundary_f1 for trial in found.trials)
    assert found.boundary_f1 >= search(gate, response_rate=None).boundary_f1


def test_a_rate_that_no_threshold_gives_ends_in_the_nearest_one() -> None:
    def two_rates(threshold: float) -> list[VideoRun]:
        return gate(0.5 if threshold < 1.5 else 9.0)  # always, or never

    found = search(two_rates, response_rate=0.4)
    assert found.response_rate in (0.0, 1.0)
    assert len(found.trials) <= MAX_TRIALS


def test_no_threshold_below_one_is_tried_or_given() -> None:
    tried: list[float] = []

    def mostly_below_one(threshold: float) -> list[VideoRun]:
        tried.append(threshold)
        verdicts = [verdict(float(t), 1.2 if t % 5 == 0 else 0.8, threshold) for t in range(NUM_FRAMES)]
        said = tuple(Response(one.time_s, "x") for one in verdicts if one.is_response)
        return [replace(gate(threshold)[0], verdicts=tuple(verdicts), responses=said)]

    found = search(mostly_below_one, response_rate=0.6, start=0.9)
    assert min(tried) >= 1
    assert found.threshold >= 1
    assert response_rate(mostly_below_one(found.threshold)) == found.response_rate == pytest.approx(0.2, abs=0.01)


def test_footage_without_a_boundary_has_no_rate_of_its_own() -> None:
    def one_event(threshold: float) -> list[VideoRun]:
        (run,) = gate(threshold)
        return [VideoRun(name="v", events=run.events[:1], frame_times_s=run.frame_times_s, responses=run.responses)]

    with pytest.raises(InvalidConfig, match="give a share between 0 and 1, or footage in which events begin"):
        search(one_event, response_rate=None)


def test_a_threshold_is_written_into_the_config_and_nothing_else_changes(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model", RECIPES["deep"])
    path = directory / "config.json"
    values = json.loads(path.read_text())
    values["livestar"] = {"gate": "leaf", "fps": 2, "note": "ä"}
    path.write_text(json.dumps(values))
    path.chmod(0o640)
    write_threshold(directory, 1.23456789, "leaf")
    assert json.loads(path.read_text()) == {**values, "livestar": {**values["livestar"], "threshold": 1.234568}}
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in directory.iterdir() if entry.name.startswith(".")] == []


def test_an_adapter_gets_a_config_of_its_own(tmp_path: Path) -> None:
    base, adapter = write_checkpoint(tmp_path / "base", RECIPES["deep"]), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../base"}))
    before = (base / "config.json").read_text()
    write_threshold(adapter, 1.5)
    assert (base / "config.json").read_text() == before
    assert json.loads((adapter / "config.json").read_text())["livestar"]["threshold"] == 1.5


def test_a_threshold_of_another_gate_is_not_written(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "model", RECIPES["deep"])
    before = (directory / "config.json").read_text()
    with pytest.raises(InvalidConfig, match="belongs to the gate 'leaf'"):
        write_threshold(directory, 1.1, "leaf")
    assert (directory / "config.json").read_text() == before


def test_the_packaged_model_is_told_from_others(tmp_path: Path) -> None:
    import livestar

    assert is_packaged(Path(livestar.__file__).parent / "assets" / "livestar-mini")
    assert not is_packaged(tmp_path)
