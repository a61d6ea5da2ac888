"""Fetching footage: packages are checked and unpacked once, or refused with a remedy; clips lie beside annotations."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from livestar.annotations import read_annotations
from livestar.errors import InvalidRequest
from training.mini import real
from training.mini.fetch import fetch
from training.mini.sources import Source

pytestmark = pytest.mark.integration

FILES = {"data/a.png": b"a", "data/deep/b.png": b"b", "data/notes.txt": b"no", "elsewhere/c.png": b"c"}


def packed(path: Path) -> Path:
    """A package with FILES, of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
    elif path.suffix == ".deb":
        root = path.parent / "root"
        for name, content in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN" / "control").write_text(
            "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: t <t@x>\nDescription: t\n"
        )
        subprocess.run(["dpkg-deb", "--build", str(root), str(path)], check=True, capture_output=True)
        shutil.rmtree(root)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name, content in FILES.items():
                info = tarfile.TarInfo(f"./{name}" if path.suffix == ".gz" else name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def source(package: Path, **changes: object) -> Source:
    made = Source(
        name="s",
        registry="npm",
        package="p",
        version="1",
        file=package.name,
        sha256=hashlib.sha256(package.read_bytes()).hexdigest(),
        base="data",
        keep=("*.png",),
        licence="MIT",
        attribution="t",
        use="train",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if name != ".fetched"}


@pytest.mark.parametrize("name", ["p-1.whl", "p-1.tgz", "p-1.tar.gz", "p-1.deb"])
def test_only_the_files_needed_are_taken_and_only_once(tmp_path: Path, name: str) -> None:
    if name.endswith(".deb") and shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here")
    item = source(packed(tmp_path / "packages" / name))
    assert fetch(item, tmp_path, sys.executable) is True
    assert tree(tmp_path / "s") == {"a.png": b"a", "deep/b.png": b"b"}
    assert fetch(item, tmp_path, sys.executable) is False
    assert fetch(dataclasses.replace(item, keep=("notes.txt",)), tmp_path, sys.executable) is True
    assert tree(tmp_path / "s") == {"notes.txt": b"no"}


def test_a_package_that_was_tampered_with_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    package = packed(tmp_path / "packages" / "p-1.tgz")
    item = source(package)
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 1
    package.write_bytes(bytes(content))
    with pytest.raises(InvalidRequest, match=r"not what was expected.*delete it and fetch it again"):
        fetch(item, tmp_path, sys.executable)
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]


def test_a_package_that_is_cut_short_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    package = packed(tmp_path / "packages" / "p-1.tgz")
    package.write_bytes(package.read_bytes()[:-40])
    with pytest.raises(InvalidRequest, match="cannot be unpacked"):
        fetch(source(package), tmp_path, sys.executable)
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]


def test_a_package_without_the_files_is_refused(tmp_path: Path) -> None:
    item = source(packed(tmp_path / "packages" / "p-1.whl"), keep=("*.mp4",))
    with pytest.raises(InvalidRequest, match=r"holds no \*\.mp4 below data"):
        fetch(item, tmp_path, sys.executable)


def test_a_client_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = source(packed(tmp_path / "elsewhere" / "p-1.tgz"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidRequest, match=r"npm is missing and p 1 needs it: install npm"):
        fetch(item, tmp_path, sys.executable)
    with pytest.raises(InvalidRequest, match=r"apt-get is missing.*Debian"):
        fetch(dataclasses.replace(item, registry="debian"), tmp_path, sys.executable)


def test_a_registry_that_has_no_such_package_is_reported(tmp_path: Path) -> None:
    """A client that fails, as pip does without a registry."""
    item = dataclasses.replace(
        source(packed(tmp_path / "elsewhere" / "p-1.whl")), registry="pypi", package="no-such-package", options=("--no-index",)
    )
    with pytest.raises(InvalidRequest, match=r"failed: .*still have no-such-package 1\?"):
        fetch(item, tmp_path, sys.executable)
    assert not list((tmp_path / "packages").iterdir())


def test_clips_and_annotations_are_laid_side_by_side(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    for clip in real.load():
        if clip.source != "livestar":
            (assets / clip.source).mkdir(parents=True, exist_ok=True)
            (assets / clip.source / clip.inner).write_bytes(clip.file.encode())
    folder = tmp_path / "real"
    counts = real.write_real(assets, folder)
    assert all(counts.values())
    rooms = {Path(video.name).name for video in read_annotations(folder / "fixed-rooms.jsonl")}
    learnt = read_annotations(folder / "real-train.jsonl")
    for clip in real.load():
        if clip.source != "livestar":
            assert (folder / clip.file).read_bytes() == clip.file.encode()
        assert read_annotations(folder / f"{Path(clip.file).stem}.events.jsonl")
    parts = {Path(video.name).name: video.end_s for video in learnt}
    assert not rooms & set(parts) and all(clip.may_train for clip in real.load() if clip.file in parts)
    for video in read_annotations(folder / "real-heldout.jsonl"):
        name = Path(video.name).name
        assert name not in rooms and video.begin_s >= (parts.get(name) or 0.0)
    trained = read_annotations(folder / "fixed-rooms-train.jsonl")
    measured = read_annotations(folder / "fixed-rooms-test.jsonl")
    assert [video.end_s for video in trained] == [video.begin_s for video in measured]
    assert len(trained) == len(measured) == len(rooms) == 3


def test_a_clip_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"missing; python -m training\.mini fetch"):
        real.write_real(tmp_path, tmp_path / "real")
    assert not list((tmp_path / "real").glob("*.jsonl"))


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "training.mini",
        "scripted",
        "--assets",
        str(tmp_path),
        "--to",
        str(tmp_path),
        "--split",
        "tst",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --split tst: choose one of train, heldout, unseen"


def test_assets_that_are_missing_end_the_drawing_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.mini", "scripted", "--assets", str(tmp_path), "--to", str(tmp_path / "out")]
    done = subprocess.run([*command, "--count", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: ") and "is missing; python -m training.mini fetch --to" in said
    assert not (tmp_path / "out" / "events.jsonl").exists() and "Traceback" not in done.stderr
