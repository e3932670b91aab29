"""Element-wise operations of the typed IR as C++ expressions, the same for vectors and single numbers."""

from __future__ import annotations

import math

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_RENAMED = {"min": "minimum", "max": "maximum"}
_CALLS = frozenset(
    "exp log log1p expm1 sqrt rsqrt square abs sign sigmoid logsigmoid tanh relu silu softplus gelu erf sin cos "
    "pow min max lt le eq ne where clamp".split()
)

OPERATIONS = frozenset((*_INFIX, *_CALLS, "neg"))


def expression(op: str, args: list[str]) -> str:
    """The text of one operation on operands that are names or numbers."""
    if op in _INFIX:
        return f"{args[0]} {_INFIX[op]} {args[1]}"
    if op == "neg":
        return f"-{args[0]}"
    return f"simd::{_RENAMED.get(op, op)}({', '.join(args)})"


def number(value: float) -> str:
    """A float as a `real`."""
    if math.isnan(value):
        return 'real(__builtin_nan(""))'
    if math.isinf(value):
        return f"real({'-' if value < 0 else ''}__builtin_inf())"
    return f"real({value!r})"
