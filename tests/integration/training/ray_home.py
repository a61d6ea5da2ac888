"""Ray in a home of its own: no token, session or process of it is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def ray_home(**more: str) -> Iterator[dict[str, str]]:
    """Environment for commands that use Ray; ends all processes that were started with it, by their ids."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: Ray makes sockets below it
    own = {"HOME": str(folder / "home"), "RAY_TMPDIR": str(folder / "tmp"), **more}
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    try:
        yield own
    finally:
        for process in processes_of(folder):
            process.send_signal(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes whose environment names the folder, and theirs: some of Ray's write their title over their environment."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(folder) in process.environ().get("RAY_TMPDIR", ""):
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue
    return list(found.values())


def left_running(own: dict[str, str], grace_s: float = 10.0) -> list[str]:
    """What still runs of it, after a little while."""
    deadline = time.monotonic() + grace_s
    while (left := processes_of(Path(own["RAY_TMPDIR"]).parent)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [" ".join(process.cmdline()) for process in left if process.is_running()]
