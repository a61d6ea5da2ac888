"""What a person sees of a watch: a live table in a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from livestar.types import CaptionDone, Decision, Notice, StreamEnded, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from livestar.engine.engine import EngineStats
    from livestar.types import StreamEvent, StreamId

REFRESH_HZ = 8
WIDE = 70
"""Columns from which on the table shows the ratio beside the caption."""
MAX_CAPTION_LINES = 3
"""Terminal lines that a caption above the table may take."""
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def clock(time_s: float) -> str:
    """Media time as h:mm:ss.t."""
    tenths = round(max(time_s, 0.0) * 10)
    minutes, tenths = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02d}:{tenths / 10:04.1f}"


def printable(text: str) -> str:
    """One line that cannot steer a terminal: whitespace becomes a space, other control characters a replacement mark."""
    spaced = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in spaced)


class View(Protocol):
    """Shows events as they come."""

    def __enter__(self) -> View: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def show(self, event: StreamEvent | None, stats: EngineStats) -> None:
        """Takes the next event, or None when a while has passed without any."""
        ...


class PlainView:
    """One line per caption, and per verdict if wanted; notices and endings go to the error stream."""

    def __init__(self, console: Console, errors: Console, *, trace: bool = False) -> None:
        self._console = console
        self._errors = errors
        self._trace = trace

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def show(self, event: StreamEvent | None, stats: EngineStats) -> None:
        line = _line(event, trace=self._trace)
        if line is not None:
            console = self._console if isinstance(event, CaptionDone | Verdict) else self._errors
            console.print(line, soft_wrap=True, highlight=False)


@dataclass(slots=True)
class _Row:
    """What the table shows of a stream."""

    verdict: Verdict | None = None
    caption: str = ""
    is_over: bool = False


class LiveView:
    """Captions scroll by above a table of the streams' verdicts and the engine's use."""

    def __init__(self, console: Console, stream_ids: Sequence[StreamId]) -> None:
        self._rows = {stream_id: _Row() for stream_id in stream_ids}
        self._colours = {stream_id: COLOURS[i % len(COLOURS)] for i, stream_id in enumerate(stream_ids)}
        self._live = Live(console=console, refresh_per_second=REFRESH_HZ, transient=False)
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, event: StreamEvent | None, stats: EngineStats) -> None:
        if event is not None:
            row = self._rows[event.stream_id]
            match event:
                case Verdict():
                    row.verdict = event
                case CaptionDone():
                    row.caption = printable(event.text)
                case StreamEnded():
                    row.is_over = True
        line = _line(event, colours=self._colours)
        if line is not None:
            line.truncate(MAX_CAPTION_LINES * self._live.console.width, overflow="ellipsis")
            self._live.console.print(line)
        now = time.monotonic()
        if now - self._drawn >= 1 / REFRESH_HZ or isinstance(event, StreamEnded):
            self._drawn = now
            self._live.update(Group(self._table(), self._footer(stats, now)))

    def _table(self) -> Table:
        """A row for each stream, as many as half the terminal holds, those still watched first."""
        console = self._live.console
        is_wide = console.width >= WIDE
        table = Table(expand=True, show_edge=False)
        table.add_column("stream", no_wrap=True, max_width=console.width // 4)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        if is_wide:
            table.add_column("ratio", justify="right", no_wrap=True)
        table.add_column("caption", ratio=1, no_wrap=True, overflow="ellipsis")
        rows = sorted(self._rows.items(), key=lambda item: item[1].is_over)
        most = max(1, console.height // 2 - 3)
        for stream_id, row in rows[:most]:
            verdict = row.verdict
            ratio = "" if verdict is None or verdict.ratio is None else f"{verdict.ratio:.3f} / {verdict.threshold:.3f}"
            table.add_row(
                Text(printable(stream_id), style=self._colours[stream_id]),
                "" if verdict is None else clock(verdict.time_s),
                Text("ended", style="dim") if row.is_over else _verdict_text(verdict),
                *([ratio] if is_wide else []),
                Text(row.caption),
            )
        if len(rows) > most:
            table.add_row(Text(f"and {len(rows) - most} more", style="dim"))
        return table

    def _footer(self, stats: EngineStats, now: float) -> Text:
        rate = stats.num_frames / max(now - self._started, 1e-9)
        used = stats.num_kv_tokens_used / stats.num_kv_tokens
        return Text(
            f"{stats.num_frames} frames, {rate:.1f} per second · {stats.num_captions} captions · "
            f"KV {stats.num_kv_tokens_used} of {stats.num_kv_tokens} tokens ({used:.0%})",
            style="dim",
        )


def _verdict_text(verdict: Verdict | None) -> Text:
    if verdict is None:
        return Text("waiting", style="dim")
    return Text(verdict.decision.value, style="bold green" if verdict.decision is Decision.RESPOND else "dim")


def _line(event: StreamEvent | None, *, colours: dict[StreamId, str] | None = None, trace: bool = False) -> Text | None:
    """The event as a line of text; None where it is none of a reader's business, as verdicts are unless traced."""
    if event is None:
        return None
    style = (colours or {}).get(event.stream_id, "")
    head = Text.assemble((f"{clock(event.time_s):>9} ", "dim"), (f"[{printable(event.stream_id)}] ", style))
    match event:
        case CaptionDone():
            return head.append(printable(event.text), style="")
        case Verdict() if trace:
            ratio = "" if event.ratio is None else f" {event.ratio:.4f} of {event.threshold:.4f}"
            return head.append(event.decision.value + ratio, style="dim")
        case Notice():
            return head.append(f"{event.code} x{event.count}: {printable(event.message)}", style="yellow")
        case StreamEnded(error=None):
            return head.append("ended", style="dim")
        case StreamEnded():
            return head.append(f"error: {printable(event.error or '')}", style="red")
    return None
