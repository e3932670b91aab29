"""Types and facts that values carry: axes and ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .size import Size


@dataclass(frozen=True, slots=True)
class Axis:
    """A named axis. Slices have axes named after their size (``Axis("M - 2", ...)``)."""

    name: str
    size: Size

    def __str__(self) -> str:
        return self.name


Axes = tuple[Axis, ...]


def show_axes(axes: Axes) -> str:
    """``[K, V]``, or ``scalar`` where there are none."""
    return f"[{', '.join(axis.name for axis in axes)}]" if axes else "scalar"


@dataclass(frozen=True, slots=True)
class Interval:
    """All values that an expression can take: a real interval with open or closed ends."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, other: Interval) -> bool:
        """Whether every value of ``other`` lies in this interval."""
        low = other.low > self.low or (other.low == self.low and (other.low_open or not self.low_open))
        high = other.high < self.high or (other.high == self.high and (other.high_open or not self.high_open))
        return low and high

    def __and__(self, other: Interval) -> Interval:
        """The intersection; the caller knows that it is not empty."""
        low, low_open = max((self.low, self.low_open), (other.low, other.low_open))
        high, high_shut = min((self.high, not self.high_open), (other.high, not other.high_open))
        return Interval(low, high, low_open, not high_shut)

    def __str__(self) -> str:
        left, right = "(["[not self.low_open], ")]"[not self.high_open]
        return f"{left}{self.low:g}, {self.high:g}{right}"


EVERYTHING = Interval()
