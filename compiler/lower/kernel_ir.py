"""The kernel IR: straight-line code on tiles, in the sections of a loop over time.

A kernel is what a template needs besides its skeleton: the tensors it touches and, per section, a
list of statements. Printers turn statements into a target's text; a statement never holds text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ...dsl.source import Span
from ..ir.types import Axes
from .layout import Label, Layout

INTEGERS = ("batch", "steps", "first", "direction", "count", "chunks", "begin")
"""Arguments of every kernel after its tensors: sequences, steps in all, index in memory of the first step
and +1 or -1 from there (right to left), steps to walk, checkpoints per sequence, steps before the first to
walk. Lengths never specialise a kernel."""

PACKED_INTEGERS = ("batch", "steps", "direction", "parts", "part", "pad")
"""The same for packed sequences: how many there are, steps in all, the direction; in how many parts the backward
pass walks each, which of them, and the rows of a segment that each has besides its share of the steps."""

Place = Literal["step", "segment", "head", "sequence", "checkpoint", "partial"]


Walk = Literal["right", "left", "apart"]
"""How a program goes through the steps: from the first to the last, from the last to the first, or through one
chunk of its own (number ``i_c``) from its first step, all chunks at once."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array in memory that a kernel reads or writes.

    ``place`` says what stands before the value's own axes, outermost first:

    * ``step`` [B, T, heads]: per-step data of the user, walked over time (B is 1 where sequences are packed)
    * ``segment`` [B, L, H]: the same for the steps of one segment only (packed: [1, rows, H])
    * ``head`` [H]: params
    * ``sequence`` [B, H]: states
    * ``checkpoint`` [B, chunks, H]: states at the start of each chunk (packed: [1, slots, H])
    * ``partial`` [row blocks, H]: sums over the steps of one program

    ``copies`` are tiled axes that the value lacks but whose tiles each write their own: they stand
    first of all. ``first_tile`` are those of which only tile 0 writes (what all computed) or reads (what
    must count once).
    ``strided`` tensors come with strides for everything; others are packed.
    """

    name: str
    place: Place
    axes: Axes
    heads: str = "heads"
    copies: tuple[str, ...] = ()
    first_tile: tuple[str, ...] = ()
    strided: bool = False
    compute: bool = True
    """Whether elements are of the compute type (float32); otherwise they have the user's own type."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A value on chip: a variable (or a number) and the sides of its tile, in order.

    ``clean`` are sides whose lanes outside of the axis hold zero.
    """

    name: str
    labels: tuple[Label, ...] = ()
    clean: frozenset[Label] = frozenset()
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Coordinate:
    """Where along one axis of a tensor: a fixed entry, or a side of the tile shifted by ``start``."""

    label: Label | None
    start: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of kernel code: ``target = op(args)``.

    Besides the element-wise operations of ir/ops.py: ``load`` and ``store`` (attrs: tensor,
    coordinates), ``dot`` (attrs: precision), ``sum`` and ``amax`` (attrs: the side's position),
    ``product_sum`` (attrs: the sides summed over), ``select`` (attrs: source side, target side, shift:
    ``out[i] = x[i - shift]``, zero outside), ``transpose``, ``zeros``, ``assign``, ``keep`` (assign in rows whose
    sequence has this step, others stay as they are) and ``accumulate``.

    On rows that are steps: ``scan_KIND`` (attrs: all targets, whether the second half of them is what enters each
    row), ``fill`` (attrs: side, number for its lanes outside), ``flip`` (attrs: side) and ``row`` (attrs: ``last``,
    that of the block's last step, or ``end``, that of the tile).
    """

    target: str
    op: str
    args: tuple[Ref, ...] = ()
    attrs: tuple[Any, ...] = ()
    labels: tuple[Label, ...] = ()
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Kernel:
    """One kernel: a template, the tensors in argument order and the statements of each section."""

    name: str
    template: str
    layout: Layout
    tensors: tuple[Tensor, ...]
    sections: dict[str, tuple[Statement, ...]]
    walked: tuple[str, ...] = ()
    """Tensors whose place in memory moves with time."""
    facts: dict[str, Any] = field(default_factory=dict)
    walk: Walk = "right"
    packed: bool = False
    """Whether sequences of different lengths lie one after another."""

    @property
    def integers(self) -> tuple[str, ...]:
        """Arguments after the tensors that are whole numbers."""
        return PACKED_INTEGERS if self.packed else INTEGERS
