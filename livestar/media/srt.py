"""SRT where FFmpeg was built without it, as in PyAV's wheels: `srt-live-transmit` relays it to a loopback port.

The tool comes with libsrt (Debian: srt-tools).  It connects again by itself, so a lost sender looks like silence here.
NOTE: the address is on the tool's command line, where other users of the machine can read its passphrase.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import weakref
from types import TracebackType
from typing import Self

from livestar.errors import SourceUnreadable
from livestar.media.source import Source

TOOL = "srt-live-transmit"
STOP_TIMEOUT_S = 2.0


class SrtRelay:
    """A running relay from one SRT address to `location`; close it, or use it as a context."""

    def __init__(self, process: subprocess.Popen[bytes], location: str) -> None:
        # Also at the interpreter's exit, which does not wait for reader threads.
        self._end = weakref.finalize(self, _end, process)
        self.location = location
        """Where the stream can be read."""

    @classmethod
    def open(cls, source: Source) -> Self:
        """Start to relay.  Raises `SourceUnreadable` where the tool is not installed."""
        tool = shutil.which(TOOL)
        if tool is None:
            remedy = f"install {TOOL} (package srt-tools), or relay the stream to a udp:// address"
            raise SourceUnreadable(f"{source.name}: this FFmpeg was built without srt; {remedy}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            location = f"udp://127.0.0.1:{free.getsockname()[1]}"
        process = subprocess.Popen(
            [tool, "-q", "-loglevel:fatal", source.location, location],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return cls(process, location)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the relay and reap it."""
        self._end()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
