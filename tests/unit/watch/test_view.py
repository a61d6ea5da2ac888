"""What a person sees: a table in a terminal, lines in a pipe, and nothing that steers the terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from livestar.engine.engine import EngineStats
from livestar.types import CaptionDone, Decision, Notice, StreamEnded, StreamEvent, StreamId, Verdict
from livestar.view import LiveView, PlainView, clock, printable

pytestmark = pytest.mark.unit

STATS = EngineStats(
    num_streams=1,
    num_frames=12,
    num_verifications=9,
    num_captions=3,
    num_steps=40,
    num_tokens=900,
    num_kv_tokens_used=400,
    num_kv_tokens=1600,
)
DOOR, YARD = StreamId("door"), StreamId("yard")
HOSTILE = "one\ntwo\r\x1b[2J\x1b]0;title\x07\x9b31m\x00 \u202e\u2028[bold]x[/none]"
"""Escape sequences in seven and eight bits, ends of lines, a reversal of the writing direction, and markup."""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def caption(text: str, stream_id: StreamId = DOOR, time_s: float = 61.5) -> CaptionDone:
    return CaptionDone(stream_id=stream_id, frame=62, time_s=time_s, text=text)


def verdict(decision: Decision = Decision.SILENT, ratio: float | None = 0.9876, stream_id: StreamId = DOOR) -> Verdict:
    return Verdict(
        stream_id=stream_id,
        frame=63,
        time_s=62.5,
        decision=decision,
        perplexity=None if ratio is None else 2.0,
        reference_perplexity=None if ratio is None else 2.1,
        threshold=1.03,
        ratio=ratio,
    )


def notice(message: str, stream_id: StreamId = DOOR) -> Notice:
    return Notice(stream_id=stream_id, frame=1, time_s=0.0, code="frames_dropped", message=message, count=7)


def ended(error: str | None = None, stream_id: StreamId = DOOR) -> StreamEnded:
    return StreamEnded(stream_id=stream_id, frame=63, time_s=62.5, error=error)


def live(*events: StreamEvent, stream_ids: tuple[StreamId, ...] = (DOOR, YARD), width: int = 120) -> str:
    """What a terminal shows, sequences of the terminal itself taken out.  The end of a stream draws the table at once."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, height=30, legacy_windows=False, color_system=None)
    with LiveView(console, stream_ids) as view:
        for event in events:
            view.show(event, STATS)
        view.show(None, STATS)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())


def plain(*events: StreamEvent | None) -> tuple[list[str], list[str]]:
    """Lines on the output and on the error stream."""
    out, err = io.StringIO(), io.StringIO()
    with PlainView(Console(file=out, width=40), Console(file=err, width=40)) as view:
        for event in events:
            view.show(event, STATS)
    return out.getvalue().splitlines(), err.getvalue().splitlines()


@pytest.mark.parametrize(
    ("time_s", "shown"),
    [(0.0, "0:00:00.0"), (61.5, "0:01:01.5"), (3599.0, "0:59:59.0"), (36000.04, "10:00:00.0"), (-1.0, "0:00:00.0")],
)
def test_a_clock_shows_hours_minutes_and_seconds(time_s: float, shown: str) -> None:
    assert clock(time_s) == shown


def test_printable_text_is_one_line_without_control_characters() -> None:
    assert printable("a\tb\n c ") == "a b c"
    assert printable("\x1b[31m\x00\x9b") == "\ufffd[31m\ufffd\ufffd"
    assert printable("雨 ☂ é") == "雨 ☂ é"
    assert CONTROL.search(printable(HOSTILE)) is None


def test_the_table_shows_each_stream_with_its_time_verdict_ratio_and_caption() -> None:
    shown = live(caption("a red car stops"), verdict(), verdict(Decision.RESPOND, 1.25, YARD), ended(stream_id=YARD))
    (door,) = [line for line in shown.splitlines() if line.strip().startswith("door")][-1:]
    assert re.search(r"door\s+│\s+0:01:02.5\s+│\s+silent\s+│\s+0.988 / 1.030\s+│\s+a red car stops", door)
    (yard,) = [line for line in shown.splitlines() if line.strip().startswith("yard")][-1:]
    assert re.search(r"ended\s+│\s+1.250 / 1.030", yard)


def test_a_stream_without_frames_waits_and_one_without_captions_has_no_ratio() -> None:
    assert re.search(r"door\s+│\s+│\s+waiting", live(ended(stream_id=YARD)))
    shown = live(verdict(Decision.RESPOND, None), ended(stream_id=YARD))
    assert re.search(r"door\s+│\s+0:01:02.5\s+│\s+respond\s+│\s+│", shown)


def test_captions_scroll_by_above_the_table() -> None:
    shown = live(caption("first"), caption("second", time_s=70.0), ended())
    assert re.search(r"0:01:01.5 \[door\] first", shown)
    assert re.search(r"0:01:10.0 \[door\] second", shown)


def test_the_footer_counts_frames_captions_and_kv_tokens() -> None:
    shown = live(ended())
    assert re.search(r"12 frames, [\d.]+ per second · 3 captions · KV 400 of 1600 tokens \(25%\)", shown)


def test_notices_and_errors_are_shown_in_the_terminal() -> None:
    shown = live(notice("too fast; lower --fps"), ended("the file is damaged"))
    assert "frames_dropped x7: too fast; lower --fps" in shown
    assert "error: the file is damaged" in shown


@pytest.mark.parametrize("event", [caption(HOSTILE), notice(HOSTILE), ended(HOSTILE)], ids=["caption", "notice", "error"])
def test_no_event_steers_the_terminal(event: StreamEvent) -> None:
    shown = live(event, ended(stream_id=YARD), width=300)
    assert CONTROL.search(shown.replace("\r", "")) is None
    assert "[bold]x[/none]" in shown
    (line,) = [line for line in shown.splitlines() if "[door]" in line]
    assert "one two" in line


def test_no_stream_name_steers_the_terminal() -> None:
    hostile = StreamId(HOSTILE)
    shown = live(
        caption("hello", hostile), verdict(stream_id=hostile), ended(stream_id=hostile), stream_ids=(hostile,), width=300
    )
    assert CONTROL.search(shown.replace("\r", "")) is None


def test_a_long_caption_takes_one_line_of_the_table() -> None:
    shown = live(caption("word " * 100), ended(stream_id=YARD), width=80)
    table = shown[shown.rindex("stream") :]
    assert len([line for line in table.splitlines() if "word" in line]) == 1
    assert "…" in table


def test_a_pipe_gets_one_line_per_caption_and_the_rest_goes_to_the_error_stream() -> None:
    out, err = plain(caption("a red car " * 20), verdict(), notice("too fast"), None, caption("it stops"), ended(), ended("lost"))
    assert out == [f"0:01:01.5 [door] {('a red car ' * 20).strip()}", "0:01:01.5 [door] it stops"]
    assert err == ["0:00:00.0 [door] frames_dropped x7: too fast", "0:01:02.5 [door] ended", "0:01:02.5 [door] error: lost"]


def test_a_pipe_gets_no_control_characters_either() -> None:
    out, err = plain(caption(HOSTILE, StreamId(HOSTILE)), notice(HOSTILE), ended(HOSTILE))
    assert (len(out), len(err)) == (1, 2)
    assert CONTROL.search("".join(out + err)) is None
    assert "[bold]x[/none]" in out[0]
