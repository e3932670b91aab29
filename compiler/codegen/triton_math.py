"""Element-wise operations of the typed IR as Triton expressions."""

from __future__ import annotations

import math

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_CALL = {
    "exp": "tl.exp",
    "log": "tl.log",
    "sqrt": "tl.sqrt",
    "rsqrt": "tl.rsqrt",
    "abs": "tl.abs",
    "sin": "tl.sin",
    "cos": "tl.cos",
    "erf": "tl.erf",
    "sigmoid": "tl.sigmoid",
    "where": "tl.where",
    "log1p": "_log1p",
    "expm1": "_expm1",
    "tanh": "_tanh",
    "softplus": "_softplus",
    "logsigmoid": "_logsigmoid",
    "pow": "_pow",
}
_PATTERN = {
    # torch's minimum and maximum hand NaN on, Triton's do so only on request
    "min": "tl.minimum({0}, {1}, tl.PropagateNan.ALL)",
    "max": "tl.maximum({0}, {1}, tl.PropagateNan.ALL)",
    "neg": "-{0}",
    "square": "{0} * {0}",
    "sign": "tl.where({0} > 0.0, 1.0, tl.where({0} < 0.0, -1.0, 0.0))",
    "relu": "tl.maximum({0}, 0.0, tl.PropagateNan.ALL)",
    "silu": "{0} * tl.sigmoid({0})",
    "gelu": "{0} * (0.5 + 0.5 * tl.erf({0} * 0.7071067811865476))",
    "clamp": "tl.minimum(tl.maximum({0}, {1}, tl.PropagateNan.ALL), {2}, tl.PropagateNan.ALL)",
}

SCANS = tuple(f"scan_{kind}" for kind in ("replaced", "sum", "affine", "complex", "coupled", "max", "min"))
"""Running compositions of maps, as ``analysis.elementwise.Group`` names them."""

HELPERS = frozenset(("amax", *SCANS, *(name for name, call in _CALL.items() if call.startswith("_"))))
"""Operations that need a function of the helpers template."""

OPERATIONS = frozenset((*_INFIX, *_CALL, *_PATTERN))


def expression(op: str, args: list[str]) -> str:
    """The text of one operation on operands that are names, indexed names or numbers."""
    if op in _INFIX:
        return f"{args[0]} {_INFIX[op]} {args[1]}"
    if op in _CALL:
        return f"{_CALL[op]}({', '.join(args)})"
    return _PATTERN[op].format(*args)


def number(value: float) -> str:
    """A float as Triton reads it; negative ones in parentheses."""
    if math.isnan(value):
        return 'float("nan")'
    if math.isinf(value):
        return 'float("inf")' if value > 0 else '(-float("inf"))'
    return repr(value) if value >= 0 and math.copysign(1, value) > 0 else f"({value!r})"
