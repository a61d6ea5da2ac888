"""Being asked to stop: a run finishes its step and writes a checkpoint first."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """As a context: Ctrl-C and a request to terminate are noted; the second time they interrupt at once.

    Only the main thread can take signals; elsewhere a file can ask, which a worker on another machine sees too.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._is_made = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._is_made or (self._file is not None and self._file.exists())

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._is_made:
            raise KeyboardInterrupt
        self._is_made = True
