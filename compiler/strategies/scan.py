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
from .recurrent import check_tile, elements, largest, warps_for
from .verdict import Verdict

NAME = "scan"

BLOCK_ELEMENTS = 4096
"""Numbers of the largest state, times steps, that a program has on chip where a scan takes two for each of them."""

STEPS = (16, 256)
"""The least and the most steps of a block: few make checkpoints large, many keep short sequences waiting."""

CHANNELS = 64
"""Entries of a tile along the last axis: 128 bytes of 16-bit numbers, which memory reads whole."""

NARROWEST = 16
"""Entries that a tile has at least along the last axis of a state: 32 bytes of 16-bit numbers."""

MOST_ELEMENTS = 8192
"""Numbers of one state that the fewest steps may take; other strategies serve larger ones better."""

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
    few, many = STEPS
    budget = BLOCK_ELEMENTS // power_of_two(max(1, _scanned(found) // 2))
    free = _free(program)
    for state in sorted(program.states, key=lambda s: -elements(s.axes, blocks)):
        room = budget // (few * elements([axis for axis in state.axes if axis.name not in free], blocks))
        for axis in reversed(state.axes):
            if axis.name in free:
                least = NARROWEST if axis == state.axes[-1] else 1
                blocks[axis.name] = min(blocks[axis.name], CHANNELS, max(least, room))
                room //= blocks[axis.name]
    for name, block in (tiles or {}).items():
        check_tile(program, extents, name, block)
        blocks[name] = block
    held = max(elements(s.axes, blocks) for s in program.states)
    rows = power_of_two(max(2, chunk)) if chunk else max(few, min(many, budget // held))
    tiled = tuple(name for name in order if name in blocks and blocks[name] < extents[name])
    warps = warps_for(largest(program, blocks, rows))
    return Layout(extents, blocks, tiled, rows, order, warps=warps, along="steps")


def verdict(program: Program, found: tuple[Group, ...] | Reason, sizes: Mapping[str, int]) -> Verdict:
    """Applies where every state is affine in the states entry by entry, or an extreme, and few steps fit on chip."""
    if isinstance(found, Reason):
        return Verdict(NAME, False, found.text)
    whole, free = _whole(program, axis_sizes(program, sizes)), _free(program)
    least = {name: min(block, NARROWEST) if name in free else block for name, block in whole.items()}
    for state in program.states:
        numbers = STEPS[0] * elements(state.axes, least)
        if numbers > MOST_ELEMENTS:
            return Verdict(
                NAME,
                False,
                f"{STEPS[0]} steps of `{state.name}` would take {numbers * 4 // 1024} KB on chip at once, "
                f"more than the {MOST_ELEMENTS * 4 // 1024} KB that a scan keeps in registers",
            )
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


def _scanned(found: Sequence[Group]) -> int:
    """The most tiles that one scan takes."""
    taken = {"complex": 4, "coupled": 6}
    return max(taken.get(group.kind, 2) for group in found)
