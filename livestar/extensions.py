"""Commands of the command line that live outside the library, found by the entry points that packages declare.

`livestar` may not import `training`, so a package names its command instead: `train = "training.cli:app"` in the group
`livestar.commands`.  Its module is imported when the command is run, so that help and completion answer at once.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import typer

from livestar.errors import InvalidConfig

GROUP = "livestar.commands"

SUMMARIES = {"train": "Fine-tune a model on annotated videos."}
"""What the list of commands says about those of this project; about others it names their package."""

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
"""Leaves every word behind a command's name, `--help` too, to the command itself."""


def add_extensions(app: typer.Typer, found: list[EntryPoint] | None = None) -> None:
    """Adds the commands that installed packages declare; one whose name `app` has already is left out."""
    own = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    for entry in sorted(entry_points(group=GROUP) if found is None else found, key=lambda entry: entry.name):
        if entry.name not in own:
            own.add(entry.name)
            _add(app, entry)


def _add(app: typer.Typer, entry: EntryPoint) -> None:
    package = entry.dist.name if entry.dist is not None else entry.module

    @app.command(entry.name, help=SUMMARIES.get(entry.name, f"From the package {package}."), context_settings=PASS_ON)
    def run(context: typer.Context) -> None:
        status = load_command(entry)(args=context.args, prog_name=context.command_path, standalone_mode=False)
        if isinstance(status, int) and status:  # what `typer.Exit` said in there
            raise typer.Exit(status)


def load_command(entry: EntryPoint) -> typer.Typer:
    """The typer app that an entry point names, or one of the function that it names.  Raises `InvalidConfig`."""
    try:
        target = entry.load()
    except Exception as error:  # whatever a foreign module does while it is imported
        raise InvalidConfig(
            f"the command {entry.name!r} cannot be loaded from {entry.value} ({type(error).__name__}: {error}); "
            f"install what it needs, as pip install 'livestar[{entry.name}]' does for those of LiveStar"
        ) from error
    if isinstance(target, typer.Typer):
        return target
    if not callable(target):
        raise InvalidConfig(f"the command {entry.name!r} cannot be run: {entry.value} is neither a typer app nor a function")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command(entry.name)(target)
    return app
