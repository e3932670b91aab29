"""What a user can choose about compiling one recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["ieee", "tf32", "tf32x3"]


@dataclass(frozen=True)
class Options:
    """Choices for one compilation; the default leaves everything to the compiler.

    ``consts`` overrides consts of the spec by name, ``precision`` is the form of float32 matrix products,
    ``checkpoint`` the number of steps between saved states, ``tiles`` sets the block of an axis by name.
    """

    consts: tuple[tuple[str, float], ...] = ()
    precision: Precision | None = None
    checkpoint: int | None = None
    tiles: tuple[tuple[str, int], ...] = ()
