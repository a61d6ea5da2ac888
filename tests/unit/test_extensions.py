"""Commands of other packages: listed without being imported, run when asked for, and named when they cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from livestar.errors import InvalidConfig
from livestar.extensions import GROUP, add_extensions

pytestmark = pytest.mark.unit

MODULE = """
import typer
app = typer.Typer()

@app.command()
def train(config: str, set: list[str] = typer.Option([], help="Overrides."), fail: bool = False) -> None:
    \"\"\"Trains, at length.\"\"\"
    print("trained", config, set)
    if fail:
        raise typer.Exit(3)

def count(number: int = 1) -> None:
    print("counted", number)

nothing = 7
"""


@pytest.fixture
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "livestar_extension.py").write_text(MODULE)
    (tmp_path / "livestar_broken.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "livestar_extension"
    sys.modules.pop("livestar_extension", None)


def command(**entries: str) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def watch() -> None:
        print("watched")

    @app.command("model-info")
    def info() -> None:
        print("told")

    add_extensions(app, [EntryPoint(name.replace("_", "-"), value, GROUP) for name, value in entries.items()])
    return app


def run(app: typer.Typer, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_help_lists_commands_without_importing_them(extension: str) -> None:
    status, printed = run(command(train=f"{extension}:app", gone="livestar_broken:app"), "--help")
    assert status == 0
    assert "Fine-tune a model" in printed
    assert "From the package livestar_broken" in printed
    assert extension not in sys.modules


def test_every_word_reaches_the_command(extension: str) -> None:
    app = command(train=f"{extension}:app")
    assert run(app, "train", "room.toml", "--set", "a=1", "--set", "b=--x") == (0, "trained room.toml ['a=1', 'b=--x']\n")
    assert run(app, "train", "--set", "a=1", "--", "--odd")[1] == "trained --odd ['a=1']\n"


def test_its_help_is_its_own(extension: str) -> None:
    status, printed = run(command(train=f"{extension}:app"), "train", "--help")
    assert status == 0
    assert "Trains, at length." in printed
    assert "train [OPTIONS] {config}" in printed or "CONFIG" in printed


def test_its_exit_status_is_the_commands(extension: str) -> None:
    app = command(train=f"{extension}:app")
    assert run(app, "train", "x", "--fail")[0] == 3
    status, printed = run(app, "train", "x", "--unknown")
    assert status == 2
    assert "--unknown" in printed


def test_a_function_is_a_command_too(extension: str) -> None:
    assert run(command(count=f"{extension}:count"), "count", "--number", "4") == (0, "counted 4\n")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("livestar_broken:app", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        ("livestar_missing:app", "No module named 'livestar_missing'"),
        ("livestar_extension:absent", "AttributeError"),
        ("livestar_extension:nothing", "neither a typer app nor a function"),
    ],
)
def test_one_that_cannot_be_loaded_is_named_with_what_failed(extension: str, value: str, message: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        run(command(train=value), "train", "x")
    assert message in str(refused.value)
    assert "'train'" in str(refused.value)
    assert value in str(refused.value)


def test_the_librarys_own_commands_win(extension: str) -> None:
    app = command(watch=f"{extension}:count", model_info=f"{extension}:count")
    assert run(app, "watch") == (0, "watched\n")
    assert run(app, "model-info") == (0, "told\n")
