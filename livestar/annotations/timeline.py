"""The events of a video, drawn for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from livestar.view import COLOURS, clock, printable

if TYPE_CHECKING:
    from livestar.annotations.types import AnnotatedVideo

BLOCK, GAP = "\N{FULL BLOCK}", "\N{MIDDLE DOT}"


def span_of(video: AnnotatedVideo) -> tuple[float, float]:
    """Begin and end of what is shown: the part, or all that is known of the video."""
    last_s = video.events[-1].end_s if video.events else 0.0
    end_s = video.end_s if video.end_s is not None else max(video.duration_s or 0.0, last_s)
    return video.begin_s, max(end_s, video.begin_s)


def bar(video: AnnotatedVideo, width: int) -> Text:
    """One cell for each stretch of time, in the colour of the event that lasts in its middle; a dot in a gap."""
    begin_s, end_s = span_of(video)
    text = Text()
    event = 0
    for cell in range(width):
        middle_s = begin_s + (end_s - begin_s) * (cell + 0.5) / width
        while event < len(video.events) and video.events[event].end_s <= middle_s:
            event += 1
        if event < len(video.events) and video.events[event].begin_s <= middle_s:
            text.append(BLOCK, style=COLOURS[event % len(COLOURS)])
        else:
            text.append(GAP, style="dim")
    return text


def event_table(video: AnnotatedVideo, *, max_events: int) -> Table:
    """Begin, length and captions of the first events."""
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for place, event in enumerate(video.events[:max_events]):
        more = len(event.captions) - 1
        caption = Text(printable(event.caption), style=COLOURS[place % len(COLOURS)])
        if more:
            caption.append(f"  (+{more} paraphrase{'s' if more > 1 else ''})", style="dim")
        table.add_row(clock(event.begin_s), f"{event.end_s - event.begin_s:.1f} s", caption)
    left = len(video.events) - max_events
    if left > 0:
        table.add_row("", "", Text(f"and {left} more; --max-events shows them", style="dim"))
    return table
