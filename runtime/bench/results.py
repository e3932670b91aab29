"""What a benchmark found: rows of times, with ratios and floors, as plain data and back to text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from .ceilings import Ceilings
from .floors import Floor
from .side_by_side import Direction, Key, ratios
from .timing import Samples


@dataclass(frozen=True)
class Row:
    """One contender in one direction.

    ``ratio`` is its median over the subject's; ``bytes_ratio`` and ``operations_ratio`` are its median over the least
    time that the bytes and the operations need at the machine's ceilings (1 is perfect; data that stay in a
    cache can be faster than the ceiling of memory). ``difference`` is how far its outputs are from the subject's.
    """

    name: str
    direction: Direction
    samples: Samples
    ratio: float
    bytes_ratio: float
    operations_ratio: float
    difference: float

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON, times in seconds; a difference that is infinite is the text ``inf``."""
        return {
            "name": self.name,
            "direction": self.direction,
            "median": self.samples.median,
            "minimum": self.samples.minimum,
            "ratio": self.ratio,
            "over_bytes_floor": self.bytes_ratio,
            "over_operations_floor": self.operations_ratio,
            "difference": self.difference if isfinite(self.difference) else "inf",
            "samples": list(self.samples.seconds),
        }


@dataclass(frozen=True)
class Benchmark:
    """One piece of work, all its rows (the subject's first), and what to know about them.

    ``subject`` names the contender that ratios are relative to; ``failed`` says, by name, why a contender could not
    be measured.
    """

    spec: str
    shape: Mapping[str, int]
    dtype: str
    subject: str
    floors: Mapping[Direction, Floor]
    ceilings: Ceilings
    rows: tuple[Row, ...]
    failed: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def row(self, name: str, direction: Direction) -> Row:
        """The row of a contender; KeyError if it has none."""
        for row in self.rows:
            if (row.name, row.direction) == (name, direction):
                return row
        raise KeyError((name, direction))

    def setting(self) -> str:
        """Shape and dtype on one line."""
        return " ".join([*(f"{name}={size}" for name, size in self.shape.items()), self.dtype])

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "spec": self.spec,
            "shape": dict(self.shape),
            "dtype": self.dtype,
            "subject": self.subject,
            "ceilings": self.ceilings.as_data(),
            "floors": {direction: floor.as_data() for direction, floor in self.floors.items()},
            "rows": [row.as_data() for row in self.rows],
            "failed": dict(self.failed),
            "notes": list(self.notes),
        }


def rows_of(
    samples: Mapping[Key, Samples],
    subject: str,
    floors: Mapping[Direction, Floor],
    ceilings: Ceilings,
    differences: Mapping[str, float],
) -> tuple[Row, ...]:
    """Rows in the order of the samples, one direction after the other."""
    relative = ratios(samples, subject)
    rows = []
    for direction, floor in floors.items():
        least_bytes, least_operations = floor.seconds(ceilings)
        for key, taken in samples.items():
            if key[1] == direction:
                over = (_over(taken.median, least_bytes), _over(taken.median, least_operations))
                rows.append(Row(*key, taken, relative[key], *over, differences[key[0]]))
    return tuple(rows)


def _over(seconds: float, least: float) -> float:
    return seconds / least if least else 0.0
