"""What `livestar evaluate` shows and writes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from livestar.errors import LiveStarError
from livestar.view import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from livestar.evaluation.evaluation import Evaluation

out = Console()
err = Console(stderr=True)


def note(text: str) -> None:
    """Tells a person something that is no error."""
    err.print(Text(f"note: {printable(text)}", style="yellow"), soft_wrap=True)


@contextlib.contextmanager
def progress(total: int | None = None) -> Iterator[Callable[[str], Callable[[], None] | None]]:
    """Shows in a terminal what is being done, and how many frames or answers of `total`, where that is known, it took so far."""
    if not err.is_terminal:
        yield lambda stage: None
        return
    done = TextColumn("{task.completed:.0f}" if total is None else "{task.completed:.0f}/{task.total:.0f}")
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:

        def on_stage(stage: str) -> Callable[[], None]:
            task = bar.add_task(stage, total=total)
            return lambda: bar.advance(task)

        yield on_stage


def report(evaluation: Evaluation, *, as_json: bool, output: Path | None, html: Path | None) -> None:
    """Writes what was asked for, and prints the summary."""
    if output is not None:
        write_json(output, evaluation.details())
    if html is not None:
        from livestar.evaluation.report import render

        write_text(html, render(evaluation))
    if as_json:
        print_json(evaluation.summary())
        return
    from livestar.evaluation.table import make_tables

    for table in make_tables(evaluation):
        out.print(table)
    for failure in evaluation.failures:
        err.print(Text(printable(f"failed: {failure.name}: {failure.error}"), style="red"), soft_wrap=True)


def print_json(record: Mapping[str, object]) -> None:
    """One line on standard output."""
    sys.stdout.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """As `write_text`, for people to read as well."""
    write_text(path, json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all.  Raises `LiveStarError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LiveStarError(f"{path} cannot be written ({error.strerror}); free some space or choose another file") from error
