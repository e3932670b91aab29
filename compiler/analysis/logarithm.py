"""Decays as logarithms: sums over steps take the place of products, and nothing underflows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.program import Program
from ..ir.types import Interval
from .products import Product
from .ranges import promises, ranges


def log_decay(program: Program, builder: Builder, decay: Product) -> tuple[int, int | None, bool]:
    """The natural logarithm of a decay's magnitude, its sign where it can be negative, and whether it can be 0, where
    the logarithm has no gradient."""
    bounds = ranges(tuple(builder.body), promises(program))
    logs, signs, vanishes = [], [builder.const(-1.0)] if decay.negative else [], False
    for value in (*decay.scalars, *decay.vector):
        known = _known(builder, value)
        if known is not None:
            logs.append(known)
            continue
        interval = bounds[value]
        vanishes |= Interval(0.0, 0.0) in interval
        if interval.low >= 0.0:
            logs.append(builder.apply("log", value))
        else:
            logs.append(builder.apply("log", builder.apply("abs", value)))
            signs.append(builder.apply("sign", value))
    return _sum(builder, logs), _product(builder, signs) if signs else None, vanishes


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
