"""What only shows once sizes are bound: slices and entries beyond the end of an axis."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.program import Program, live


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
