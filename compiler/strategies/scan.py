"""The `scan` strategy: all steps of a block at once, by an associative scan, block after block.

It applies to recurrences whose states are scaled, shifted or replaced entry by entry, whatever else a step
computes from its inputs and puts out. This file decides how large blocks and tiles are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..analysis.elementwise import Group, adjoint_groups, step_groups
from ..analysis.independence import independent_axes
from ..analysis.linear import Reason
from ..autodiff.reverse import AdjointStep
from ..ir.builder import Builder
from ..ir.program import Program
from ..lower.layout import Layout, power_of_two
from ..lower.tiles import DOT_SIDE
from .axes import axis_order, axis_sizes, matrix_axes
from .recurrent import check_tile, elements, largest
from .verdict import Verdict

NAME = "scan"

STEPS = 16
"""Steps of a block. Threads hold whole columns, which they scan without a word to others."""

FEWER_STEPS = {"complex": 8, "coupled": 4}
"""The same where states are scanned together, which takes more numbers for each of them."""

MOST_STEPS = 256
"""The most steps of a block, where states are too small for all threads of a warp."""

COLUMNS = (128, 256)
"""The most entries of a state that one program takes: of states with one axis, and of larger ones."""

NARROWEST = 8
"""Entries that a tile has at least along the last axis of a state: 16 bytes of 16-bit numbers."""

WARP = 32
"""Threads of a warp (AMD's have twice as many, and programs half as many warps)."""

PAIR = 64
"""The least tile along the last axis of which a thread takes two entries, if they are simple: 32 threads read whole
128-byte rows."""

_TITLES = {
    "replaced": "replaced at every step",
    "sum": "summed up",
    "affine": "affine, entry by entry",
    "complex": "one complex number, scaled",
    "coupled": "coupled entry by entry",
    "max": "running maximum",
    "min": "running minimum",
}


def groups(program: Program, step: AdjointStep) -> tuple[Group, ...] | Reason:
    """How a scan runs a recurrence forward, or why it cannot, backward included."""
    forward = step_groups(Builder(program.body), program)
    if isinstance(forward, Reason):
        return forward
    backward = adjoint_groups(Builder(step.body), program, dict(step.states))
    return backward if isinstance(backward, Reason) else forward


def layout(
    program: Program,
    found: Sequence[Group],
    sizes: Mapping[str, int],
    tiles: Mapping[str, int] | None = None,
    chunk: int | None = None,
) -> Layout:
    """The shape of the kernels at bound sizes; ``tiles`` overrides blocks by axis name, ``chunk`` the steps of a block.

    ValueError for a tile that is no power of two and for an axis whose entries need each other.
    """
    order, extents = axis_order(program), axis_sizes(program, sizes)
    blocks = _whole(program, extents)
    free, kinds = _free(program), {group.kind for group in found}
    for state in sorted(program.states, key=lambda s: -elements(s.axes, blocks)):
        room = COLUMNS[len(state.axes) > 1] // elements([axis for axis in state.axes if axis.name not in free], blocks)
        for axis in reversed(state.axes):
            if axis.name in free:
                least = NARROWEST if axis == state.axes[-1] else 1
                blocks[axis.name] = min(blocks[axis.name], max(least, room))
                room //= blocks[axis.name]
    for name, block in (tiles or {}).items():
        check_tile(program, extents, name, block)
        blocks[name] = block
    columns = max(elements(s.axes, blocks) for s in program.states)
    few = min(FEWER_STEPS.get(kind, STEPS) for kind in kinds)
    rows = power_of_two(max(2, chunk)) if chunk else max(few, min(MOST_STEPS, few * WARP // columns))
    tiled = tuple(name for name in order if name in blocks and blocks[name] < extents[name])
    simple = kinds <= {"replaced", "sum", "affine"}
    adjacent = 2 if simple and all(blocks[s.axes[-1].name] >= PAIR for s in program.states if s.axes) else 1
    warps = max(1, min(8, power_of_two(largest(program, blocks, 1)) // (WARP * adjacent)))
    return Layout(extents, blocks, tiled, rows, order, warps=warps, along="steps", adjacent=adjacent)


def verdict(program: Program, found: tuple[Group, ...] | Reason, sizes: Mapping[str, int]) -> Verdict:
    """Applies where every state is affine in the states entry by entry, or an extreme, and few steps fit on chip."""
    if isinstance(found, Reason):
        return Verdict(NAME, False, found.text)
    whole, free = _whole(program, axis_sizes(program, sizes)), _free(program)
    least = {name: min(block, NARROWEST) if name in free else block for name, block in whole.items()}
    for state in program.states:
        columns = elements(state.axes, least)
        if columns > max(COLUMNS):
            held = f"more than the {max(COLUMNS)} that a program holds for a block of steps"
            return Verdict(NAME, False, f"{columns} entries of `{state.name}` must stay together, {held}")
    return Verdict(NAME, True, "; ".join(f"{_listed(group)} {_TITLES[group.kind]}" for group in found))


def _listed(group: Group) -> str:
    return " and ".join(f"`{name}`" for name in group.states)


def _whole(program: Program, extents: Mapping[str, int]) -> dict[str, int]:
    """Blocks that take in all of every axis."""
    least = {extents[name] for name in matrix_axes(program)}
    return {name: max(power_of_two(size), DOT_SIDE if size in least else 1) for name, size in extents.items()}


def _free(program: Program) -> frozenset[str]:
    """Axes that can be cut into tiles."""
    return frozenset(independent_axes(program)) - matrix_axes(program)
