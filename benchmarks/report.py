"""Writes a benchmark's result with all that is needed to read it: command, versions, machine."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch

import livestar

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """One line about the hardware and the versions."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _read(Path("/proc/cpuinfo")).splitlines() if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{model}, {os.cpu_count()} cores"
    return f"{device}; Python {platform.python_version()}, torch {torch.__version__}, livestar {livestar.__version__}"


def publish(name: str, title: str, body: str) -> None:
    """Prints a result and writes it to results/<name>.md."""
    module = sys.modules["__main__"].__spec__
    command = " ".join(["python -m", module.name if module else name, *sys.argv[1:]])
    text = f"# {title}\n\n- command: `{command}`\n- machine: {machine()}\n\n{body}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
