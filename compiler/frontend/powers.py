"""Powers with a constant exponent, as the operations that people would write for them."""

from __future__ import annotations

from ..ir.builder import Builder
from .folding import number


def power(b: Builder, base: int, exponent: int) -> int:
    """``base ^ exponent`` of operands that have been aligned."""
    known = _number(b, exponent)
    match known:
        case 0.0:
            return b.spread(b.const(1.0), b.axes(base))
        case 1.0:
            return base
        case 2.0:
            return b.apply("square", base)
        case 3.0:
            return b.mul(b.apply("square", base), base)
        case 4.0:
            return b.apply("square", b.apply("square", base))
        case 0.5:
            return b.apply("sqrt", base)
        case -0.5:
            return b.apply("rsqrt", base)
        case -1.0:
            return b.div(b.const(1.0), base)
        case -2.0:
            return b.div(b.const(1.0), b.apply("square", base))
    return b.apply("pow", base, exponent)


def _number(b: Builder, value: int) -> float | None:
    """The number that a value is everywhere."""
    instr = b.body[value]
    return _number(b, instr.args[0]) if instr.op == "broadcast" else number(b, value)
