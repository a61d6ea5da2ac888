"""`livestar data`: check, convert and show annotations.

What needs av or numpy is imported inside the commands, so that help and shell completion answer at once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from livestar.errors import InvalidConfig
from livestar.view import clock, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livestar.annotations.survey import Survey

EXIT_FAILED = 1
EXIT_USAGE = 2
MAX_BAR_CELLS = 120

app = typer.Typer(help="Check, convert and show annotated videos.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Annotations: events, text, released JSONL or meta JSON.")]


@app.command()
def check(
    files: Files,
    media: Annotated[bool, typer.Option("--media", help="Also open every video and read it to its end.")] = False,
    fps: Annotated[
        float | None,
        typer.Option(min=0.001, max=240, help="Count the events that sampling at this rate would miss.", show_default=False),
    ] = None,
) -> None:
    """Say what annotations hold, and everything that is wrong with them.

    Columns: minutes of video, captions with paraphrases, mean words of a caption, median length of an event, and with --fps the
    events in which no frame would lie.
    Exit status: 0 when all is well, 2 when an annotation is wrong, 1 when only videos are missing or damaged.
    """
    from livestar.annotations.survey import survey

    surveys = []
    for file in files:
        with _progress("reading videos") as on_video:
            surveys.append(survey(file, media=media, fps=fps, on_video=on_video))
    out.print(_table(surveys, fps))
    for found in surveys:
        _print_problems(found)
    if any(found.num_wrong for found in surveys):
        raise typer.Exit(EXIT_USAGE)
    if any(found.num_bad_videos for found in surveys):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Annotations in any format.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    to: Annotated[Literal["events", "text", "released"], typer.Option(help="Format to write.")],
    frames: Annotated[
        Path | None,
        typer.Option(help="For released: folder to write the pictures to, one per second of video.", show_default=False),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="For released: task before the first frame. Default: the published one.")
    ] = None,
) -> None:
    """Write annotations in another format; what that format cannot say is counted.

    Example: livestar data convert room.events.jsonl room.jsonl --to released --frames room-pictures
    """
    from livestar.annotations.convert import convert as convert_videos
    from livestar.annotations.convert import meta_path
    from livestar.annotations.read import read_annotations

    if to != "released" and (frames is not None or task is not None):
        raise InvalidConfig("frames and task are for released only; leave them out, or add --to released")
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidConfig(f"{target} is the input and would be overwritten; choose another file")
    if to == "released" and task is None:
        from livestar.model.prompt import TASK_PROMPT

        task = TASK_PROMPT
    videos = read_annotations(source)
    with _progress("converting") as on_video:
        lost = convert_videos(videos, target, to, frames=frames, task=task or "", on_video=on_video)
    written = f"{target} and {meta_path(target)}" if to == "released" else str(target)
    out.print(Text(printable(f"{written}: {_count(len(videos), 'video')}")), soft_wrap=True)
    for what, number in sorted(lost.items()):
        err.print(Text(f"note: {what}: {number}", style="yellow"), soft_wrap=True)


@app.command()
def show(
    files: Files,
    max_videos: Annotated[int, typer.Option(min=1, help="Videos to show of each file.")] = 10,
    max_events: Annotated[int, typer.Option(min=1, help="Events to show of each video.")] = 30,
) -> None:
    """Draw a timeline of the events of each video."""
    from livestar.annotations.read import read_annotations
    from livestar.annotations.timeline import bar, event_table, span_of

    for file in files:
        videos = read_annotations(file)
        for video in videos[:max_videos]:
            begin_s, end_s = span_of(video)
            about = f"{video.name}: {clock(begin_s)} to {clock(end_s)}, {_count(len(video.events), 'event')}"
            out.print(Text(printable(about), style="bold"), soft_wrap=True)
            out.print(bar(video, min(out.width, MAX_BAR_CELLS)))
            out.print(event_table(video, max_events=max_events))
            out.print()
        if len(videos) > max_videos:
            left = _count(len(videos) - max_videos, "more video")
            out.print(Text(printable(f"{left} in {file}; --max-videos shows them"), style="dim"), soft_wrap=True)


def _table(surveys: list[Survey], fps: float | None) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("file", overflow="fold", min_width=8)
    table.add_column("format", no_wrap=True)
    for name in ("videos", "events", "minutes", "captions", "words", "median"):
        table.add_column(name, justify="right", no_wrap=True)
    if fps is not None:
        table.add_column("missed", justify="right", no_wrap=True)
    table.add_column("problems", justify="right", no_wrap=True)
    for found in surveys:
        num_problems = found.num_wrong + found.num_bad_videos
        table.add_row(
            Text(printable(Path(found.file).name)),
            found.format,
            f"{len(found.videos)}",
            f"{found.num_events}",
            f"{found.minutes:.1f}",
            f"{found.num_captions}",
            f"{found.words_per_caption:.1f}",
            f"{found.median_event_s:.1f} s",
            *([] if found.num_missed is None else [f"{found.num_missed}"]),
            Text(f"{num_problems}", style="red" if num_problems else "green"),
        )
    return table


def _print_problems(found: Survey) -> None:
    for problem in found.problems:
        err.print(Text(printable(problem), style="red"), soft_wrap=True)
    left = found.num_wrong + found.num_bad_videos - len(found.problems)
    if left > 0:
        err.print(Text(printable(f"{found.file}: and {_count(left, 'more problem')}"), style="red"), soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar, in a terminal."""
    if not err.is_terminal:
        yield None
        return
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), console=err, transient=True) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)
