"""The live view under a pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.e2e.command import SCRIPT, TIMEOUT_S, environment

pytestmark = pytest.mark.e2e

HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


def in_a_terminal(*words: object, interrupt_at: bytes | None = None) -> tuple[int, bytes]:
    """Exit status, and everything that was drawn; Ctrl-C is sent once `interrupt_at` has been drawn."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    env = environment(TERM="xterm-256color")
    for name in ("COLUMNS", "NO_COLOR"):
        env.pop(name)
    process = subprocess.Popen([*SCRIPT, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    drawn, deadline = b"", time.monotonic() + TIMEOUT_S
    try:
        with contextlib.suppress(OSError):  # the terminal is closed when its last writer ends
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 0.1)[0]:
                    more = os.read(ours, 65536)
                    if not more:
                        break
                    drawn += more
                if interrupt_at is not None and interrupt_at in drawn:
                    process.send_signal(signal.SIGINT)
                    interrupt_at = None
        return process.wait(timeout=10), drawn
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_the_live_view_appears_in_a_terminal_and_goes_cleanly(tiny: Path, pictures: Path, clip: Path) -> None:
    status, drawn = in_a_terminal(
        *("watch", pictures, clip, "--model", tiny, "--pace", "fast", "--fps", "1", "--threshold", "0.9", "--max-new-tokens", "4")
    )
    text = drawn.decode()
    assert status == 0, text
    assert "Traceback" not in text
    assert all(word in text for word in ("verdict", "ratio", "caption", "pictures", "clip", "ended", "per second"))
    assert "14 frames" in text
    assert drawn.count(HIDE_CURSOR) == drawn.count(SHOW_CURSOR) > 0
    assert drawn.rindex(SHOW_CURSOR) > drawn.rindex(HIDE_CURSOR)


def test_an_interrupt_gives_the_terminal_back(tiny: Path, clip: Path) -> None:
    status, drawn = in_a_terminal(
        *("watch", clip, "--model", tiny, "--loop", "--max-new-tokens", "4"), interrupt_at=b"per second"
    )
    assert status == 130
    assert b"Traceback" not in drawn
    assert drawn.rindex(SHOW_CURSOR) > drawn.rindex(HIDE_CURSOR)
