"""Numbers known when a kernel is generated: sizes and what is computed from them alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..ir.program import Body

_FOLD: dict[str, Callable[..., float]] = {
    "neg": lambda x: -x,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "square": lambda x: x * x,
    "abs": abs,
    "tanh": math.tanh,
    "sign": lambda x: math.copysign(1.0, x) if x else 0.0,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "logsigmoid": lambda x: min(x, 0.0) - math.log1p(math.exp(-abs(x))),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "sin": math.sin,
    "cos": math.cos,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: math.pow(x, y),
    "min": min,
    "max": max,
}


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
            elif instr.op in _FOLD:
                try:
                    known[position] = _FOLD[instr.op](*(known[arg] for arg in instr.args))
                except (ValueError, OverflowError, ZeroDivisionError):
                    continue
    return known
