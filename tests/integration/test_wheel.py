"""What an installation from a wheel holds: every file that the code reads beside itself, and the commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("livestar", "training", "deployments", "router", "storage")
FILES = ("pyproject.toml", "README.md", "LICENSE")
NOT_INSTALLED = {"training/mini/README.md"}
"""Files in the packages that only people read."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of this repository, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([*pip, str(source)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_every_file_of_the_packages_is_in_it(wheel: zipfile.ZipFile) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(files) > 100
    assert sorted(files - set(wheel.namelist())) == sorted(NOT_INSTALLED)


def test_tests_and_benchmarks_are_not_in_it(wheel: zipfile.ZipFile) -> None:
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == set(PACKAGES)


def test_it_names_the_command_and_that_of_training(wheel: zipfile.ZipFile) -> None:
    [entry_points] = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    text = wheel.read(entry_points).decode()
    assert "livestar = livestar.cli:main" in text
    assert "[livestar.commands]\ntrain = training.cli:app" in text


def test_the_notices_travel_with_it(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/licenses/" in name]
    assert {Path(name).name for name in names} >= {"LICENSE", "NOTICE.md"}
