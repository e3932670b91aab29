"""Numbers known when a kernel is generated: sizes and what is computed from them alone."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.numbers import NUMBERS
from ..ir.program import Body


def constants(body: Body, sizes: Mapping[str, int]) -> dict[int, float]:
    """The values of a body that are numbers once sizes are bound, broadcast ones included.

    What cannot be evaluated (a logarithm of a negative number) is left to the kernel.
    """
    known: dict[int, float] = {}
    for position, instr in enumerate(body):
        if instr.op == "const":
            known[position] = instr.attrs[0]
        elif instr.op == "size":
            known[position] = float(sizes[instr.attrs[0]])
        elif instr.args and all(arg in known for arg in instr.args):
            if instr.op == "broadcast":
                known[position] = known[instr.args[0]]
            elif instr.op in NUMBERS:
                try:
                    known[position] = NUMBERS[instr.op](*(known[arg] for arg in instr.args))
                except (ValueError, OverflowError, ZeroDivisionError):
                    continue
    return known
