"""The torch evaluator against the SymPy evaluator, and each of its functions at the ends of its domain."""

from __future__ import annotations

import math

import pytest
import sympy
import torch
from drawn import SIZES, Drawn, K, V, bodies
from hypothesis import given, settings

from recurra.compiler.analysis import symbolic
from recurra.compiler.analysis.exact import Numbers, as_float
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.ops import OPS
from recurra.runtime import reference
from recurra.runtime.reference import ELEMENTWISE, evaluate


def test_the_tables_name_the_same_operations() -> None:
    pointwise = {name for name, op in OPS.items() if op.kind in ("elementwise", "compare")}
    assert set(ELEMENTWISE) | {"clip_grad"} == pointwise
    assert set(symbolic._functions()) | {"clip_grad", "stop_grad"} == pointwise
    methods = {name for name in OPS if hasattr(reference._Walk, "_" + name)}
    assert set(ELEMENTWISE) | methods | {"leaf"} == set(OPS)


@given(bodies(kinks=True))
@settings(max_examples=30)
def test_torch_and_sympy_agree(drawn: Drawn) -> None:
    b = drawn.builder
    exact, floats = {}, {}
    values = {}
    count = 0
    for i, leaf in enumerate(drawn.leaves):
        key = ("input", f"x{i}")
        exact[key] = {e: sympy.Symbol(f"x{i}_{e}", real=True) for e in symbolic.entries(b.axes(leaf), SIZES)}
        for symbol in exact[key].values():
            values[symbol] = sympy.Rational((count * 29) % 17 - 8, 7)
            count += 1
        flat = [float(values[s]) for s in exact[key].values()]
        shape = [axis.size.bind(SIZES) for axis in b.axes(leaf)]
        floats[key] = torch.tensor(flat, dtype=torch.float64).reshape(shape).requires_grad_()
    body = tuple(b.body)
    found = evaluate(body, drawn.roots, floats, SIZES, 0)
    true = symbolic.evaluate(body, drawn.roots, exact, SIZES)
    numbers = Numbers(values)
    for root in drawn.roots:
        expected = torch.tensor([as_float(numbers(x)) for x in true[root].values()], dtype=torch.float64)
        torch.testing.assert_close(found[root].flatten(), expected, rtol=1e-12, atol=1e-12)
    loss, total = (
        sum(found[r].sum() for r in drawn.roots),
        sympy.Add(*(x for r in drawn.roots for x in true[r].values())),
    )
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        slopes = torch.autograd.grad(loss, list(floats.values()), allow_unused=True)
        gradient = numbers.gradient(total)
        for key, slope in zip(floats, slopes, strict=True):
            expected = torch.tensor([as_float(gradient.get(s, 0)) for s in exact[key].values()], dtype=torch.float64)
            got = torch.zeros_like(expected) if slope is None else slope.flatten()
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def at(op: str, *point: float) -> torch.Tensor:
    return ELEMENTWISE[op](*(torch.tensor(x, dtype=torch.float64) for x in point))


@pytest.mark.parametrize(
    ("op", "point", "value"),
    [
        ("softplus", (21.0,), 21.000000000758256),
        ("softplus", (-700.0,), math.exp(-700)),
        ("softplus", (1e300,), 1e300),
        ("logsigmoid", (-1e300,), -1e300),
        ("logsigmoid", (40.0,), -math.exp(-40)),
        ("log1p", (1e-20,), 1e-20),
        ("expm1", (1e-20,), 1e-20),
        ("sigmoid", (-700.0,), math.exp(-700)),
        ("sqrt", (0.0,), 0.0),
        ("clamp", (2.0, 3.0, 1.0), 1.0),
        ("pow", (-8.0, 3.0), -512.0),
        ("exp", (-math.inf,), 0.0),
    ],
)
def test_values_at_the_ends(op: str, point: tuple[float, ...], value: float) -> None:
    assert at(op, *point).item() == pytest.approx(value, rel=1e-15, abs=0)


def test_real_power_of_a_negative_number_is_nan() -> None:
    assert at("pow", -8.0, 1 / 3).isnan()
    assert math.isnan(as_float(Numbers({})(sympy.Integer(-8) ** sympy.Rational(1, 3))))


@pytest.mark.parametrize("x", [-800.0, -40.0, -1.0, 0.0, 3.0, 40.0, 800.0])
@pytest.mark.parametrize("op", ["softplus", "logsigmoid", "sigmoid", "silu", "tanh", "gelu"])
def test_three_derivatives_are_finite(op: str, x: float) -> None:
    point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    value = ELEMENTWISE[op](point)
    for _ in range(3):
        (value,) = torch.autograd.grad(value, point, create_graph=True)
        assert value.isfinite()


def test_norm_has_gradient_zero_at_the_origin() -> None:
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    norm = ELEMENTWISE["sqrt"]((x * x).sum())
    (first,) = torch.autograd.grad(norm, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert not first.any() and not second.any()


@pytest.mark.parametrize("bound", [0.5, 10.0])
def test_clip_grad_is_differentiable_twice(bound: float) -> None:
    b = Builder()
    x = b.leaf("input", "x", (K,))
    out = b.apply("exp", b.emit("clip_grad", (x,), (bound,), (K,)))
    point = torch.tensor([0.1, 2.0], dtype=torch.float64, requires_grad=True)
    value = evaluate(tuple(b.body), [out], {("input", "x"): point}, SIZES, 0)[out]
    (first,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    torch.testing.assert_close(first, point.exp().clamp(max=bound))
    (second,) = torch.autograd.grad(first.sum(), point)
    torch.testing.assert_close(second, torch.where(point.exp() <= bound, point.exp(), 0.0))


def test_known_values_are_not_computed_again() -> None:
    b = Builder()
    x = b.leaf("input", "x", (V,))
    inner = b.apply("tanh", x)
    out = b.apply("neg", inner)
    found = evaluate(tuple(b.body), [out], {}, SIZES, 1, known={inner: torch.ones(5, 3)})
    assert torch.equal(found[out], -torch.ones(5, 3))
