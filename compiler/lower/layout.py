"""How values lie on chip: labels of tile sides, blocks, tiles over programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..ir.types import Axes


@dataclass(frozen=True, slots=True)
class Label:
    """One side of a tile: an axis, and which of its occurrences in a square value (``U[D, D]``)."""

    name: str
    copy: int = 0


ROWS = Label("rows")
"""The side that runs over the sequences of one program, where a program walks several at once, or over the
steps of one block, where a program walks blocks of steps (``Layout.along``)."""

STEPS = Label("steps")
"""The side that runs over the steps of a chunk, where a value of each of them is kept."""


def labels_of(axes: Axes) -> tuple[Label, ...]:
    """The labels of a value's axes by position: ``[D, D]`` has ``D`` and its second copy."""
    names = [axis.name for axis in axes]
    return tuple(Label(name, names[:position].count(name)) for position, name in enumerate(names))


@dataclass(frozen=True)
class Layout:
    """The shape of one family of kernels.

    ``sizes`` and ``blocks`` are by axis name; a block is a power of two, and an axis in ``tiles`` is
    shared out over programs block by block. ``rows`` is the number of sequences per program (1: no
    such side) or, ``along`` steps, the number of steps of a block: then a program walks one sequence block by
    block, and what has a value at every step has the side. ``order`` ranks axis names: sides of a tile stand
    in this order, so that a transposition is a matter of names and moves nothing. Where ``lanes``, the last side
    lies in the lanes of vectors; then further copies of an axis, which products sum over, stand before the first.
    ``in_place`` is for a single step: weights are read once, in the order in which they lie in memory. ``adjacent``
    are the entries along an axis that one thread takes (None: as many as it can load at once); few leave the
    threads for columns, so that each has all rows of its own.
    """

    sizes: Mapping[str, int]
    blocks: Mapping[str, int]
    tiles: tuple[str, ...]
    rows: int
    order: Mapping[str, int] = field(repr=False)
    warps: int = 4
    lanes: bool = False
    in_place: bool = False
    along: Literal["sequences", "steps"] = "sequences"
    adjacent: int | None = None

    @property
    def sequences(self) -> int:
        """The number of sequences per program."""
        return self.rows if self.along == "sequences" else 1

    def rows_of(self, place: str) -> tuple[Label, ...]:
        """The side over rows, if values of tensors at such a place (``kernel_ir.Place``) differ from row to row."""
        if self.rows == 1:
            return ()
        if self.along == "steps":
            return (ROWS,) if place in ("step", "segment") else ()
        return () if place in ("head", "partial") else (ROWS,)

    def sort(self, labels: Iterable[Label]) -> tuple[Label, ...]:
        """Labels in the order in which sides of a tile stand."""
        return tuple(sorted(set(labels), key=self._rank))

    def _rank(self, label: Label) -> tuple[int, int]:
        if label in (STEPS, ROWS):
            return (-2, 0) if label == STEPS else (-1, 0)
        return self.order[label.name], -label.copy if self.lanes else label.copy

    def block(self, label: Label) -> int:
        return self.rows if label == ROWS else self.blocks[label.name]

    def padded(self, label: Label) -> bool:
        """Whether lanes of this side can lie outside of the axis."""
        return label == ROWS or self.sizes[label.name] % self.blocks[label.name] != 0

    def count(self, name: str) -> int:
        """The number of tiles of an axis."""
        return -(-self.sizes[name] // self.blocks[name])

    def untiled(self, axes: Axes) -> tuple[str, ...]:
        """The tiled axes that a value lacks: every tile has a copy of it."""
        return tuple(name for name in self.tiles if name not in {axis.name for axis in axes})


def identifier(name: str) -> str:
    """An axis name as part of a variable's name: ``M - 2`` becomes ``M_less_2``."""
    return name.replace(" - ", "_less_").replace(" + ", "_plus_").replace("*", "_")


def power_of_two(size: int) -> int:
    """The least power of two that is not below ``size``."""
    return 1 << max(0, size - 1).bit_length()
