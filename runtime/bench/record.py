"""What is kept of a run of benchmarks: everything measured, and under which circumstances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .machine import circumstances
from .results import Benchmark


def document(benchmarks: Sequence[Benchmark], device: torch.device | str, load: float | None = None) -> dict[str, Any]:
    """Date, machine, versions, commit, the load before, and every benchmark with all samples: plain data for JSON."""
    return {
        **circumstances(torch.device(device), load),
        "benchmarks": [benchmark.as_data() for benchmark in benchmarks],
    }


def write(path: Path, data: Any) -> None:
    """Write JSON, making folders as needed (OSError if that cannot be)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
