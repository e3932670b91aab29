"""Ranges of sums of products in which a value stands several times, such as ``a + (1 - a) * b``.

Interval arithmetic takes the two ``a`` for different values. A polynomial that is linear in each of its variables
has its extremes at corners of the box of their ranges, so those are tried; anything else is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from ..ir.program import Body
from ..ir.types import EVERYTHING, Interval

MAX_ATOMS = 4
MAX_TERMS = 12

Polynomial = dict[frozenset[int], float]
"""Coefficients by the set of values that are multiplied."""


class Polynomials:
    """The polynomial of each value of a body, where it is short and linear in each variable."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._known: dict[int, Polynomial | None] = {}

    def range(self, position: int, found: Sequence[Interval], naive: Interval) -> Interval:
        """The range of a value given those before it, or everything if it is no such polynomial."""
        polynomial = self.of(position)
        if polynomial is None or frozenset({position}) in polynomial:
            return EVERYTHING
        atoms = sorted(set().union(*polynomial))
        uses = [sum(atom in term for term in polynomial) for atom in atoms]
        boxes = [found[atom] for atom in atoms]
        if max(uses, default=0) < 2 or any(math.isinf(x.low) or math.isinf(x.high) for x in boxes):
            return EVERYTHING
        values = []
        for corner in product(*((x.low, x.high) for x in boxes)):
            at = dict(zip(atoms, corner, strict=True))
            values.append(math.fsum(c * math.prod(at[a] for a in term) for term, c in polynomial.items()))
        opened = all(x.low_open and x.high_open for x in boxes) and min(values) < max(values)
        result = Interval(min(values), max(values), opened, opened)
        return result if _meet(result, naive) else EVERYTHING

    def of(self, position: int) -> Polynomial | None:
        """The polynomial of a value; operands come before it, and have been asked for or are asked for now."""
        if position not in self._known:
            self._known[position] = self._make(position)
        return self._known[position]

    def _make(self, position: int) -> Polynomial | None:
        instr = self.body[position]
        if instr.op == "const":
            return {frozenset(): instr.attrs[0]} if math.isfinite(instr.attrs[0]) else None
        if instr.op == "broadcast":
            inner = self.body[instr.args[0]]
            if not inner.axes:  # a scalar is the same at every entry
                return self.of(instr.args[0])
            return {frozenset({position}): 1.0}
        if instr.op not in ("add", "sub", "mul", "neg"):
            return {frozenset({position}): 1.0}
        parts = [self.of(arg) for arg in instr.args]
        if any(part is None for part in parts):
            return {frozenset({position}): 1.0}
        first, *rest = (part for part in parts if part is not None)
        match instr.op:
            case "neg":
                made: Polynomial | None = {term: -c for term, c in first.items()}
            case "mul":
                made = _product(first, rest[0])
            case _:
                made = _sum(first, rest[0], 1.0 if instr.op == "add" else -1.0)
        if made is None or len(made) > MAX_TERMS or len(set().union(*made)) > MAX_ATOMS:
            return {frozenset({position}): 1.0}
        return made


def _sum(x: Polynomial, y: Polynomial, sign: float) -> Polynomial:
    total = dict(x)
    for term, c in y.items():
        total[term] = total.get(term, 0.0) + sign * c
    return {term: c for term, c in total.items() if c}


def _product(x: Polynomial, y: Polynomial) -> Polynomial | None:
    """The product, or None if a variable would be squared."""
    total: Polynomial = {}
    for left, c in x.items():
        for right, d in y.items():
            if left & right:
                return None
            total[left | right] = total.get(left | right, 0.0) + c * d
    return {term: c for term, c in total.items() if c}


def _meet(x: Interval, y: Interval) -> bool:
    return x.low <= y.high and y.low <= x.high
