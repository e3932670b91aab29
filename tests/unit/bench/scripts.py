"""The scripts under benchmarks/ as modules, beside each other as they lie there."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def script(name: str) -> ModuleType:
    """A script, or a module beside it."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module(name)


def environment() -> dict[str, str]:
    """For a script in a process of its own, which finds the modules beside it also where Python is told not to look."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(BENCHMARKS)])}
