"""What the documents say: their snippets and examples run, their links, tables and names agree with the code."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.core
import typer.main

from livestar.cli import app
from livestar.records import to_record
from livestar.types import CaptionDone, Decision, Notice, StreamEnded, StreamId, Verdict

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "livestar", "training", "benchmarks")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))]
)
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
SNIPPET_TIMEOUT_S = 240

SKIPPED = {
    "make setup\n": "installs; CI has run it before the tests",
    "make test\n": "runs this test; CI has run make check before it",
    ".venv/bin/livestar watch door.mp4 --model LiveStar_8B": "needs the published weights",
}
"""Shell snippets that are not run, by how they begin, and why."""

EVENTS = {
    "caption": CaptionDone(stream_id=StreamId("a"), frame=1, time_s=0.0, text="A car."),
    "verdict": Verdict(
        stream_id=StreamId("a"),
        frame=1,
        time_s=0.0,
        decision=Decision.RESPOND,
        perplexity=None,
        reference_perplexity=2.0,
        threshold=1.03,
        ratio=None,
    ),
    "notice": Notice(stream_id=StreamId("a"), frame=1, time_s=0.0, code="looped", message="It starts again."),
    "end": StreamEnded(stream_id=StreamId("a"), frame=1, time_s=0.0),
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def snippets(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(document), flags=re.DOTALL | re.MULTILINE)


def first_line(snippet: str) -> str:
    return snippet.splitlines()[0]


def table_rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the tables under `heading`, headings of deeper levels included, without their head rows."""
    level = heading.split(" ")[0]
    section = re.split(rf"^#{{1,{len(level)}}} ", text.split(f"\n{heading}\n")[1], flags=re.MULTILINE)[0]
    lines = section.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for above, line in zip(["", *lines], lines, strict=False)
        if line.startswith("|") and above.startswith("|") and not line.startswith("|---")
    ]


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WATCH_ARGS": "--pace fast"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SNIPPET_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like the repository's root, environment included, and may be written to."""
    assert sys.prefix != sys.base_prefix, "the snippets need a virtual environment; run `make test`"
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name not in {".git", ".venv", "models", "rooms", "runs", ".livestar-cache"}:
            (folder / path.name).symlink_to(path)
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".livestar-installed":
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / ".livestar-installed").touch()  # newest of all, so that make does not install
    yield folder


@pytest.mark.slow
@pytest.mark.parametrize("snippet", [pytest.param(s, id=first_line(s)) for s in snippets("README.md", "sh")])
def test_the_shell_snippets_of_the_readme_run(clone: Path, snippet: str) -> None:
    for beginning, reason in SKIPPED.items():
        if snippet.startswith(beginning):
            pytest.skip(reason)
    run(["bash", "-euo", "pipefail", "-c", snippet], clone)


def test_every_snippet_that_is_skipped_is_in_the_readme() -> None:
    found = snippets("README.md", "sh")
    assert [beginning for beginning in SKIPPED if not any(s.startswith(beginning) for s in found)] == []


@pytest.mark.slow
@pytest.mark.parametrize("snippet", [pytest.param(s, id=first_line(s)) for s in snippets("README.md", "python")])
def test_the_python_snippets_of_the_readme_run(clone: Path, snippet: str) -> None:
    assert len(snippet.splitlines()) < 25
    assert "ratio" in run([".venv/bin/python", "-W", "error", "-c", snippet], clone)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run_and_are_short(clone: Path, name: str) -> None:
    assert len(read(f"examples/{name}").splitlines()) < 60
    if "events.jsonl" in read(f"examples/{name}"):
        film = "livestar/assets/french_gp_1906.ogv"
        watch = f".venv/bin/livestar watch {film} --pace fast --trace --output events.jsonl"
        run(watch.split(), clone)
    assert run([".venv/bin/python", "-W", "error", f"examples/{name}"], clone)


def test_the_examples_are_numbered_and_listed_in_the_readme() -> None:
    assert [name[:3] for name in EXAMPLES] == [f"{number:02d}_" for number in range(1, len(EXAMPLES) + 1)]
    assert [name for name in EXAMPLES if f"(examples/{name})" not in read("README.md")] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_somewhere(document: str) -> None:
    broken = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", read(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_is_left_to_be_written(document: str) -> None:
    assert re.findall(r"TODO|TBD|FIXME", read(document)) == []


def anchors(file: Path) -> set[str]:
    """Anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_options_of_the_readme_are_those_of_the_command() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    options = {
        name: parameter
        for parameter in group.commands["watch"].params
        if parameter.param_type_name == "option"
        for name in [*parameter.opts, *parameter.secondary_opts]
        if name not in {"--help", "-h"}
    }
    told: dict[str, str] = {}
    for row in table_rows(read("README.md"), "## Options of `livestar watch`"):
        told |= dict.fromkeys(re.findall(r"`([^`]+)`", row[0]), row[1])
    assert told.keys() == options.keys()
    for name, parameter in options.items():
        if parameter.required:
            assert told[name] == "required", name
        elif parameter.default is False:
            assert told[name] == "off", name
        elif parameter.default is not None:
            assert told[name] == f"`{parameter.default}`", name
        else:
            assert not told[name].startswith("`"), f"{name} has no fixed default"


def test_the_help_shows_every_option_of_the_readme() -> None:
    shown = run([sys.executable, "-m", "livestar.cli", "watch", "--help"], ROOT)
    for row in table_rows(read("README.md"), "## Options of `livestar watch`"):
        assert re.findall(r"--[a-z-]+", row[0])[0] in shown


def notice_codes() -> set[str]:
    """The codes of all notices that the code makes: words given to whatever makes one."""
    codes = set()
    for path in [*(ROOT / "livestar").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in {"Notice", "Tally", "_notice", "_on_notice", "on_notice", "notify"}:
                continue
            arguments = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
            words = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
            codes |= {word for word in words if isinstance(word, str) and re.fullmatch(r"[a-z]+(_[a-z]+)*", word)}
    return codes


def test_the_notice_codes_are_those_of_the_code() -> None:
    rows = table_rows(read("docs/events.md"), "### Notice codes")
    assert {row[0].strip("`") for row in rows} == notice_codes()
    assert len(rows) == len(notice_codes()) >= 7


@pytest.mark.parametrize("kind", EVENTS)
def test_the_fields_of_an_event_are_those_of_its_record(kind: str) -> None:
    text = read("docs/events.md")
    common = [row[0].strip("`") for row in table_rows(text, "## Fields of every event")]
    own = [row[0].strip("`") for row in table_rows(text, f"## {kind}")]
    record = to_record(EVENTS[kind])
    assert list(record)[: len(common)] == common
    assert {*common, *own[: len(record) - len(common)]} == record.keys()
    examples = [json.loads(line) for line in "".join(snippets("docs/events.md", "json")).splitlines()]
    assert [example.keys() == record.keys() for example in examples if example["type"] == kind].count(True) >= 1
    assert all(example.keys() == record.keys() for example in examples if example["type"] == kind)


def test_every_file_and_test_that_the_architecture_names_exists() -> None:
    text = read("ARCHITECTURE.md")
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|toml|txt))`", text))
    assert len(named) > 20
    assert sorted(name for name in named if not any((ROOT / folder / name).is_file() for folder in ("", "livestar"))) == []
    tests = set(re.findall(r"`(test_\w+)`", text))
    assert len(tests) > 10
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert sorted(name for name in tests if f"def {name}(" not in written) == []


def test_the_make_targets_that_the_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    for document in DOCUMENTS:
        text = read(document)
        named = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, flags=re.MULTILINE))
        assert named <= targets, document
