"""The `chunk` strategy: a chunk of steps at a time as products of matrices, pass after pass.

It applies to recurrences whose passes (lower/passes.py) are affine: decay plus low rank for memories, element-wise for
what stabilises them. This file decides which pass runs how, how long a chunk is and how a state is cut into tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..analysis.affine import AffineForm, NotAffine, affine_form
from ..analysis.elementwise import Group
from ..analysis.independence import independent_axes
from ..analysis.linear import Reason
from ..autodiff.reverse import AdjointStep, adjoint_step
from ..ir.program import Program
from ..lower.layout import Layout, power_of_two
from ..lower.passes import NotSeparable, Pass, passes
from ..lower.tiles import DOT_SIDE
from . import scan
from .axes import axis_sizes
from .recurrent import check_tile
from .verdict import Verdict

NAME = "chunk"

STEPS = 64
"""Rows of a chunk: a matrix unit's tile."""

LEAST_STEPS = 16
"""The fewest steps of a chunk where every step has several rows."""

STATE_ELEMENTS = 16384
"""Numbers of the largest state that a program holds (64 KB over its registers): 128 x 128."""

WALK_ELEMENTS = 8192
"""The same for programs that walk a state without gradients of what all its columns share: 128 x 64."""

CHUNK_ELEMENTS = 8192
"""Numbers of a chunk's vectors along the mixed axis, beside a large state in shared memory: 64 x 128."""

MIXED = 256
"""The longest mixed axis: a program holds all of it."""


@dataclass(frozen=True)
class PassPlan:
    """One pass and how it runs: in affine normal form by chunks, or element-wise by a scan."""

    part: Pass
    step: AdjointStep
    form: AffineForm | None
    groups: tuple[Group, ...] | None


def plan_passes(core: Program) -> tuple[PassPlan, ...] | Reason:
    """How each pass of a recurrence runs, or why one of them cannot."""
    try:
        parts = passes(core, lambda program: not isinstance(_plan(Pass(program, ())), Reason))
    except NotSeparable as error:
        return Reason(str(error), None)
    found = []
    for index, part in enumerate(parts):
        if len(parts) > 1:  # kernels of every pass have names of their own
            part = replace(part, program=replace(part.program, name=f"{core.name}_pass_{index}"))
        planned = _plan(part)
        if isinstance(planned, Reason):
            return planned
        found.append(planned)
    return tuple(found)


def _plan(part: Pass) -> PassPlan | Reason:
    step = adjoint_step(part.program)
    groups = scan.groups(part.program, step)
    elementwise = not isinstance(groups, Reason) and all(len(s.axes) < 2 for s in part.program.states)
    if elementwise and not isinstance(groups, Reason):
        return PassPlan(part, step, None, groups)
    try:
        return PassPlan(part, step, affine_form(part.program), None)
    except NotAffine as error:
        if isinstance(groups, Reason):
            return error.reason
        return PassPlan(part, step, None, groups)


def verdict(planned: Sequence[PassPlan] | Reason, sizes: Mapping[str, int]) -> Verdict:
    """Applies where every pass is affine and one of them has a memory that vectors write and read."""
    if isinstance(planned, Reason):
        return Verdict(NAME, False, planned.text)
    if all(p.form is None for p in planned):
        return Verdict(NAME, False, "every entry of the state is on its own: a scan does the same with less work")
    for p in planned:
        if p.form is not None:
            size = p.form.mix.size.bind(sizes)
            if size > MIXED:
                return Verdict(NAME, False, f"{p.form.mix.name} = {size} is more than the {MIXED} that fit on chip")
        elif p.groups is not None:
            found = scan.verdict(p.part.program, p.groups, sizes)
            if not found.applies:
                return Verdict(NAME, False, found.reason)
    words = [_words(p) for p in planned]
    return Verdict(NAME, True, "; then ".join(words))


def _words(p: PassPlan) -> str:
    states = " and ".join(f"`{s.name}`" for s in p.part.program.states)
    if p.form is None:
        return f"{states} by a scan"
    rows = sum(pair.read is not None for link in p.form.links for pair in link.pairs)
    given = sum(len(link.pairs) for link in p.form.links) - rows
    decay = "per channel" if p.form.per_channel else "scalar" if p.form.decays else "no"
    writes = [f"rank {rows} erased" if rows else "", f"{given} written" if given else ""]
    return f"{states} in chunks ({decay} decay, {', '.join(w for w in writes if w)} per step)"


def layout(
    program: Program,
    form: AffineForm,
    sizes: Mapping[str, int],
    tiles: Mapping[str, int],
    chunk: int | None,
    limit: int | None = None,
) -> Layout:
    """The shape of the kernels of one pass at bound sizes; ``tiles`` overrides blocks of columns, ``chunk`` the steps;
    ``limit`` are the most rows of a chunk where the state is large.

    ValueError for a tile that is no power of two and for an axis whose entries need each other.
    """
    extents = axis_sizes(program, sizes)
    columns = [m.column.name for m in form.members if m.column is not None]
    names = dict.fromkeys((form.mix.name, *columns, *extents))
    blocks = {name: power_of_two(size) for name, size in extents.items()}
    for name in (form.mix.name, *columns):
        blocks[name] = max(DOT_SIDE, blocks[name])
    free = independent_axes(program)
    for name in columns:
        if name in free:
            blocks[name] = min(blocks[name], max(DOT_SIDE, STATE_ELEMENTS // blocks[form.mix.name]))
    for name, block in tiles.items():
        if name in columns:
            check_tile(program, extents, name, block)
            blocks[name] = max(DOT_SIDE, block)
    pairs = [pair for link in form.links for pair in link.pairs]
    rows = sum(pair.read is not None or len(form.links) > 1 for pair in pairs)
    tiled = tuple(name for name in columns if blocks[name] < extents[name])
    whole = [name for name in extents if name not in tiled]
    for name in whole:  # one may be another by a different name
        blocks[name] = max(blocks[other] for other in whole if extents[other] == extents[name])
    order = {name: rank for rank, name in enumerate(names)}
    held = blocks[form.mix.name] * max((blocks[name] for name in columns), default=1)
    most = STEPS
    if held > WALK_ELEMENTS:
        most = min(STEPS, limit or STEPS)
        if form.per_channel:  # keys are operands decayed to borders, too: those of two pairs do not fit with 64 rows
            rows = max(rows, len(pairs))
        most = max(LEAST_STEPS, min(most, CHUNK_ELEMENTS // blocks[form.mix.name]))
    steps = power_of_two(chunk) if chunk else max(LEAST_STEPS, most // power_of_two(max(1, rows)))
    warps = 8 if held >= 64 * 64 else 4  # 64 rows and columns or more: tiles spread over all of them
    return Layout(extents, blocks, tiled, max(DOT_SIDE, steps), order, warps=warps, along="steps")


def narrow(layout: Layout, program: Program, form: AffineForm) -> Layout:
    """The layout of kernels that walk the state and sum nothing over its columns: fewer columns to a program.

    Tiles of columns share queries and keys, which programs side by side find in the cache; gradients of those would
    be sums over tiles by way of memory, so kernels with gradients keep the whole.
    """
    if layout.tiles:
        return layout
    free = independent_axes(program)
    columns = {m.column.name for m in form.members if m.column is not None} & set(free)
    most = max(DOT_SIDE, WALK_ELEMENTS // layout.blocks[form.mix.name])
    blocks = {name: min(block, most) if name in columns else block for name, block in layout.blocks.items()}
    tiles = tuple(name for name in layout.order if name in columns and blocks[name] < layout.sizes[name])
    return replace(layout, blocks=blocks, tiles=tiles)
