"""Interval analysis: every value's range, and which vectors have length 1.

Leaves are real numbers inside the ranges they promise; a leaf that promises nothing is finite. States may hold
infinities (a running maximum starts at minus infinity). Results are exact for functions of one operand and for
sums of products in which no operand stands twice; elsewhere they may be wider than the truth, never narrower,
up to the rounding of the bounds themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ..ir.program import Body, Instr, Program
from ..ir.types import EVERYTHING, Interval
from .intervals import (
    add,
    decreasing,
    divide,
    hull,
    increasing,
    maximum,
    minimum,
    multiply,
    negative,
    repeated,
    square,
)
from .multilinear import Polynomials

FINITE = Interval(low_open=True, high_open=True)
"""A real number of which nothing is promised."""

UNIT_ENTRY = Interval(-1.0, 1.0)
"""An entry of a vector of length 1 (or less: `l2norm` of zero is zero)."""

GELU_LEAST = -0.16997120747990368
SILU_LEAST = -0.27846454276107374


def promises(program: Program) -> dict[tuple[str, str], Interval]:
    """What the declarations promise of leaves: ranges, and the entries of unit vectors."""
    found = program.leaf_ranges()
    for item in program.inputs:
        if item.unit:
            found["input", item.name] = found.get(("input", item.name), EVERYTHING) & UNIT_ENTRY
    return found


def ranges(body: Body, leaf_ranges: Mapping[tuple[str, str], Interval]) -> tuple[Interval, ...]:
    """The range of every value of a body, truth values included (0 and 1).

    ``leaf_ranges`` gives the range of leaves by (kind, name), as :func:`promises` does.
    """
    found: list[Interval] = []
    polynomials = Polynomials(body)
    for position, instr in enumerate(body):
        args = [found[arg] for arg in instr.args]
        interval = _interval(body, instr, args, leaf_ranges)
        if instr.op in ("add", "sub", "mul", "neg"):
            interval = interval & polynomials.range(position, found, interval)
        found.append(interval)
    return tuple(found)


def unit(body: Body, unit_leaves: frozenset[str] = frozenset()) -> tuple[bool, ...]:
    """For each value, whether it is a vector along its last axis whose length is at most 1 and is meant to be 1:
    results of `l2norm`, and inputs that promise it."""
    found: list[bool] = []
    for instr in body:
        if instr.op == "leaf":
            found.append(instr.attrs[0] == "input" and instr.attrs[1] in unit_leaves)
        elif instr.op in ("neg", "stop_grad", "clip_grad"):
            found.append(found[instr.args[0]])
        elif instr.op == "index":
            found.append(found[instr.args[0]] and instr.attrs[0] < len(instr.axes))
        elif instr.op == "broadcast":
            source = instr.attrs[0]
            last = len(body[instr.args[0]].axes) - 1
            found.append(found[instr.args[0]] and bool(source) and source[-1] == last)
        else:
            found.append(normalised(body, instr) is not None)
    return tuple(found)


def normalised(body: Sequence[Instr], instr: Instr) -> int | None:
    """The operand x of ``x * rsqrt(sum(x^2, last axis) + eps)``."""
    if instr.op != "mul":
        return None
    for x, factor in (instr.args, instr.args[::-1]):
        root = _repeated(body, factor)
        if root.op != "rsqrt":
            continue
        total = body[root.args[0]]
        terms = [_repeated(body, arg) for arg in total.args] if total.op == "add" else [total]
        sums = [t for t in terms if t.op == "sum" and body[t.args[0]].op == "square"]
        extra = [t for t in terms if t not in sums]
        positive = all(t.op == "const" and t.attrs[0] >= 0 for t in extra)
        found = len(sums) == 1 and positive and body[sums[0].args[0]].args == (x,)
        if found and sums[0].attrs[0] == len(instr.axes) - 1:
            return x
    return None


def _repeated(body: Sequence[Instr], value: int) -> Instr:
    """A value, or the one that it only repeats."""
    instr = body[value]
    return body[instr.args[0]] if instr.op == "broadcast" else instr


# ---------------------------------------------------------------- one operation


def _interval(
    body: Body, instr: Instr, args: Sequence[Interval], leaf_ranges: Mapping[tuple[str, str], Interval]
) -> Interval:
    rule = RULES.get(instr.op)
    if rule is not None:
        return rule(*args)
    match instr.op:
        case "leaf":
            default = EVERYTHING if instr.attrs[0] == "state" else FINITE
            return leaf_ranges.get(instr.attrs, default)
        case "const":
            return Interval(instr.attrs[0], instr.attrs[0])
        case "size":
            return Interval(1.0, math.inf, high_open=True)
        case "mul":
            if instr.args[0] == instr.args[1]:
                return square(args[0])
            product = multiply(*args)
            return product & UNIT_ENTRY if normalised(body, instr) is not None else product
        case "div":
            share = _share(body, instr, args[0])
            return divide(*args) if share is None else share
        case "pow":
            return _power(body, instr, *args)
        case "sum":
            return repeated(args[0], body[instr.args[0]].axes[instr.attrs[0]].size)
        case "contract":
            return _contract(body, instr, args)
        case "place" | "pad":
            return hull(args[0], Interval(0.0, 0.0))
    raise AssertionError(f"no interval rule for {instr.op}")


def _share(body: Body, instr: Instr, numerator: Interval) -> Interval | None:
    """The range of ``x / sum(x)`` of something that is not negative, as in a softmax."""
    x, below = instr.args
    total = _repeated(body, below)
    if total.op == "sum" and total.args == (x,) and numerator.low >= 0:
        return Interval(0.0, 1.0, low_open=numerator.low_open and numerator.low == 0)
    return None


def _power(body: Body, instr: Instr, base: Interval, exponent: Interval) -> Interval:
    if exponent.low == exponent.high and exponent.low.is_integer() and abs(exponent.low) <= 64:
        count = int(abs(exponent.low))
        result = Interval(1.0, 1.0)
        if count % 2 == 0:
            even = square(base)
            for _ in range(count // 2):
                result = multiply(result, even)
        else:
            result = increasing(lambda x: math.copysign(abs(x) ** count, x), base)
        return divide(Interval(1.0, 1.0), result) if exponent.low < 0 else result
    if base.low >= 0 and exponent.low == exponent.high:
        image = increasing if exponent.low >= 0 else decreasing
        return image(lambda x: _real_power(x, exponent.low), base)
    if base.low >= 0:
        ends = [_real_power(x, y) for x in (base.low, base.high) for y in (exponent.low, exponent.high)]
        if base.low < 1 < base.high:
            ends.append(1.0)
        low_open = base.low_open and base.low == 0 and min(ends) == 0
        return Interval(min(ends), max(ends), low_open, max(ends) == math.inf and base.high_open)
    return EVERYTHING


def _real_power(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except (ValueError, OverflowError, ZeroDivisionError):
        return math.inf


def _contract(body: Body, instr: Instr, args: Sequence[Interval]) -> Interval:
    left, right, out = instr.attrs
    same = instr.args[0] == instr.args[1] and left == right
    result = square(args[0]) if same else multiply(*args)
    axes = dict(zip(left, body[instr.args[0]].axes, strict=True))
    for label in left:
        if label in right and label not in out:
            result = repeated(result, axes[label].size)
    return result


def _clamp(x: Interval, low: Interval, high: Interval) -> Interval:
    return minimum(maximum(x, low), high)


def _truth(*_: Interval) -> Interval:
    return Interval(0.0, 1.0)


def _absolute(x: Interval) -> Interval:
    if x.low >= 0:
        return x
    return negative(x) if x.high <= 0 else maximum(negative(x), x) & Interval(0.0, math.inf)


def _valley(f: Callable[[float], float], bottom: float, least: float) -> Callable[[Interval], Interval]:
    """A function that falls to ``least`` at ``bottom`` and rises from there; its limit at minus infinity is 0."""

    def rule(x: Interval) -> Interval:
        if x.low >= bottom:
            return increasing(f, x)
        if x.high <= bottom:
            return decreasing(f, x)
        left, right = f(x.low), f(x.high)
        high, high_open = max((left, not x.low_open), (right, not x.high_open))
        return Interval(least, high, False, not high_open)

    return rule


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _on(domain: Interval, f: Callable[[float], float], monotone: Callable[..., Interval]) -> Callable[..., Interval]:
    """A function that is monotone on its domain and NaN outside: of an operand that may leave it only the part
    inside counts."""
    return lambda x: monotone(f, x & domain) if _meets(x, domain) else EVERYTHING


def _meets(x: Interval, domain: Interval) -> bool:
    return x.high >= domain.low and x.low <= domain.high


POSITIVE = Interval(0.0, math.inf)

RULES: dict[str, Callable[..., Interval]] = {
    "neg": negative,
    "exp": lambda x: increasing(_exp, x),
    "expm1": lambda x: increasing(lambda v: math.expm1(v) if v < 709 else math.inf, x),
    "log": _on(POSITIVE, _log, increasing),
    "log1p": _on(Interval(-1.0, math.inf), lambda v: _log(1 + v) if abs(v) > 0.5 else math.log1p(v), increasing),
    "sqrt": _on(POSITIVE, math.sqrt, increasing),
    "rsqrt": _on(POSITIVE, lambda v: 1 / math.sqrt(v) if v > 0 else math.inf, decreasing),
    "square": square,
    "abs": _absolute,
    "sign": lambda x: Interval(
        -1.0 if x.low < 0 else 1.0 if x.low > 0 or x.low_open else 0.0,
        1.0 if x.high > 0 else -1.0 if x.high < 0 or x.high_open else 0.0,
    ),
    "sigmoid": lambda x: increasing(_sigmoid, x),
    "logsigmoid": lambda x: increasing(lambda v: -_softplus(-v), x),
    "tanh": lambda x: increasing(math.tanh, x),
    "relu": lambda x: maximum(x, Interval(0.0, 0.0)),
    "silu": _valley(lambda v: v * _sigmoid(v) if v > -math.inf else 0.0, -1.2784645427610738, SILU_LEAST),
    "gelu": _valley(
        lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))) if v > -math.inf else 0.0, -0.7517915246935645, GELU_LEAST
    ),
    "softplus": lambda x: increasing(_softplus, x),
    "erf": lambda x: increasing(math.erf, x),
    "sin": lambda x: Interval(-1.0, 1.0),
    "cos": lambda x: Interval(-1.0, 1.0),
    "stop_grad": lambda x: x,
    "clip_grad": lambda x: x,
    "add": add,
    "sub": lambda x, y: add(x, negative(y)),
    "min": minimum,
    "max": maximum,
    "where": lambda _, x, y: hull(x, y),
    "clamp": _clamp,
    "lt": _truth,
    "le": _truth,
    "eq": _truth,
    "ne": _truth,
    "broadcast": lambda x: x,
    "index": lambda x: x,
    "slice": lambda x: x,
    "amax": lambda x: x,
    "concat": hull,
}
"""Operations whose range follows from the ranges of their operands alone."""
