"""Further ways to run a recurrence, besides the one that its backend takes by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A way to run that verification covers, and on how much: ``steps`` of one sequence, or packed sequences with
    ``lengths``. ``run`` takes what a backend's does."""

    run: Callable[..., Any]
    steps: int = 5
    lengths: tuple[int, ...] | None = None
