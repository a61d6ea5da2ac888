"""`livestar train`.  What needs torch or Ray is imported inside, so that help answers at once."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from livestar.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.progress import Progress, TaskID

    from training.config import TrainConfig

err = Console(stderr=True)
app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def train(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A TOML file, or the name of a config that comes with LiveStar.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change a setting, such as optim.learning_rate=1e-4. Repeatable."
        ),
    ] = None,
    list_configs: Annotated[bool, typer.Option("--list", help="List the configs that come with LiveStar.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved settings and stop.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what the run's folder holds and start anew.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Train on a Ray cluster: its address, or local to start one here.", show_default=False
        ),
    ] = None,
) -> None:
    """Fine-tune a model on annotated videos, with streaming causal attention masks.

    Example: livestar train finetune --set data.files=room.events.jsonl --set run.output=runs/room

    The finished model is in the run's folder under model; watch with it by --model runs/room/model.  A run that was killed
    goes on when the same command is given again.
    """
    started = time.monotonic()
    from training.config import load_config, named_configs

    out = Console()
    if list_configs:
        for name, about in named_configs().items():
            out.print(Text(f"{name:<20} {about}"), soft_wrap=True)
        return
    if config is None:
        raise typer.BadParameter("name a config; livestar train --list shows those that come with LiveStar")
    resolved = load_config(config, settings or [])
    if show:
        out.print_json(data=resolved.as_dict())
        return
    if restart:
        from training.prepare import read_footage
        from training.run import restart as forget

        read_footage(resolved.data)  # before anything is removed, for what follows may be refused
        forget(Path(resolved.run.output))
    with Terminal() as terminal, warnings_shown(terminal):
        try:
            if ray is not None or resolved.run.workers > 1:
                target = _train_on_ray(resolved, ray or "local", terminal, started)
            else:
                target = _train_here(resolved, terminal, started)
        except KeyboardInterrupt as stopped:
            terminal.say(str(stopped) or "interrupted; give the same command again to go on")
            raise
    out.print(Text(f"the model is in {target}; watch with it: livestar watch SOURCE --model {target}"), soft_wrap=True)


@contextlib.contextmanager
def warnings_shown(terminal: Terminal) -> Iterator[None]:
    """What training warns of is shown, whatever the level of the log: a video that is left out, a window that is cut."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: terminal.say(f"note: {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("training")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _train_here(config: TrainConfig, terminal: Terminal, started: float) -> Path:
    from livestar.session import resolve_device
    from training.run import train as run_here
    from training.world import World

    device = resolve_device("auto")
    if config.run.use_gpu and device.type == "cpu":
        terminal.say("there is no GPU here: run.use_gpu asks for one on Ray (--ray) only, and this run takes the CPU")
    return run_here(config, World(device=device), terminal, started=started)


def _train_on_ray(config: TrainConfig, address: str, terminal: Terminal, started: float) -> Path:
    try:
        from training.job import train_on_ray
    except ImportError as error:
        raise InvalidConfig(f"Ray is not installed ({error}); pip install 'livestar[train]'") from error
    return train_on_ray(config, address=address, reporter=terminal, started=started)


class Terminal:
    """Shows a run: one bar per stage in a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last = ""
        self._said = 0.0

    def __enter__(self) -> Terminal:
        if err.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._progress = Progress(*columns, console=err)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """One bar per stage; without a terminal a line at most every ten seconds, and at the end."""
        if self._progress is not None:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, note="")
            self._progress.update(self._tasks[name], completed=done, total=total, note=self._last if name == "training" else "")
        elif time.monotonic() - self._said > 10 or done == total:
            self._said = time.monotonic()
            note = f" {self._last}" if name == "training" else ""
            err.print(Text(f"{name}: {done} of {total}{note}"), soft_wrap=True)

    def step(self, record: Mapping[str, float | int]) -> None:
        """Keeps the newest numbers for the next line."""
        if "holdout_loss" in record:
            self.say(f"step {record['step']}: held-out loss {record['holdout_loss']:.4f}")
        else:
            self._last = f"loss {record['loss']:.3f}"

    def say(self, text: str) -> None:
        """A line of its own."""
        err.print(Text(text), soft_wrap=True)
