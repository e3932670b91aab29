"""Arithmetic of intervals with open and closed ends.

An end is a pair of a bound and whether it is reached. Infinity times zero is zero (a bound that is approached times
one that is zero), and infinity minus infinity makes the bound infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..ir.size import Size
from ..ir.types import EVERYTHING, Interval

End = tuple[float, bool]
"""A bound and whether it is open."""


def low(x: Interval) -> End:
    return x.low, x.low_open


def high(x: Interval) -> End:
    return x.high, x.high_open


def between(lower: End, upper: End) -> Interval:
    return Interval(lower[0], upper[0], lower[1], upper[1])


def least(*ends: End) -> End:
    """The lowest of several bounds; reached if one of those is."""
    bound = min(end[0] for end in ends)
    return bound, all(opened for value, opened in ends if value == bound)


def greatest(*ends: End) -> End:
    """The highest of several bounds; reached if one of those is."""
    bound = max(end[0] for end in ends)
    return bound, all(opened for value, opened in ends if value == bound)


def increasing(f: Callable[[float], float], x: Interval) -> Interval:
    """The image under a function that rises, strictly up to rounding."""
    return Interval(f(x.low), f(x.high), x.low_open, x.high_open)


def decreasing(f: Callable[[float], float], x: Interval) -> Interval:
    """The image under a function that falls."""
    return Interval(f(x.high), f(x.low), x.high_open, x.low_open)


def negative(x: Interval) -> Interval:
    return Interval(-x.high, -x.low, x.high_open, x.low_open)


def _plus(x: End, y: End, nan: float) -> End:
    total = x[0] + y[0]
    return (nan, False) if math.isnan(total) else (total, x[1] or y[1])


def add(x: Interval, y: Interval) -> Interval:
    return between(_plus(low(x), low(y), -math.inf), _plus(high(x), high(y), math.inf))


def _times(x: End, y: End) -> End:
    if (x[0] == 0 and not x[1]) or (y[0] == 0 and not y[1]):
        return 0.0, False
    if x[0] == 0 or y[0] == 0:
        return 0.0, True
    return x[0] * y[0], x[1] or y[1]


def multiply(x: Interval, y: Interval) -> Interval:
    products = [_times(a, b) for a in (low(x), high(x)) for b in (low(y), high(y))]
    result = between(least(*products), greatest(*products))
    for end in (result.low, result.high):
        if end == 0 and (has_zero(x) or has_zero(y)):  # reached inside, where no corner reaches it
            result = hull(result, Interval(0.0, 0.0))
    return result


def has_zero(x: Interval) -> bool:
    """Whether zero is one of the values."""
    return Interval(0.0, 0.0) in x


def square(x: Interval) -> Interval:
    if x.low >= 0:
        return multiply(x, x)
    if x.high <= 0:
        return multiply(negative(x), negative(x))
    ends = greatest(_times(low(x), low(x)), _times(high(x), high(x)))
    return between((0.0, False), ends)


def divide(x: Interval, y: Interval) -> Interval:
    """x / y; nothing is known where the divisor can be zero inside its range."""
    if y.low < 0 < y.high or (y.low == 0 == y.high):
        return EVERYTHING
    return multiply(x, between(_inverse(high(y), y.low < 0), _inverse(low(y), y.low < 0)))


def _inverse(end: End, below: bool) -> End:
    bound, opened = end
    if bound == 0:
        return (-math.inf if below else math.inf), opened
    return 1 / bound, opened


def hull(x: Interval, y: Interval) -> Interval:
    """The smallest interval that holds both."""
    return between(least(low(x), low(y)), greatest(high(x), high(y)))


def maximum(x: Interval, y: Interval) -> Interval:
    """The range of the larger of two independent values."""
    bound = max(x.low, y.low)
    opened = any(end[1] for end in (low(x), low(y)) if end[0] == bound)
    return between((bound, opened), greatest(high(x), high(y)))


def minimum(x: Interval, y: Interval) -> Interval:
    """The range of the smaller of two independent values."""
    return negative(maximum(negative(x), negative(y)))


def repeated(x: Interval, size: Size) -> Interval:
    """The sum of as many values as an axis has entries: at least one."""
    if size.known is not None:
        return between(_many(low(x), size.known), _many(high(x), size.known))
    lower = low(x) if x.low >= 0 else (-math.inf, x.low_open or x.low > -math.inf)
    upper = high(x) if x.high <= 0 else (math.inf, x.high_open or x.high < math.inf)
    return between(lower, upper)


def _many(end: End, count: int) -> End:
    return (end[0] * count if end[0] else 0.0), end[1]
