"""The `recurrent` strategy: one fused kernel walks the steps with the state on chip.

It applies to every recurrence whose state and whose matrices of recurrent weights fit there. This file
decides how: which axes are shared out over programs, how many sequences a program walks at once, how
large tiles are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..analysis.independence import independent_axes
from ..ir.program import Program, depends_on, live
from ..ir.types import Axis
from ..lower.layout import Layout, power_of_two
from ..lower.tiles import DOT_SIDE
from .axes import axis_order, axis_sizes, matrix_axes, matrix_products, walks_rows
from .verdict import Verdict

NAME = "recurrent"

TILE_ELEMENTS = 2048
"""Elements of the largest state that a program of four warps holds (16 per thread)."""

VECTOR_ELEMENTS = 256
"""The same for states without a second axis, where more programs hide more latency."""

ON_CHIP_ELEMENTS = 20480
"""Float32 numbers that weights and states of one program may take together (80 KB): the adjoint needs
as much again for cotangents and operands of matrix products, and devices have 64 to 228 KB."""


def layout(program: Program, sizes: Mapping[str, int], tiles: Mapping[str, int] | None = None) -> Layout:
    """The shape of the kernels for a program at bound sizes; ``tiles`` overrides blocks by axis name.

    ValueError for a block that is no power of two and for an axis whose entries need each other.
    """
    order = axis_order(program)
    extents = axis_sizes(program, sizes)
    rows = DOT_SIDE if walks_rows(program) else 1
    matrix = matrix_axes(program)
    least = {extents[name] for name in matrix}
    blocks = {name: max(power_of_two(size), DOT_SIDE if size in least else 1) for name, size in extents.items()}
    shared = [name for name in independent_axes(program) if name not in matrix]
    for name in reversed(shared):
        blocks[name] = _shared_block(program, blocks, name, rows)
    for name, block in (tiles or {}).items():
        check_tile(program, extents, name, block)
        blocks[name] = block
    tiled = tuple(name for name in order if name in blocks and blocks[name] < extents[name])
    weights = sum(elements(param.axes, blocks) for param in program.params if len(param.axes) >= 2)
    warps = warps_for(max(largest(program, blocks, rows), weights // 4))
    return Layout(extents, blocks, tiled, rows, order, warps=warps)


def check_tile(program: Program, sizes: Mapping[str, int], name: str, block: int) -> None:
    """ValueError unless an axis can be cut into tiles of so many entries."""
    axes = axis_order(program)
    if name not in axes:
        raise ValueError(f"no axis {name!r} to tile; there are {', '.join(axes)}")
    if block < 1 or block != power_of_two(block):
        raise ValueError(f"a tile of {block} along {name}: must be a power of two")
    if block < sizes[name] and name not in independent_axes(program):
        raise ValueError(f"tiles of {block} along {name} do not work: its {sizes[name]} entries depend on each other")


def verdict(program: Program, layout: Layout) -> Verdict:
    """Applies unless states and matrices of one program are too large for the chip."""
    states = sum(elements(state.axes, layout.blocks) * layout.rows for state in program.states)
    weights = sum(elements(p.axes, layout.blocks) for p in program.params if len(p.axes) >= 2)
    total = states + weights
    if total > ON_CHIP_ELEMENTS:
        what = "recurrent weights" if weights > states else "state"
        return Verdict(
            NAME,
            False,
            f"the {what} of one program would take {total * 4 // 1024} KB on chip, "
            f"more than the {ON_CHIP_ELEMENTS * 4 // 1024} KB that leave room for the backward pass",
        )
    parts = [f"tiles of {layout.blocks[n]} along {n}" for n in layout.tiles]
    parts += [f"{layout.rows} sequences per program"] if layout.rows > 1 else []
    return Verdict(NAME, True, f"state on chip ({states * 4 / 1024:g} KB per program; {', '.join(parts) or 'whole'})")


def largest(program: Program, blocks: Mapping[str, int], rows: int) -> int:
    """Elements of the largest tile that a program holds: a state, or a value or product of a step."""
    body, varies = program.body, depends_on(program.body, ("state", "input"))
    matrix = matrix_products(program)
    found = [elements(state.axes, blocks) for state in program.states]
    found += [elements(output.axes, blocks) for output in program.outputs]
    for position in live(body, program.roots()):
        instr = body[position]
        if not varies[position] or instr.op == "leaf":
            continue
        found.append(elements(instr.axes, blocks))
        if instr.op == "contract":
            pair = tuple(body[arg].axes for arg in instr.args)
            if pair not in matrix and pair[::-1] not in matrix:  # those take the matrix unit
                sides = dict(zip((*instr.attrs[0], *instr.attrs[1]), (*pair[0], *pair[1]), strict=True))
                found.append(elements(tuple(sides.values()), blocks))
    return max(found, default=1) * rows


def elements(axes: Iterable[Axis], blocks: Mapping[str, int]) -> int:
    """The numbers of a tile with these axes."""
    return math.prod(blocks[axis.name] for axis in axes)


def _shared_block(program: Program, blocks: Mapping[str, int], name: str, rows: int) -> int:
    """The block of an independent axis that keeps the largest state within its share of a program."""
    others = [
        math.prod(blocks[axis.name] for axis in state.axes if axis.name != name) * rows
        for state in program.states
        if any(axis.name == name for axis in state.axes)
    ]
    rest = max(others, default=1)
    budget = VECTOR_ELEMENTS if rest == 1 else TILE_ELEMENTS
    return max(1, min(blocks[name], budget // rest))


def warps_for(numbers: int) -> int:
    """Warps for a tile: about 16 elements a thread, at most 8 warps."""
    return max(1, min(8, power_of_two(max(1, numbers // 512))))
