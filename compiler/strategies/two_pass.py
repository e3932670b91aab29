"""How the `recurrent` strategy goes backward: in two passes that keep no states, or by rebuilding states.

Two passes need an affine normal form. They move vectors where rebuilding writes and reads every state, so that they are
taken where the vectors are fewer numbers than the states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..analysis.affine import NotAffine, affine_form
from ..analysis.independence import independent_axes
from ..analysis.terms import NotLinear
from ..autodiff.two_pass import NotTwoPass, TwoPass, two_pass
from ..ir.program import Program
from ..ir.types import Axes
from ..lower.layout import Layout, power_of_two
from ..lower.two_pass import Layouts
from ..options import KernelOptions
from .axes import axis_order


@dataclass(frozen=True)
class Backward:
    """The way that is taken and why; ``passes`` is None where states are rebuilt, ``rows`` the numbers per step that
    passes write and read for each other."""

    passes: TwoPass | None
    reason: str
    rows: int | None = None


def backward(program: Program, sizes: Mapping[str, int], options: KernelOptions, *, apart: bool) -> Backward:
    """How a recurrence goes backward; ``apart``: finishing is a pass of its own."""
    if options.chunk is not None:
        return Backward(None, f"states are rebuilt from checkpoints every {options.chunk} steps, as was asked for")
    passes = _passes(program, apart)
    if isinstance(passes, str):
        return Backward(None, f"states are rebuilt from checkpoints: {passes}")
    rows, states = _rows(passes, sizes), 2 * _numbers((s.axes for s in program.states), sizes)
    if rows >= states and not options.two_pass:
        return Backward(None, f"states are rebuilt from checkpoints: two passes would move {rows} numbers per step "
                              f"beside inputs and gradients, more than the {states} of the states")  # fmt: skip
    kept = _numbers((o.axes for o in passes.forward.outputs if o.name in passes.kept), sizes)
    return Backward(passes, f"backward in two passes: {kept} numbers are kept per step, {rows} are moved "
                            f"instead of the {states} of the states", rows)  # fmt: skip


def possible(program: Program) -> bool:
    """Whether a recurrence can go backward in two passes at all."""
    return not isinstance(_passes(program, apart=False), str)


def _passes(program: Program, apart: bool) -> TwoPass | str:
    """The passes, or why there are none."""
    try:
        passes = two_pass(program, affine_form(program), apart=apart)
    except (NotAffine, NotLinear, NotTwoPass) as error:
        return str(error)
    lost = [name for name in independent_axes(program) if name not in independent_axes(passes.infer)]
    return f"in normal form {' and '.join(lost)} would be mixed" if lost else passes


def _rows(passes: TwoPass, sizes: Mapping[str, int]) -> int:
    """Numbers per step that passes write and read for each other; what forward keeps is read twice."""
    kept = _numbers((o.axes for o in passes.forward.outputs if o.name in passes.kept), sizes)
    sweeps = (passes.reverse, passes.again)
    return 3 * kept + 2 * _numbers((row.axes for sweep in sweeps for row in sweep.rows), sizes)


def _numbers(shapes: Iterable[Axes], sizes: Mapping[str, int]) -> int:
    return sum(math.prod(axis.size.bind(sizes) for axis in axes) for axes in shapes)


# ---------------------------------------------------------------- layouts


def for_cpu(passes: TwoPass, forward: Layout) -> Layouts:
    """The pass ``again`` also goes through the prologue, which needs whole vectors: it is not cut into tiles.

    Its sums run over columns, so that the mixed axis lies in lanes.
    """
    lane = passes.mix.name
    order = {name: rank for name, rank in forward.order.items() if name != lane}
    order[lane] = max(order.values(), default=0) + 1
    return Layouts(forward, replace(forward, blocks=dict(forward.sizes), tiles=(), order=order))


def for_triton(program: Program, forward: Layout) -> Layouts:
    """``again`` has the tiles of forward; ``finish`` has whole vectors."""
    blocks = {name: power_of_two(size) for name, size in forward.sizes.items()}
    return Layouts(forward, forward, Layout(forward.sizes, blocks, (), 1, axis_order(program), warps=1))
