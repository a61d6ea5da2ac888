"""The released metric code's values for the public sample, to the fourth decimal, and the published floors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from livestar.evaluation import floors
from livestar.evaluation.predictions import load_runs, read_truth
from livestar.evaluation.timing import score_timing

pytestmark = pytest.mark.integration


def test_the_released_codes_values(golden_dir: Path) -> None:
    folder = golden_dir / "metrics"
    expected = json.loads((folder / "expected.json").read_text())
    for name, values in expected.items():
        runs = load_runs(folder / name, folder / "RNG_task_eval.txt")
        scores = score_timing(runs)
        assert len(runs) == values["num_videos"]
        for key in ("tim_diff", "tim_redun", "tim_cover"):
            assert round(getattr(scores, key), 4) == values[key], (name, key)


@pytest.mark.parametrize(
    ("interval_s", "tim_diff", "summed", "tim_redun", "tim_cover"),
    [
        (1, 0.000, 12.178, 3.393, 1.000),
        (2, 0.491, 6.097, 1.291, 0.978),
        (3, 0.918, 4.227, 0.699, 0.927),
        (4, 1.294, 3.103, 0.416, 0.880),
        (5, 1.720, 2.839, 0.330, 0.823),
        (6, 1.945, 2.525, 0.313, 0.762),
    ],
)
def test_a_blind_metronome_on_the_public_sample(
    golden_dir: Path, interval_s: float, tim_diff: float, summed: float, tim_redun: float, tim_cover: float
) -> None:
    runs = [run for run, _ in read_truth(golden_dir / "metrics" / "RNG_task_eval.txt")]
    found = score_timing(floors.every(runs, interval_s))
    assert found == pytest.approx((tim_diff, summed, tim_redun, tim_cover), abs=6e-4)
