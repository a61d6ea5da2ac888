"""The page: complete in itself, well-formed, escaped and bounded."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from livestar.evaluation import report
from livestar.evaluation.evaluation import Evaluation, evaluate_runs
from livestar.evaluation.report import LEFT, WIDTH, render
from livestar.evaluation.runs import VideoRun
from livestar.evaluation.watching import Failure
from tests.integration.evaluation.conftest import EVENTS, FILM
from tests.unit.evaluation.making import event, run, verdict

pytestmark = pytest.mark.integration

NASTY = "</title><script>alert('&')</script>\" onload=\"x\x1b[31m {{ 7 * 7 }}"
VOID = {"meta", "br", "img"}


class Checker(HTMLParser):
    """Sees to it that every tag is closed, and collects what a page may not have."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")]


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def watched(**changes: object) -> VideoRun:
    """The film's first 14 s as a run with a verdict for every frame."""
    base = run(list(EVENTS), [(0.0, "A car."), (5.0, NASTY)], num_frames=14, name=NASTY)
    verdicts = tuple(verdict(float(t), None if t == 0 else 1.0 + 0.01 * t, 1.04) for t in range(14))
    return replace(base, verdicts=verdicts, source=str(FILM), **changes)  # type: ignore[arg-type]


def evaluated(*runs: VideoRun) -> Evaluation:
    return evaluate_runs(runs, settings={"model": NASTY, "part": None})


def test_the_page_is_complete_in_itself() -> None:
    page = render(evaluated(watched()))
    checker = check(page)
    assert checker.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert {address.partition(",")[0] for address in checker.addresses} == {"data:image/jpeg;base64"}
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_what_nobody_vouches_for_is_escaped() -> None:
    page = render(replace(evaluated(watched(notes=(NASTY,))), failures=(Failure(NASTY, NASTY),)))
    checker = check(page)
    assert "script" not in checker.tags
    assert "onload" not in checker.attributes
    assert "\x1b" not in page
    assert "{{ 7 * 7 }}" in page
    assert page.count("&lt;script&gt;") >= 5


def test_a_timeline_shows_truth_responses_ratio_and_threshold_in_their_places() -> None:
    page = render(evaluated(watched()))
    (drawing,) = (ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    by_class: dict[str, list[ElementTree.Element]] = {}
    for element in drawing.iter():
        by_class.setdefault(element.get("class", element.tag), []).append(element)
    events = by_class["truth-a"] + by_class["truth-b"]
    assert len(events) == 3
    assert float(by_class["truth-a"][0].get("x", "")) == LEFT
    assert float(by_class["truth-b"][0].get("x", "")) == pytest.approx(LEFT + (WIDTH - LEFT) * 4 / 14, abs=0.2)
    assert len(by_class["said first"]) == 1
    assert float(by_class["said"][0].get("x1", "")) == pytest.approx(LEFT + (WIDTH - LEFT) * 5 / 14, abs=0.2)
    heights = [float(point.split(",")[1]) for point in by_class["ratio"][0].get("points", "").split()]
    assert len(heights) == 13
    assert heights == sorted(heights, reverse=True)  # a rising ratio
    limit = float(by_class["limit"][0].get("points", "").split()[0].split(",")[1])
    assert heights[4] < limit < heights[2]  # 1.05 lies above 1.04, 1.03 below
    assert len(by_class["image"]) == report.MAX_PICTURES
    for element in drawing.iter():
        for name in ("x", "x1", "x2"):
            assert 0 <= float(element.get(name, 0)) <= WIDTH


def test_numbers_come_first_and_floors_beside_them() -> None:
    page = render(evaluated(watched()))
    assert page.index('class="card"') < page.index("this run") < page.index("<svg")
    assert page.count("best floor at this rate") == 2
    for heading in ("metronome", "random", "silent"):
        assert heading in page


def test_what_is_drawn_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_VIDEOS", 2)
    monkeypatch.setattr(report, "MAX_ILLUSTRATED", 1)
    monkeypatch.setattr(report, "MAX_ROWS", 2)
    monkeypatch.setattr(report, "MAX_POINTS", 5)
    page = render(evaluated(*(watched() for _ in range(4))))
    assert page.count("<svg") == 2
    assert page.count("<image") == report.MAX_PICTURES
    assert "2 more videos are not drawn" in page
    assert page.count("<tr><td>0:00:") == 2 * 2
    longest = max(len(points.split()) for points in re.findall(r'class="ratio" points="([^"]*)"', page))
    assert longest <= 5


def test_a_video_that_is_gone_has_no_pictures(tmp_path: Path) -> None:
    page = render(evaluated(replace(watched(), source=str(tmp_path / "gone.mp4"))))
    check(page)
    assert "<image" not in page
    assert "<svg" in page


def test_scores_of_files_have_timelines_without_curves() -> None:
    page = render(evaluated(run([event(0, 4), event(4, 9)], [0.0, 4.0])))
    check(page)
    assert 'class="said"' in page
    assert 'class="ratio"' not in page


def test_runs_of_one_frame_or_none_are_drawn() -> None:
    check(render(evaluated(run([event(0, 1)], [0.0], num_frames=1), run([], [], num_frames=0))))
