"""The `livestar` command.

What needs torch or av is imported inside the commands, so that help and shell completion answer at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO
from urllib.parse import unquote, urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.text import Text

from livestar import __version__
from livestar.annotations.cli import app as data_app
from livestar.config import (
    DTypeName,
    GateConfig,
    GateName,
    MediaConfig,
    Pace,
    RetentionConfig,
    RetentionName,
    SamplingConfig,
    StreamConfig,
)
from livestar.errors import InvalidConfig, InvalidRequest, LiveStarError
from livestar.evaluation.cli import evaluate
from livestar.extensions import add_extensions
from livestar.records import to_line
from livestar.types import CaptionDone, Notice, StreamEnded, Verdict
from livestar.view import LiveView, PlainView, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livestar.session import WatchSession
    from livestar.types import StreamEvent
    from livestar.view import View

EXIT_FAILED = 1
"""A source or the engine failed."""
EXIT_USAGE = 2
"""What was asked for cannot be."""
EXIT_INTERRUPTED = 130
READ_SUFFIXES = {".json", ".safetensors", ".model", ".png", ".jpg", ".jpeg", ".webp", ".bmp"}
"""What files of a model and pictures of a folder end with."""

app = typer.Typer(
    help="Watch live video with a streaming video language model that speaks only when something changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)


def main() -> None:
    """Runs the command; an expected error becomes one line and an exit status, never a traceback.

    Being asked to terminate ends like Ctrl-C: streams are closed and their last events written.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character shows its number instead
    try:
        app()
        sys.stdout.flush()
    except OSError as error:  # of printing; every other is named where it arises
        sys.stdout = None  # Python would try again when it exits
        err.print(Text(f"error: standard output cannot be written: {error.strerror}", style="red"), soft_wrap=True)
        sys.exit(EXIT_FAILED)
    except LiveStarError as error:
        err.print(Text(f"error: {printable(str(error))}", style="red"), soft_wrap=True)
        sys.exit(EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"livestar {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside to the error stream.")] = False,
) -> None:
    """Options of every command."""
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(asctime)s %(name)s %(message)s")


@app.command()
def watch(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Files, folders of pictures, or http, rtsp, rtmp, srt and udp addresses."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a checkpoint in the LiveStar-8B format, or of a LoRA adapter. Default: livestar-mini, which ships "
            "with LiveStar.",
            show_default=False,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames to look at per second of media. Default: the model's own, or 1.", rich_help_panel="Media"),
    ] = None,
    pace: Annotated[
        Pace,
        typer.Option(
            help="realtime plays files at their speed and drops late frames; fast waits instead.", rich_help_panel="Media"
        ),
    ] = "realtime",
    start: Annotated[float, typer.Option(help="Where to start in a file, in seconds.", rich_help_panel="Media")] = 0.0,
    loop: Annotated[bool, typer.Option("--loop", help="Start a file again when it ends.", rich_help_panel="Media")] = False,
    stall_timeout: Annotated[
        float, typer.Option(help="Seconds without data before a source counts as stalled.", rich_help_panel="Media")
    ] = 10.0,
    max_reconnects: Annotated[
        int, typer.Option(help="Attempts to reopen a lost live source before giving up.", rich_help_panel="Media")
    ] = 5,
    gate: Annotated[
        GateName | None,
        typer.Option(
            help="How a caption is verified against a frame. Default: the model's own.", rich_help_panel="When to speak"
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Speak when perplexity exceeds this many times its reference. Default: the model's own, or 1.03.",
            rich_help_panel="When to speak",
        ),
    ] = None,
    response_rate: Annotated[
        float | None,
        typer.Option(
            help="Instead of a threshold: share of frames to speak on; calibrates itself.", rich_help_panel="When to speak"
        ),
    ] = None,
    keep_captions: Annotated[
        bool | None,
        typer.Option(help="Keep finished captions in the context. Default: the gate's own.", rich_help_panel="When to speak"),
    ] = None,
    retention: Annotated[
        RetentionName | None,
        typer.Option(
            help="Which frames stay when the context is full. Default: the model's own, or peak-end.", rich_help_panel="Memory"
        ),
    ] = None,
    kv_tokens: Annotated[
        int | None,
        typer.Option(help="Context budget of a stream, in tokens. Default: the model's own, or 8192.", rich_help_panel="Memory"),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Longest caption, in tokens. Default: the model's own, or 256.", rich_help_panel="What to say"),
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1 discourages repeating words; 1 is off.", rich_help_panel="What to say")
    ] = 1.05,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above it samples.", rich_help_panel="What to say")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from this share of the probability.", rich_help_panel="What to say")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel="What to say")] = 0,
    prompt: Annotated[
        str | None,
        typer.Option(help="Task for the model. Default: the model's own, or the published one.", rich_help_panel="What to say"),
    ] = None,
    dtype: Annotated[DTypeName, typer.Option(help="Number format of weights and cache.", rich_help_panel="Where")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...", rich_help_panel="Where")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU cores to use. Default: all of them.", rich_help_panel="Where")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Write a verdict for every frame, to --output or else as a line of text.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Write events as JSON lines to this file; - is standard output.", show_default=False),
    ] = None,
) -> None:
    """Watch one or more sources and print a caption whenever something changed.

    Example: livestar watch door.mp4 rtsp://camera/yard --model LiveStar_8B --fps 2 --output events.jsonl

    Exit status: 0 when every source ended regularly; 1 when one failed, or had only empty captions; 2 when the request could
    not be met; 130 when interrupted.
    """
    media = MediaConfig(
        fps=MediaConfig().fps if fps is None else fps,
        pace=pace,
        start_s=start,
        loop=loop,
        stall_timeout_s=stall_timeout,
        max_reconnects=max_reconnects,
    )
    stream = StreamConfig(
        prompt=prompt,
        gate=GateConfig(name=gate, threshold=threshold, response_rate=response_rate, keep_captions=keep_captions),
        retention=RetentionConfig(name=retention, kv_tokens=kv_tokens, seed=seed),
        sampling=SamplingConfig(
            max_new_tokens=max_new_tokens,
            repetition_penalty=repetition_penalty,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        ),
    )
    from livestar.model.config import load_config
    from livestar.model.mini import model_directory
    from livestar.session import WatchSession, check_request, load_checkpoint, share_cores

    directory = model_directory(model)
    _check_output(output, [*sources, str(directory)])
    own = load_config(directory)
    if fps is None and own.fps is not None:
        media = replace(media, fps=own.fps)
    check_request(directory, stream)
    with _opened(output) as file:
        with _loading() as on_progress:
            checkpoint = load_checkpoint(directory, dtype=dtype, device=device, on_progress=on_progress)
        note = checkpoint.model.config.watch.get("note")
        if note is not None:
            err.print(Text(f"note: {printable(str(note))}", style="yellow"), soft_wrap=True)
        num_workers = share_cores(checkpoint.model, threads or os.cpu_count() or 1)
        session = WatchSession(checkpoint, sources, media, stream, num_workers=num_workers)
        with _view(session, is_piped=output == Path("-"), trace=trace) as view:
            is_good = _run(session, view, file, trace=trace)
    if not is_good:
        raise typer.Exit(EXIT_FAILED)


def _run(session: WatchSession, view: View, file: TextIO | None, *, trace: bool) -> bool:
    """Moves events from the session to the view and the file; False where a stream failed or never had a caption to say."""
    spoke: set[str] = set()
    only_empty: set[str] = set()
    failed: set[str] = set()

    def take(event: StreamEvent | None) -> None:
        view.show(event, session.stats)
        if file is not None and event is not None and (trace or not isinstance(event, Verdict)):
            _write(file, to_line(event))
        match event:
            case CaptionDone():
                spoke.add(event.stream_id)
            case Notice(code="empty_caption"):
                only_empty.add(event.stream_id)
            case StreamEnded(error=str()):
                failed.add(event.stream_id)

    try:
        with session:
            for event in session.events():
                take(event)
    except KeyboardInterrupt:
        for event in session.remaining_events():
            take(event)
        raise
    return not failed and not only_empty - spoke


def _write(file: TextIO, line: str) -> None:
    try:
        file.write(line)
        file.flush()
    except BrokenPipeError:
        raise typer.Exit(EXIT_FAILED) from None
    except OSError as error:
        raise LiveStarError(
            f"{file.name} cannot be written: {error.strerror}; free some space or choose another --output"
        ) from error


def _would_overwrite(path: Path, name: str) -> bool:
    """Whether `path` is the file `name`, or a file of a kind that is read in the folder `name`."""
    try:
        source = Path(unquote(urlsplit(name).path) if name.lower().startswith("file:") else name)
        is_inside = path.suffix.lower() in READ_SUFFIXES and source.resolve() in path.resolve().parents
        return path.exists() and source.exists() and (is_inside or path.samefile(source))
    except (OSError, ValueError):  # no name of a file
        return False


def _check_output(path: Path | None, read: list[str]) -> None:
    """Refuses an output that cannot be written, or that would overwrite something that is read."""
    if path is None:
        return
    if path == Path("-"):
        if sys.stdout is None:
            raise InvalidConfig("output is '-', but standard output is closed; choose another --output")
        return
    if any(_would_overwrite(path, name) for name in read):
        raise InvalidConfig(
            f"output is {str(path)!r}, which is one of the sources or of the model's files and would be overwritten; "
            "choose another --output"
        )
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidConfig(f"output is {str(path)!r}, which is no file that can be written; choose another --output")


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[TextIO | None]:
    """The output file, emptied and locked; standard output in UTF-8 for `-`."""
    if path is None:
        yield None
        return
    if path == Path("-"):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    try:
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InvalidConfig(
            f"output is {str(path)!r}, which cannot be written ({error.strerror}); choose another --output"
        ) from error
    try:
        _claim(file, path)
        yield file
    finally:
        with contextlib.suppress(OSError):  # every line was flushed when it was written, and its failure told then
            file.close()


def _claim(file: TextIO, path: Path) -> None:
    """Empties a file that no other process writes; a pipe or device is taken as it is."""
    if path.is_file():
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidConfig(f"output is {str(path)!r}, which another process is writing; choose another --output") from error
        file.truncate(0)


@contextlib.contextmanager
def _loading() -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar for the weights, in a terminal."""
    if not err.is_terminal:
        yield None
        return
    with Progress(TextColumn("loading"), BarColumn(), DownloadColumn(), console=err, transient=True) as progress:
        task = progress.add_task("loading")
        yield lambda read, total: progress.update(task, completed=read, total=total)


def _view(session: WatchSession, *, is_piped: bool, trace: bool) -> View:
    if is_piped:
        return PlainView(Console(quiet=True), err)
    return LiveView(out, session.stream_ids) if out.is_terminal else PlainView(out, err, trace=trace)


app.command()(evaluate)
app.add_typer(data_app, name="data")


@app.command("model-info")
def model_info(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Directory of a checkpoint. Default: livestar-mini.", show_default=False),
    ] = None,
    memory: Annotated[float, typer.Option(min=0, max=1e6, help="Memory to fit into, in GiB.")] = 80.0,
    kv_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Context budget of a stream, in tokens. Default: the model's own, or 8192."),
    ] = None,
) -> None:
    """Print a model's sizes and token counts, and how many streams fit into a given memory."""
    from livestar.model.mini import model_directory
    from livestar.summary import summarise

    out.print(summarise(model_directory(directory), memory_gib=memory, kv_tokens=kv_tokens))


@app.command("demo-checkpoint")
def demo_checkpoint(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it; made if it is not there.")],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same weights.")] = 0,
) -> None:
    """Write a small checkpoint with random weights, to try the system without a trained model."""
    from livestar.model.demo import NOTE, write_demo_checkpoint

    try:
        write_demo_checkpoint(directory, seed=seed)
    except OSError as error:
        raise InvalidConfig(f"{directory} cannot be written ({error.strerror}); choose another directory") from error
    out.print(Text(printable(f"{directory}: {NOTE}")), soft_wrap=True)


add_extensions(app)

if __name__ == "__main__":
    main()
