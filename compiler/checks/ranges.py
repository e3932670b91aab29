"""Gates must stay in the ranges that they declare."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...dsl.diagnostics import Diagnostic
from ..analysis.ranges import promises, ranges
from ..ir.program import Gate, Program
from ..ir.types import EVERYTHING, Interval

ROUNDING = 1e-12
"""Bounds that differ by less, relative to their size, are taken for equal: they were computed in floating point."""


def check_ranges(program: Program) -> tuple[Mapping[str, Interval], tuple[Diagnostic, ...]]:
    """The range of every gate, the declared one where it holds, and a message for each that does not."""
    inferred = ranges(program.body, promises(program))
    found: dict[str, Interval] = {}
    mistakes: list[Diagnostic] = []
    for gate in program.gates:
        actual = inferred[gate.value]
        found[gate.name] = actual
        if gate.declared is None:
            continue
        if _snapped(actual, gate.declared) in gate.declared:
            found[gate.name] = gate.declared
        else:
            mistakes.append(_leaves(program, gate, gate.declared, actual))
    return found, tuple(mistakes)


def _snapped(actual: Interval, declared: Interval) -> Interval:
    """The inferred range with bounds that are the declared ones up to rounding set to them."""
    low = declared.low if _close(actual.low, declared.low) else actual.low
    high = declared.high if _close(actual.high, declared.high) else actual.high
    return Interval(low, high, actual.low_open, actual.high_open)


def _close(x: float, y: float) -> bool:
    return x == y or (math.isfinite(x) and math.isfinite(y) and abs(x - y) <= ROUNDING * max(1.0, abs(x), abs(y)))


def _leaves(program: Program, gate: Gate, declared: Interval, actual: Interval) -> Diagnostic:
    """The message for a gate that can leave its range."""
    notes: tuple[str, ...] = ()
    helps = ["declare the range that it has, or bound the expression with `sigmoid`, `clamp` or `exp(-softplus(x))`"]
    if actual == EVERYTHING or (math.isinf(actual.low) and math.isinf(actual.high)):
        notes = ("nothing bounds this expression: inputs and params without a promised range are any number",)
        helps = ["bound it with `sigmoid(x)`, `exp(-softplus(x))` or `clamp(x, lo, hi)`, or promise the range of what "
                 "it reads, as in `input x in (0, 1)`"]  # fmt: skip
    elif (actual.low, actual.high) == (declared.low, declared.high):
        helps = [f"write `in {actual}`: a bound that can be reached has a square bracket"]
    span = program.body[gate.value].span or gate.span
    if not (gate.span.start <= span.start and span.end <= gate.span.end):
        span = gate.span
    return Diagnostic(
        "E0301",
        f"the gate `{gate.name}` can leave its declared range {declared}",
        span,
        f"is in {actual}",
        (),
        notes,
        tuple(helps),
    )
