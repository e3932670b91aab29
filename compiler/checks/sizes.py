"""What only shows once sizes are bound: slices and entries beyond the end of an axis; sizes without such."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ir.program import Program, live, related_sizes
from ..ir.size import Size


def check_sizes(program: Program, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """One line for every slice or entry that does not fit at these sizes, with its place in the text.

    ``sizes`` gives every dimension that is no second name of another.
    """
    found: list[str] = []
    for position in sorted(live(program.body, program.roots())):
        instr = program.body[position]
        if instr.op not in ("slice", "index"):
            continue
        axis = program.body[instr.args[0]].axes[instr.attrs[0]]
        length = axis.size.bind(sizes)
        if instr.op == "slice":
            start, stop = (bound.bind(sizes) for bound in instr.attrs[1:])
            fits, what = 0 <= start < stop <= length, f"entries {start} to {stop}"
        else:
            fits, what = instr.attrs[1] < length, f"entry {instr.attrs[1]}"
        if not fits:
            place = program.source.at(instr.span) if instr.span else program.name
            found.append(f"{place}: takes {what} of the axis {axis}, which has {length}")
    return tuple(found)


def fitting_sizes(program: Program, preferred: Iterable[int], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """A size for every dimension: given, or a preferred one (in turn), or the next above it that the
    spec's slices and indices allow."""
    own = {dim.name: dim.alias or dim.name for dim in program.dims}
    fixed = related_sizes(program.dims, given or {})
    sizes = dict(zip(dict.fromkeys(own.values()), preferred, strict=False))
    sizes |= {name: fixed[name] for name in own.values() if name in fixed}
    while True:
        bound = related_sizes(program.dims, sizes)
        short = [size for size in _must_not_be_negative(program) if size.bind(bound) < 0]
        grows = {own[name] for size in short for name, factor in size.terms if factor > 0} - fixed.keys()
        if not grows:
            return bound
        sizes.update({name: sizes[name] + 1 for name in grows})


def _must_not_be_negative(program: Program) -> list[Size]:
    """Sizes that are negative where a slice or an index leaves its axis, or an axis has no entry."""
    body, found = program.body, []
    for position in live(body, program.roots()):
        instr = body[position]
        found += [axis.size - Size(1) for axis in instr.axes]
        if instr.op == "index":
            axis, i = instr.attrs
            found.append(body[instr.args[0]].axes[axis].size - Size(i + 1))
        if instr.op == "slice":
            axis, start, stop = instr.attrs
            found += [start, body[instr.args[0]].axes[axis].size - stop]
    return [size for size in found if any(factor > 0 for _, factor in size.terms)]
