"""Rules that hold for every test: one tier per module, GPU tests that cannot vanish, no thread left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

TIERS = frozenset({"unit", "integration", "gpu", "e2e"})
THREAD_GRACE_S = 2.0
"""How long a thread may take to end after its test."""


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse modules that do not say which tier they belong to, and tests that say otherwise than their module."""
    problems: set[str] = set()
    for item in items:
        module = item.getparent(pytest.Module)
        if module is None:
            continue
        of_module = sorted({mark.name for mark in module.iter_markers()} & TIERS)
        of_test = sorted({mark.name for mark in item.iter_markers()} & TIERS)
        if len(of_module) != 1:
            has = " and ".join(of_module) or "none"
            problems.add(f"{module.nodeid}: needs exactly one of {', '.join(sorted(TIERS))} in pytestmark, has {has}")
        elif of_test != of_module:
            problems.add(f"{item.nodeid}: marked {' and '.join(of_test)}, its module {of_module[0]}")
    if problems:
        raise pytest.UsageError("\n".join(sorted(problems)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a GPU test where there is no CUDA; fail it there when LIVESTAR_REQUIRE_GPU=1."""
    if item.get_closest_marker("gpu") is None:
        return
    if torch.cuda.is_available():
        return
    if os.environ.get("LIVESTAR_REQUIRE_GPU") == "1":
        pytest.fail("LIVESTAR_REQUIRE_GPU=1, but torch finds no CUDA device", pytrace=False)
    pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products lose by more threads, by a factor where other processes want the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of published traces to compare with, given by the environment variable LIVESTAR_GOLDEN."""
    given = os.environ.get("LIVESTAR_GOLDEN")
    if not given:
        pytest.skip("LIVESTAR_GOLDEN is not set: it names the folder of golden traces")
    folder = Path(given).resolve()
    if not folder.is_dir():
        pytest.fail(f"LIVESTAR_GOLDEN is {given!r}, which is no folder", pytrace=False)
    return folder


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a non-daemon thread running: such a thread would keep a process from ending."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_GRACE_S
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    if names := sorted(thread.name for thread in left if thread.is_alive()):
        pytest.fail(f"left running: {', '.join(names)}", pytrace=False)
