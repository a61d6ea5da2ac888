"""Scores as a table for a terminal: every metric beside the content-free floors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livestar.evaluation.evaluation import Evaluation

ROWS: tuple[tuple[str, str, str], ...] = (
    ("boundary_f1_1s", "boundary F1, ±1 s", "higher"),
    ("boundary_f1_2s", "boundary F1, ±2 s", "higher"),
    ("similarity", "similarity", "higher"),
    ("pauc", "PAUC", "higher"),
    ("tim_diff", "TimDiff, s", "lower"),
    ("tim_diff_sum", "TimDiff summed, s", "lower"),
    ("tim_redun", "TimRedun", "lower"),
    ("tim_cover", "TimCover", "higher"),
    ("redundancy", "redundancy", "lower"),
    ("response_rate", "response rate", ""),
)
"""Key, name and better direction of what is compared."""
OTHERS: tuple[tuple[str, str], ...] = (
    ("similarity_shuffled", "similarity, shuffled pairs"),
    ("similarity_constant", "similarity, best constant caption"),
    ("pauc_shuffled", "PAUC, shuffled pairs"),
    ("perplexity", "perplexity of the truth"),
    ("token_accuracy", "token accuracy on the truth"),
    ("truth_rate", "response rate of the truth"),
    ("repetition", "repeated word for word"),
    ("sem_cor", "SemCor (judge, 0 to 10)"),
    ("sum_fluen", "SumFluen (judge, 0 to 10)"),
    ("frames_per_second", "frames per second"),
)
COLUMNS: tuple[tuple[str, str], ...] = (
    ("metronome", "metronome"),
    ("random", "random"),
    ("best_metronome", "best"),
    ("silent", "silent"),
)

"""The content-free floors, the first two at the run's own response rate."""
CAPTION = "metronome and random speak as often as this run; best is the metronome of the highest F1 at ±1 s (in its row at ±2 s)"
OWN_BEST = {("best_metronome", "boundary_f1_2s"): "best_metronome_2s"}
"""Rows for which a column shows another floor."""
CAPTIONERS = {"metronome": "captioner_interval", "random": "captioner_random"}
"""Where to find what the model says on a floor's frames."""


def make_tables(evaluation: Evaluation) -> tuple[Table, Table]:
    """Metrics down and floors across; then what has no floor, or is one."""
    scores = evaluation.scores
    floors = scores["floors"]
    assert isinstance(floors, dict)
    columns = [(key, heading) for key, heading in COLUMNS if key in floors]
    compared = Table(
        title=Text(title(scores)), title_justify="left", caption=CAPTION, caption_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    compared.add_column("", no_wrap=True)
    compared.add_column("this run", justify="right", style="bold")
    for key, heading in columns:
        compared.add_column(with_interval(heading, floors[key]), justify="right")
    for key, name, better in ROWS:
        if key in scores:
            arrow = {"higher": " ↑", "lower": " ↓", "": ""}[better]
            compared.add_row(
                name + arrow, number(scores[key]), *(number(floor_score(floors, column, key)) for column, _ in columns)
            )
    others = Table(show_header=False, box=None, pad_edge=False)
    others.add_column(no_wrap=True)
    others.add_column(justify="right")
    for key, name in OTHERS:
        if scores.get(key) is not None:
            others.add_row(name, number(scores[key]))
    return compared, others


def floor_score(floors: Mapping[str, Mapping[str, object]], floor: str, key: str) -> object:
    """A floor's score; that of what it says, where the model was run on its frames as well (see `CAPTIONERS`)."""
    floor = OWN_BEST.get((floor, key), floor)
    score = floors.get(floor, {}).get(key)
    captioner = floors.get(CAPTIONERS.get(floor, ""), {})
    return captioner.get(key) if score is None else score


def title(scores: Mapping[str, object]) -> str:
    """How much was scored."""
    return ", ".join(counted(scores[f"num_{what}s"], what) for what in ("video", "event", "frame", "response"))


def counted(count: object, what: str) -> str:
    """A number of things: 1 video, 2 videos."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def number(value: object) -> str:
    """Three places, enough for every metric here; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"


def arrow(better: str) -> str:
    """Which way is better: `higher`, `lower`, or neither."""
    return {"higher": " ↑", "lower": " ↓"}.get(better, "")


def with_interval(heading: str, floor: Mapping[str, object]) -> str:
    """A floor's heading, with its interval on a second line where it has one."""
    interval_s = floor.get("interval_s")
    return f"{heading}\n{interval_s:.3g} s" if isinstance(interval_s, int | float) else heading
