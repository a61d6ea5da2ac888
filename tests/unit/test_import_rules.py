"""What importing a package may load, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PROBE = """
import sys
before = set(sys.modules)
import {modules}
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


def loaded_by(*modules: str) -> set[str]:
    """Names of the modules that importing these adds to a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE.format(modules=", ".join(modules))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def top_levels(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def modules_of(package: str) -> list[str]:
    """Every module of a package, so that one not imported by its `__init__` is seen too."""
    paths = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / package).rglob("*.py"))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths if path.stem != "__main__"]


@pytest.mark.parametrize("package", ["router", "storage"])
def test_importing_a_service_package_loads_neither_torch_nor_ray_nor_av(package: str) -> None:
    loaded = loaded_by(*modules_of(package))
    assert package in loaded
    assert not top_levels(loaded) & {"torch", "ray", "av", "transformers"}


def test_importing_livestar_loads_nothing_heavy() -> None:
    loaded = top_levels(loaded_by("livestar"))
    assert "livestar" in loaded
    assert not loaded & {"torch", "ray", "av", "numpy", "transformers"}


def test_the_shared_modules_load_only_the_standard_library_and_each_other() -> None:
    shared = {"livestar", "livestar.types", "livestar.config", "livestar.errors"}
    loaded = loaded_by(*sorted(shared))
    assert shared <= loaded
    assert {name for name in loaded if name.startswith("livestar.")} <= shared
    assert top_levels(loaded) - {"livestar"} <= sys.stdlib_module_names
