"""Interval analysis: sound on samples, exact where it says so, and the ranges of gates."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.compiler.analysis.ranges import RULES, promises, ranges, unit
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.ops import OPS
from recurra.compiler.ir.types import Interval
from recurra.compiler.pipeline import compile_source
from recurra.dsl import Source, SpecError
from recurra.runtime.reference import ELEMENTWISE

INF = math.inf
UNARY = sorted(op.name for op in OPS.values() if op.kind == "elementwise" and op.arity == 1 and op.name != "clip_grad")
BINARY = sorted(op.name for op in OPS.values() if op.kind == "elementwise" and op.arity == 2)


def test_every_operation_has_a_rule() -> None:
    others = {"leaf", "const", "size", "mul", "div", "pow", "sum", "contract", "place", "pad"}
    assert set(RULES) | others == set(OPS) and not set(RULES) & others


BOUNDS = st.sampled_from([-INF, -30.0, -3.0, -1.5, -1.0, -0.25, 0.0, 0.25, 0.5, 1.0, 1.3, 2.0, 40.0, INF])


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, high = sorted((draw(BOUNDS), draw(BOUNDS)))
    if low == high:
        low, high = (low, low) if math.isfinite(low) else (-INF, INF)
        return Interval(low, high, math.isinf(low), math.isinf(high))
    return Interval(low, high, draw(st.booleans()) or math.isinf(low), draw(st.booleans()) or math.isinf(high))


def samples(interval: Interval, count: int = 60) -> list[float]:
    chance = random.Random(0)
    low, high = max(interval.low, -50.0), min(interval.high, 50.0)
    found = [chance.uniform(low, high) for _ in range(count)]
    found += [low] if not interval.low_open and math.isfinite(interval.low) else []
    found += [high] if not interval.high_open and math.isfinite(interval.high) else []
    return [x for x in found if low < x < high or x in (interval.low, interval.high)] or [low]


def inferred(op: str, *operands: Interval) -> Interval:
    b = Builder()
    args = [b.leaf("input", f"x{i}") for i in range(len(operands))]
    value = b.emit(op, tuple(args))
    return ranges(tuple(b.body), {("input", f"x{i}"): x for i, x in enumerate(operands)})[value]


def inside(value: float, interval: Interval) -> bool:
    slack = 1e-6 * max(1.0, abs(value)) if math.isfinite(value) else 0.0
    return math.isnan(value) or interval.low - slack <= value <= interval.high + slack


@pytest.mark.parametrize("op", UNARY)
@given(x=intervals())
def test_unary_operations(op: str, x: Interval) -> None:
    found = inferred(op, x)
    for point in samples(x):
        assert inside(float(ELEMENTWISE[op](torch.tensor(point, dtype=torch.float64))), found)


@pytest.mark.parametrize("op", BINARY)
@given(x=intervals(), y=intervals())
def test_binary_operations(op: str, x: Interval, y: Interval) -> None:
    found = inferred(op, x, y)
    left, right = samples(x, 12), samples(y, 12)
    values = ELEMENTWISE[op](*torch.meshgrid(torch.tensor(left).double(), torch.tensor(right).double(), indexing="ij"))
    assert all(inside(value, found) for value in values.flatten().tolist())


EXACT = [
    ("exp", Interval(-INF, 0, True, True), "(0, 1)"),
    ("exp", Interval(-INF, 0, True, False), "(0, 1]"),
    ("softplus", Interval(-INF, INF, True, True), "(0, inf)"),
    ("sigmoid", Interval(-INF, INF, True, True), "(0, 1)"),
    ("sigmoid", Interval(0, INF, False, True), "[0.5, 1)"),
    ("tanh", Interval(-INF, INF, True, True), "(-1, 1)"),
    ("square", Interval(-2, 1), "[0, 4]"),
    ("square", Interval(-2, -1, False, True), "(1, 4]"),
    ("abs", Interval(-2, 1), "[0, 2]"),
    ("abs", Interval(-1, 2, False, True), "[0, 2)"),
    ("relu", Interval(-1, 1, True, True), "[0, 1)"),
    ("rsqrt", Interval(0, 4, True, False), "[0.5, inf)"),
    ("log", Interval(0, 1, True, False), "(-inf, 0]"),
    ("sign", Interval(0, 3, True, False), "[1, 1]"),
    ("silu", Interval(-INF, INF, True, True), "[-0.278465, inf)"),
]


@pytest.mark.parametrize(("op", "x", "expected"), EXACT)
def test_exact_ranges(op: str, x: Interval, expected: str) -> None:
    assert str(inferred(op, x)) == expected


GATES = [
    ("exp(-exp(P) * softplus(x))", "(0, 1)"),
    ("2 * sigmoid(x)", "(0, 2)"),
    ("1 - sigmoid(x)", "(0, 1)"),
    ("sigmoid(P) + (1 - sigmoid(P)) * sigmoid(x)", "(0, 1)"),
    ("u * sigmoid(x) + (1 - u) * sigmoid(P)", "[0, 1]"),
    ("u * (1 - u)", "[0, 1]"),
    ("u - u * c", "[0, 1]"),
    ("2 * u - 1", "[-1, 1]"),
    ("x * x", "[0, inf)"),
    ("x^2 + 1", "[1, inf)"),
    ("(u + 1)^-1", "[0.5, 1]"),
    ("1 / (1 + exp(x))", "(0, 1)"),
    ("sigmoid(x) / (1 + sigmoid(x) * (k @ k))", "(0, 1)"),
    ("clamp(x, 0, 1)", "[0, 1]"),
    ("max(min(x, 1), -1)", "[-1, 1]"),
    ("where(x > 0, u, 2)", "[0, 2]"),
    ("sqrt(1 - sigmoid(x)^2)", "(0, 1)"),
    ("max(softmax(k))", "(0, 1]"),
    ("sum(l2norm(k)^2) + u", "[0, inf)"),
    ("max(l2norm(k))", "[-1, 1]"),
    ("max(n)", "[-1, 1]"),
    ("x - x + P", "(-inf, inf)"),
    ("sign(x) * u", "[-1, 1]"),
    ("sin(x)", "[-1, 1]"),
    ("exp(logsigmoid(x) / 16)", "(0, 1)"),
    ("K^-0.5", "(0, 1]"),
    ("sum(B) / 2", "[0, 1]"),
    ("0.3 + 0.7 * u", "[0.3, 1]"),
    ("u^0.5", "[0, 1]"),
    ("c^1.5", "(0, 1)"),
    ("log(x)", "[-inf, inf)"),
    ("gelu(x)", "[-0.169971, inf)"),
]


def gate(expression: str, declared: str = "") -> str:
    text = (
        "recurrence r\ndims K\nconst N = 2\nstate h\ninput x, u in [0, 1], c in (0, 1), k[K], n[K] unit, "
        f"B[N] in [0, 1]\nparam P\ngate g {declared} = {expression}\ntransition h' = g * h\noutput o = h'\n"
    )
    return str(compile_source(Source("r.rec", text)).stages["check"].value["g"])


@pytest.mark.parametrize(("expression", "expected"), GATES)
def test_ranges_of_expressions(expression: str, expected: str) -> None:
    assert gate(expression) == expected


def test_a_declared_range_is_kept_where_it_holds() -> None:
    assert gate("exp(-softplus(x))", "in (0, 1]") == "(0, 1]"
    assert gate("0.1 * 3 * u", "in [0, 0.3]") == "[0, 0.3]"
    for declared in ("in [0, 0.5]", "in (0.1, 1]", "in [0.3, 0.999]"):
        with pytest.raises(SpecError, match="is in \\(0, 1\\)"):
            gate("sigmoid(x)", declared)


def test_unit_vectors() -> None:
    text = (
        "recurrence r\ndims K, V\nconst N = 2\nstate S[K, V]\ninput k[N, K] unit, q[K], M[V, K]\n"
        "let a = l2norm(q)\nlet b = -k[1]\nlet c = rmsnorm(q)\nlet d = 2 * a\nlet e = l2norm(M)\nlet f = l2norm(M, V)\n"
        "transition S' = outer(a + b + c + d, l2norm(M) @ q) + (e * f).T\noutput o[V] = a @ S'\n"
    )
    program = compile_source(Source("r.rec", text)).program
    found = unit(program.body, frozenset(i.name for i in program.inputs if i.unit))
    named = {instr.name: flag for instr, flag in zip(program.body, found, strict=True) if instr.name}
    assert named == {"a": True, "b": True, "c": False, "d": False, "e": True, "f": False}
    assert promises(program)["input", "k"] == Interval(-1, 1)
