"""Decays as logarithms: sums over steps take the place of products, and nothing underflows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.program import Program
from ..ir.types import Interval
from .linear import Reason
from .products import Product
from .ranges import promises, ranges
from .terms import NotLinear


def log_decay(program: Program, builder: Builder, decay: Product) -> tuple[int, int | None]:
    """The natural logarithm of a decay's magnitude, and its sign where it can be negative.

    NotLinear where a factor reaches 0 at the end of its range: there its logarithm has no gradient.
    """
    bounds = ranges(tuple(builder.body), promises(program))
    logs, signs = [], [builder.const(-1.0)] if decay.negative else []
    for value in (*decay.scalars, *decay.vector):
        known = _known(builder, value)
        if known is not None:
            logs.append(known)
            continue
        interval = bounds[value]
        if 0.0 in (interval.low, interval.high) and Interval(0.0, 0.0) in interval:
            what = builder.body[value]
            name = f"the decay `{what.name}`" if what.name else "a decay"
            raise NotLinear(Reason(f"{name} in {interval} can be 0, where a logarithm has no gradient", what.span))
        if interval.low >= 0.0:
            logs.append(builder.apply("log", value))
        else:
            logs.append(builder.apply("log", builder.apply("abs", value)))
            signs.append(builder.apply("sign", value))
    return _sum(builder, logs), _product(builder, signs) if signs else None


def _known(builder: Builder, value: int) -> int | None:
    """The logarithm of a value that is an exponential, a sigmoid or a constant, without computing the value."""
    instr = builder.body[value]
    match instr.op:
        case "exp":
            return instr.args[0]
        case "sigmoid":
            return builder.apply("logsigmoid", instr.args[0])
        case "const" if instr.attrs[0] >= 0:
            return builder.const(math.log(instr.attrs[0]) if instr.attrs[0] else -math.inf)
    return None


def _sum(builder: Builder, values: Sequence[int]) -> int:
    ordered = sorted(values, key=lambda v: len(builder.axes(v)))
    total = ordered[0] if ordered else builder.const(0.0)
    for value in ordered[1:]:
        total = builder.apply("add", total, value)
    return total


def _product(builder: Builder, values: Sequence[int]) -> int:
    ordered = sorted(values, key=lambda v: len(builder.axes(v)))
    total = ordered[0]
    for value in ordered[1:]:
        total = builder.apply("mul", total, value)
    return total
