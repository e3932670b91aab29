"""What a strategy costs, counted per step and head, and the time that a nominal GPU would take for it.

A model to choose by, not a prediction: bytes of memory traffic, operations on matrix units and elsewhere, how long
steps wait for each other, and kernel launches, for training (forward and backward) on 16-bit inputs. Figures of the
nominal device are of the order of a data centre's GPU of 2023; what matters is their ratios.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.program import Program, live
from ..ir.types import Axes
from ..lower.layout import Layout
from .chunk import PassPlan
from .chunk import layout as chunk_layout

BYTES_PER_SECOND = 3.5e12
MATRIX_OPERATIONS = 4e14
OTHER_OPERATIONS = 3e13
"""Of the whole device, per second."""

DEPENDENT = 4e-7
"""Seconds that one step takes which waits for the one before: a few dependent operations and a reduction."""

CHUNK_WAIT = 8e-6
"""The same for a chunk: two dozen products of matrices one after the other."""

BLOCK_WAIT = 1.5e-6
"""The same for a block of a scan."""

LAUNCH = 4e-6
"""Seconds per kernel launch."""

HEADS, STEPS = 128, 2048
"""The nominal problem: sequences times heads, and steps of each."""


@dataclass(frozen=True)
class Cost:
    """Per step and head: bytes moved, operations on matrix units and others, seconds of waiting; launches per call."""

    bytes: float
    matrix: float
    other: float
    wait: float
    launches: float

    def __add__(self, more: Cost) -> Cost:
        """Of two passes, one after the other."""
        return Cost(
            self.bytes + more.bytes,
            self.matrix + more.matrix,
            self.other + more.other,
            self.wait + more.wait,
            self.launches + more.launches,
        )

    @property
    def seconds(self) -> float:
        """The time of one call on the nominal device for the nominal problem."""
        work = self.matrix / MATRIX_OPERATIONS + self.other / OTHER_OPERATIONS
        step = max(self.bytes / BYTES_PER_SECOND * HEADS, work * HEADS, self.wait)
        return step * STEPS + self.launches * LAUNCH

    def __str__(self) -> str:
        moved, matrix, other = self.bytes / 1024, self.matrix / 1e6, self.other / 1e6
        return (
            f"{moved:.1f} KB and {matrix + other:.2f} MFLOP per step and head, {self.launches:.0f} launches: "
            f"about {self.seconds * 1e3:.2g} ms for {HEADS} heads of {STEPS} steps"
        )


def recurrent_cost(program: Program, layout: Layout, chunk: int, rows: int | None = None) -> Cost:
    """Every step by itself: states before each step are written and read back for the backward, or ``rows`` numbers
    are moved instead."""
    sizes = layout.sizes
    states = sum(_numel(s.axes, sizes) for s in program.states)
    moved = states * (2 + 2 / chunk) if rows is None else rows
    tiles = math.prod(layout.count(name) for name in layout.tiles)
    other = 4 * _operations(program, sizes)
    return Cost(_io(program, sizes) + 4 * moved, 0.0, other, 4 * DEPENDENT / min(tiles, 4), 4)


def stepwise_cost(program: Program, sizes: Mapping[str, int]) -> Cost:
    """A library call and a point-wise kernel at every step."""
    states = sum(_numel(s.axes, sizes) for s in program.states)
    other = 3 * _operations(program, sizes)
    return Cost(_io(program, sizes) + 24 * states, 0.0, other, 6 * LAUNCH, 6 * STEPS)


def scan_cost(program: Program, layout: Layout) -> Cost:
    """A block of steps at a time, the state at the start of each kept."""
    sizes = layout.sizes
    states = sum(_numel(s.axes, sizes) for s in program.states)
    depth = 2 + math.log2(layout.rows)
    other = 4 * _operations(program, sizes) + 12 * states * depth
    return Cost(_io(program, sizes) + 8 * states / layout.rows, 0.0, other, 2 * BLOCK_WAIT / layout.rows, 2)


def chunk_cost(planned: Sequence[PassPlan], sizes: Mapping[str, int], scans: Sequence[Cost]) -> Cost:
    """A chunk of steps at a time, pass after pass; ``scans`` are the costs of passes that are scans."""
    total = Cost(0.0, 0.0, 0.0, 0.0, 0.0)
    for cost in scans:
        total += cost
    for p in planned:
        if p.form is not None:
            total += _chunk_cost(p, sizes)
    return total


def _chunk_cost(p: PassPlan, sizes: Mapping[str, int]) -> Cost:
    form, program = p.form, p.part.program
    assert form is not None
    layout = chunk_layout(program, form, sizes, {}, None)
    steps, mix = layout.rows, layout.blocks[form.mix.name]
    pairs = [pair for link in form.links for pair in link.pairs]
    reads = sum(pair.read is not None or len(form.links) > 1 for pair in pairs)
    rows = steps * max(1, len(pairs))
    levels = math.log2(steps) if form.per_channel else 1
    columns = sum(1 if m.column is None else layout.blocks[m.column.name] for m in form.members)
    states = mix * columns
    pairwise = 2 * levels * rows * steps * mix * (1 + (reads > 0))
    applied = 2 * rows * steps * columns * (1 + (reads > 0))
    stated = 2 * states * (steps + rows * (1 + (reads > 0)))
    matrix = 4 * (pairwise + applied + stated) / steps  # backward takes three times as many products as forward
    io = _io(program, layout.sizes)
    kept = 2 * 2 * states / steps + 2 * 2 * (rows if reads else 0)
    other = 30 * (mix + columns) + 8 * rows
    return Cost(io + kept, matrix, other, 3 * CHUNK_WAIT / steps, 3)


def _io(program: Program, sizes: Mapping[str, int]) -> float:
    """Bytes of inputs (read twice, gradients written once) and of outputs (written, cotangents read)."""
    inputs = sum(_numel(i.axes, sizes) for i in program.inputs)
    outputs = sum(_numel(o.axes, sizes) for o in program.outputs)
    return 2.0 * (3 * inputs + 2 * outputs)


def _operations(program: Program, sizes: Mapping[str, int]) -> float:
    """About the operations of one step: one or two for every point of every value's iteration space."""
    body, total = program.body, 0.0
    for position in live(body, program.roots()):
        instr = body[position]
        if instr.op == "contract":
            left, right = (body[arg].axes for arg in instr.args)
            axes = dict(zip((*instr.attrs[0], *instr.attrs[1]), (*left, *right), strict=True))
            total += 2 * _numel(tuple(axes.values()), sizes)
        elif instr.op not in ("leaf", "const", "size", "broadcast"):
            total += _numel(instr.axes, sizes)
    return total


def _numel(axes: Axes, sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[axis.name] for axis in axes)
