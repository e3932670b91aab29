"""Arithmetic on numbers that are known while compiling."""

from __future__ import annotations

import math

from ..ir.builder import Builder
from ..ir.numbers import NUMBERS
from ..ir.size import Size


class NoValue(Exception):
    """A constant expression such as ``1 / 0`` that is not a number."""


def number(b: Builder, value: int) -> float | None:
    """The number that a scalar IR value is, if it is known."""
    instr = b.body[value]
    return float(instr.attrs[0]) if instr.op == "const" else None


def fold(b: Builder, op: str, *args: int) -> int | None:
    """The constant ``op(args)`` if all operands are known numbers (NoValue if it is not a number)."""
    found = [number(b, arg) for arg in args]
    known = [value for value in found if value is not None]
    if op not in NUMBERS or len(known) < len(found):
        return None
    try:
        result = NUMBERS[op](*known)
    except OverflowError:
        raise NoValue("it is too large for a number") from None
    except ZeroDivisionError:
        raise NoValue("it divides by zero") from None
    except ValueError:
        raise NoValue("it has no value") from None
    if math.isnan(result):
        raise NoValue("it has no value")
    if math.isinf(result) and not any(math.isinf(value) for value in known):
        raise NoValue("it is too large for a number")
    return b.const(result)


def size_of(b: Builder, value: int) -> Size | None:
    """A scalar IR value as a size: an integer, a dimension, or a sum of those with integer factors."""
    instr = b.body[value]
    if instr.op == "const":
        exact = float(instr.attrs[0]).is_integer()
        return Size(int(instr.attrs[0])) if exact and abs(instr.attrs[0]) < 2**53 else None
    if instr.op == "size":
        return Size.of(instr.attrs[0])
    if instr.op not in ("add", "sub", "mul", "neg") or instr.axes:
        return None
    args = [size_of(b, arg) for arg in instr.args]
    if any(arg is None for arg in args):
        return None
    first, *rest = (arg for arg in args if arg is not None)
    match instr.op:
        case "add":
            return first + rest[0]
        case "sub":
            return first - rest[0]
        case "neg":
            return first * -1
    if first.known is not None:
        return rest[0] * first.known
    return first * rest[0].known if rest[0].known is not None else None
