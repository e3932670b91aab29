"""The `recurrent` strategy on processors: states in the first-level cache, one axis in vector lanes.

It applies to every recurrence; weights and large states live in the outer caches. This file decides the
shape of the kernels: which axis lies in lanes, which axes are shared out, how long a chunk is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from ..analysis.independence import independent_axes
from ..ir.program import Program, depends_on, live
from ..ir.types import Axes
from ..lower.layout import Layout
from .axes import axis_order, axis_sizes, matrix_axes, walks_rows
from .recurrent import NAME
from .stepwise import NAME as STEPWISE
from .verdict import Verdict

LANES = 16
"""Numbers that blocks are multiples of, where an axis allows it: the widest vectors in use hold so many."""

STATE_ELEMENTS = 8192
"""Numbers of the largest state that a program keeps (32 KB): what a first-level cache holds."""

VECTOR_ELEMENTS = 512
"""The same for states with one axis, which are cheap to walk: more programs keep more cores busy."""

ROWS = 16
"""The most sequences that one program takes where they share matrices of weights."""

KEPT_ELEMENTS = 65536
"""Numbers that the trajectory of one chunk may take (256 KB): part of a second-level cache."""

CHUNKS = (16, 64)
"""The least and the most steps between checkpoints."""


def layout(program: Program, sizes: Mapping[str, int], tiles: Mapping[str, int] | None = None) -> Layout:
    """The shape of the kernels at bound sizes. ``tiles`` sets blocks by axis name; an axis is cut evenly,
    so a block is the largest divisor of its axis up to that number.

    ValueError for an axis that does not exist or whose entries need each other.
    """
    extents = axis_sizes(program, sizes)
    free = [name for name in independent_axes(program) if name not in matrix_axes(program)]
    lane = _lane_axis(program, extents)
    order = {name: rank for name, rank in axis_order(program).items() if name != lane}
    if lane is not None:
        order[lane] = len(order) + 1
    blocks = dict(extents)
    for name in sorted(free, key=lambda name: name != lane):
        blocks[name] = _block(program, blocks, name)
    for name, wanted in (tiles or {}).items():
        if name not in order:
            raise ValueError(f"no axis {name!r} to tile; there are {', '.join(order)}")
        if wanted < extents[name] and name not in free:
            raise ValueError(f"tiles of {wanted} along {name} do not work: its entries depend on each other")
        blocks[name] = max(d for d in _divisors(extents[name]) if d <= max(1, wanted))
    tiled = tuple(name for name in order if blocks[name] < extents[name])
    rows = ROWS if walks_rows(program) else 1
    return Layout(extents, blocks, tiled, rows, order, lanes=True)


def chunk(program: Program, layout: Layout) -> int:
    """Steps between checkpoints: as many as keep the states of a chunk in cache."""
    step = sum(_elements(state.axes, layout.blocks) * layout.rows for state in program.states)
    least, most = CHUNKS
    return max(least, min(most, KEPT_ELEMENTS // max(1, step) // least * least))


def verdict(program: Program, layout: Layout) -> Verdict:
    """Always applies."""
    states = sum(_elements(state.axes, layout.blocks) * layout.rows for state in program.states)
    parts = [f"tiles of {layout.blocks[n]} along {n}" for n in layout.tiles]
    parts += [f"up to {layout.rows} sequences per program"] if layout.rows > 1 else []
    held = f"{states * 4 / 1024:g} KB per program" + (f"; {', '.join(parts)}" if parts else "")
    return Verdict(NAME, True, f"state in cache ({held})")


def stepwise_verdict() -> Verdict:
    """The library's products at every step serve where weights do not fit on chip, which is no limit here."""
    return Verdict(STEPWISE, False, "it is for GPUs whose chips cannot hold a recurrence; here the caches can")


def _lane_axis(program: Program, sizes: Mapping[str, int]) -> str | None:
    """The axis of the largest state along which a step sums least: sums across lanes are dear."""
    states = sorted(program.states, key=lambda state: -len(state.axes))
    if not states or not states[0].axes:
        return None
    sums = _summed(program, sizes)
    names = [axis.name for axis in states[0].axes]
    return min(reversed(names), key=lambda name: sums[name])


def _summed(program: Program, sizes: Mapping[str, int]) -> Counter[str]:
    """How many numbers that depend on the state a step sums along each axis that is gone afterwards."""
    body, of_state = program.body, depends_on(program.body, ("state",))
    found: Counter[str] = Counter()
    for position in live(body, program.roots()):
        instr = body[position]
        if instr.op in ("contract", "sum", "amax") and of_state[position]:
            before = {axis.name for arg in instr.args for axis in body[arg].axes}
            count = math.prod(sizes[name] for name in before)
            found.update(dict.fromkeys(before - {axis.name for axis in instr.axes}, count))
    return found


def _block(program: Program, blocks: Mapping[str, int], name: str) -> int:
    """The largest even share of an axis that keeps the largest state within its budget."""
    others = [
        math.prod(blocks[axis.name] for axis in state.axes if axis.name != name)
        for state in program.states
        if any(axis.name == name for axis in state.axes)
    ]
    rest = max(others, default=1)
    budget = max(LANES, (VECTOR_ELEMENTS if rest == 1 else STATE_ELEMENTS) // rest)
    fitting = [d for d in _divisors(blocks[name]) if d % LANES == 0 and d <= budget]
    return blocks[name] if blocks[name] <= budget else max(fitting, default=blocks[name])


def _divisors(size: int) -> list[int]:
    return [d for d in range(1, size + 1) if size % d == 0]


def _elements(axes: Axes, blocks: Mapping[str, int]) -> int:
    return math.prod(blocks[axis.name] for axis in axes)
