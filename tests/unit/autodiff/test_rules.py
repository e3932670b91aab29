"""Every rule of differentiation, proved against SymPy at exact points of its whole domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import sympy
import torch

from recurra.compiler.analysis.exact import Numbers, as_float, derivative
from recurra.compiler.analysis.symbolic import entries, evaluate
from recurra.compiler.autodiff.rules import RULES, Site
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.ops import OPS
from recurra.compiler.ir.size import Size
from recurra.compiler.ir.types import Axes, Axis
from recurra.runtime.reference import evaluate as evaluate_in_torch

R = sympy.Rational
SIZES = {"K": 2, "V": 3, "N": 4}
K, V, N = (Axis(name, Size.of(name)) for name in SIZES)
V1 = Axis("V - 1", Size.of("V") - Size(1))
KV = Axis("K + V", Size.of("K") + Size.of("V"))

EVERYWHERE = [R(0), R(1, 10**12), R(-1, 10**12), R(1), R(-1), R(7, 3), R(-7, 3), R(40), R(-40), R(900), R(-900)]
POSITIVE = [R(1, 10**30), R(1, 7), R(1), R(2), R(10**30)]
MODERATE = [R(0), R(1, 10**12), R(-1, 10**12), R(1, 3), R(-5, 2), R(30), R(-30)]
FEW = [R(-3), R(-1, 2), R(0), R(1, 2), R(3)]


@dataclass(frozen=True)
class Case:
    """Operands' axes, the operation's attributes and result, and the operands' entries at each point."""

    operands: tuple[Axes, ...]
    points: Sequence[tuple[Any, ...]]
    attrs: tuple[Any, ...] = ()
    axes: Axes = ()


def scalar(*domains: Sequence[Any]) -> list[Case]:
    return [Case(((),) * len(domains), list(product(*domains)))]


def tensor(operands: tuple[Axes, ...], attrs: tuple[Any, ...], axes: Axes, ties: bool = False) -> Case:
    count = sum(len(list(entries(axes, SIZES))) for axes in operands)
    points = [tuple(R((7 * i * i + 3 * i) % 11 - 5, 3) for i in range(count))]
    if ties:
        points += [(R(2),) * count, tuple(R(min(i, 1)) for i in range(count))]
    return Case(operands, points, attrs, axes)


CASES: dict[str, list[Case]] = {
    "neg": scalar(EVERYWHERE),
    "exp": scalar(EVERYWHERE),
    "log": scalar(POSITIVE),
    "log1p": scalar([R(-999, 1000), R(1, 10**20), R(0), R(3), R(10**20)]),
    "expm1": scalar(EVERYWHERE),
    "sqrt": scalar([R(0), *POSITIVE]),
    "rsqrt": scalar(POSITIVE),
    "square": scalar(EVERYWHERE),
    "abs": scalar(EVERYWHERE),
    "sign": scalar(EVERYWHERE),
    "sigmoid": scalar(EVERYWHERE),
    "logsigmoid": scalar(EVERYWHERE),
    "tanh": scalar(EVERYWHERE),
    "relu": scalar(EVERYWHERE),
    "silu": scalar(EVERYWHERE),
    "softplus": scalar(EVERYWHERE),
    "gelu": scalar(EVERYWHERE),
    "erf": scalar(MODERATE),
    "sin": scalar(EVERYWHERE),
    "cos": scalar(EVERYWHERE),
    "add": scalar(FEW, FEW),
    "sub": scalar(FEW, FEW),
    "mul": scalar(FEW, FEW),
    "div": scalar(FEW, [R(-3), R(-1, 10**9), R(1, 2), R(10**9)]),
    "pow": scalar(POSITIVE[1:4], [R(-3), R(-1, 2), R(0), R(1, 2), R(1), R(2), R(5, 2)]),
    "max": scalar(FEW, FEW),
    "min": scalar(FEW, FEW),
    "where": [],
    "clamp": [Case(((),) * 3, [p for p in product(FEW, FEW, FEW)])],
    "sum": [tensor(((K, V),), (0,), (V,)), tensor(((K, V),), (1,), (K,))],
    "amax": [tensor(((K, V),), (1,), (K,), ties=True), tensor(((V,),), (0,), (), ties=True)],
    "contract": [
        tensor(((K,), (K, V)), ((0,), (0, 1), (1,)), (V,)),
        tensor(((K, V), (V, N)), ((0, 1), (1, 2), (0, 2)), (K, N)),
        tensor(((K,), (V,)), ((5,), (3,), (3, 5)), (V, K)),
        tensor(((K, V), (K, V)), ((0, 1), (0, 1), (0,)), (K,)),
        tensor(((K, V), (V, K)), ((0, 1), (1, 0), ()), ()),
        tensor(((K, V), (Axis("U", V.size),)), ((0, 1), (1,), (0,)), (K,)),
    ],
    "broadcast": [
        tensor(((),), ((-1, -1),), (K, V)),
        tensor(((K,),), ((-1, 0),), (V, K)),
        tensor(((K, V),), ((1, -1, 0),), (V, N, K)),
    ],
    "index": [tensor(((V, K),), (0, 2), (K,))],
    "place": [tensor(((K,),), (1, 2), (K, V))],
    "slice": [tensor(((K, V),), (1, Size(1), Size.of("V")), (K, V1))],
    "pad": [tensor(((V1, K),), (0, Size(1)), (V, K))],
    "concat": [tensor(((K, N), (V, N)), (0,), (KV, N))],
}
LEAVES = {name for name, op in OPS.items() if op.kind == "leaf"}
NOT_CALCULUS = {name for name, op in OPS.items() if op.kind == "compare"} | {"stop_grad", "clip_grad"}


def test_every_operation_has_a_rule_and_a_proof() -> None:
    assert set(RULES) == set(OPS)
    assert all(len(RULES[name]) == op.arity for name, op in OPS.items())
    assert set(CASES) | LEAVES | NOT_CALCULUS == set(OPS)


@dataclass(frozen=True)
class Written:
    """An operation and its rules as a body, with the positions of everything."""

    builder: Builder
    args: tuple[int, ...]
    out: int
    g: int
    cotangents: tuple[int | None, ...]


def write(op: str, case: Case) -> Written:
    b = Builder()
    args = tuple(b.leaf("input", f"x{i}", axes) for i, axes in enumerate(case.operands))
    out = b.emit(op, args, case.attrs, case.axes)
    g = b.leaf("cotangent", "g", case.axes)
    site = Site(b, b.body[out], out, g)
    return Written(b, args, out, g, tuple(rule and rule(site) for rule in RULES[op]))


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, cases in CASES.items() for case in cases])
def test_rule_is_the_derivative(op: str, case: Case) -> None:
    written = write(op, case)
    body = tuple(written.builder.body)
    leaves: dict[tuple[str, str], Any] = {
        ("input", f"x{i}"): {e: sympy.Symbol(f"x{i}_{e}", real=True) for e in entries(axes, SIZES)}
        for i, axes in enumerate(case.operands)
    }
    result_entries = list(entries(case.axes, SIZES))
    leaves["cotangent", "g"] = {e: R(5 * n * n + n + 1, 4) for n, e in enumerate(result_entries)}
    wanted = [written.out, *(c for c in written.cotangents if c is not None)]
    values = evaluate(body, wanted, leaves, SIZES)
    loss = sympy.Add(*(values[written.out][e] * leaves["cotangent", "g"][e] for e in result_entries))
    symbols = [s for i in range(len(case.operands)) for s in leaves["input", f"x{i}"].values()]
    slopes = [derivative(loss, symbol) for symbol in symbols]
    emitted = [
        (values[c][e] if c is not None else sympy.Integer(0))
        for c, axes in zip(written.cotangents, case.operands, strict=True)
        for e in entries(axes, SIZES)
    ]
    floats = in_float64(written, case, leaves)
    for n, point in enumerate(case.points):
        numbers = Numbers(dict(zip(symbols, point, strict=True)), 1000)
        for entry, (found, true) in enumerate(zip(emitted, slopes, strict=True)):
            exact = numbers(true)
            # Constants of erf and gelu are irrational: the IR holds their nearest floats.
            assert abs(numbers(found) - exact) <= abs(exact) * R(1, 10**13 if op in ("gelu", "erf") else 10**40)
            assert floats[n][entry] == pytest.approx(as_float(exact), rel=1e-12, abs=4e-15 * abs(g_scale(case)))


def g_scale(case: Case) -> float:
    count = len(list(entries(case.axes, SIZES)))
    return float(5 * (count - 1) ** 2 + count) / 4 + 1


def in_float64(written: Written, case: Case, leaves: dict[tuple[str, str], Any]) -> list[list[float]]:
    """The rule's own arithmetic in float64 at every point, entries of all operands in a row."""
    rows = []
    for point in case.points:
        numbers = iter(point)
        tensors = {}
        for i, axes in enumerate(case.operands):
            shape = [axis.size.bind(SIZES) for axis in axes]
            flat = [float(next(numbers)) for _ in entries(axes, SIZES)]
            tensors["input", f"x{i}"] = torch.tensor(flat, dtype=torch.float64).reshape(shape)
        g = torch.tensor([float(x) for x in leaves["cotangent", "g"].values()], dtype=torch.float64)
        tensors["cotangent", "g"] = g.reshape([axis.size.bind(SIZES) for axis in case.axes])
        wanted = [c for c in written.cotangents if c is not None]
        found = evaluate_in_torch(tuple(written.builder.body), wanted, tensors, SIZES, 0)
        row: list[float] = []
        for c, axes in zip(written.cotangents, case.operands, strict=True):
            row += [0.0] * len(list(entries(axes, SIZES))) if c is None else found[c].flatten().tolist()
        rows.append(row)
    return rows


def rule_at(op: str, *point: float, attrs: tuple[Any, ...] = ()) -> list[float]:
    """Cotangents of scalar operands where that of the result is 1."""
    case = Case(((),) * len(point), [point], attrs)
    written = write(op, case)
    return in_float64(written, case, {("cotangent", "g"): {(): 1.0}})[0]


@pytest.mark.parametrize(
    ("op", "point", "slopes"),
    [
        ("max", (2.0, 2.0), [0.5, 0.5]),
        ("min", (2.0, 2.0), [0.5, 0.5]),
        ("relu", (0.0,), [0.0]),
        ("abs", (0.0,), [0.0]),
        ("sign", (0.0,), [0.0]),
        ("sqrt", (0.0,), [0.0]),
        ("clamp", (1.0, 1.0, 3.0), [1.0, 0.0, 0.0]),
        ("clamp", (3.0, 1.0, 3.0), [1.0, 0.0, 0.0]),
        ("clamp", (2.0, 3.0, 1.0), [0.0, 0.0, 1.0]),
        ("pow", (0.0, 2.0), [0.0, 0.0]),
        ("pow", (0.0, 1.0), [1.0, 0.0]),
        ("pow", (0.0, 0.0), [0.0, 0.0]),
        ("max", (1.0, float("-inf")), [1.0, 0.0]),
        ("exp", (float("-inf"),), [0.0]),
        ("logsigmoid", (-1e30,), [1.0]),
        ("softplus", (1e30,), [1.0]),
    ],
)
def test_conventions_where_calculus_is_silent(op: str, point: tuple[float, ...], slopes: list[float]) -> None:
    assert rule_at(op, *point) == slopes


def test_constant_exponents_need_no_logarithm() -> None:
    for exponent, expected in ((0.0, 0.0), (1.0, 1.0), (2.0, -6.0), (3.0, 27.0), (-1.0, -1 / 9)):
        b = Builder()
        x = b.leaf("input", "x")
        out = b.apply("pow", x, b.const(exponent))
        rule = RULES["pow"][0]
        assert rule is not None
        slope = rule(Site(b, b.body[out], out, b.const(1.0)))
        leaves = {("input", "x"): torch.tensor(-3.0, dtype=torch.float64)}
        assert evaluate_in_torch(tuple(b.body), [slope], leaves, {}, 0)[slope].item() == pytest.approx(expected)


def test_clip_grad_clamps_and_stop_grad_stops() -> None:
    b = Builder()
    x, g = b.leaf("input", "x", (K,)), b.leaf("cotangent", "g", (K,))
    out = b.emit("clip_grad", (x,), (0.5,), (K,))
    rule = RULES["clip_grad"][0]
    assert rule is not None
    slope = rule(Site(b, b.body[out], out, g))
    leaves = {("cotangent", "g"): torch.tensor([-3.0, 0.25])}
    assert evaluate_in_torch(tuple(b.body), [slope], leaves, SIZES, 0)[slope].tolist() == [-0.5, 0.25]
    assert RULES["stop_grad"] == (None,)


def test_where_sends_its_cotangent_to_the_chosen_side() -> None:
    b = Builder()
    x, y, g = b.leaf("input", "x", (K,)), b.leaf("input", "y", (K,)), b.leaf("cotangent", "g", (K,))
    out = b.apply("where", b.apply("lt", x, y), x, y)
    site = Site(b, b.body[out], out, g)
    condition, then, otherwise = RULES["where"]
    assert condition is None and then is not None and otherwise is not None
    slopes = [then(site), otherwise(site)]
    leaves = {
        ("input", "x"): torch.tensor([1.0, 2.0]),
        ("input", "y"): torch.tensor([2.0, 2.0]),
        ("cotangent", "g"): torch.tensor([5.0, 7.0]),
    }
    found = evaluate_in_torch(tuple(b.body), slopes, leaves, SIZES, 0)
    assert [found[s].tolist() for s in slopes] == [[5.0, 0.0], [0.0, 7.0]]


def test_every_rule_accepts_operands_with_axes() -> None:
    for name, op in OPS.items():
        if op.kind != "elementwise" or name == "where":
            continue
        written = write(name, Case(((K, V),) * op.arity, [], (0.5,) if name == "clip_grad" else (), (K, V)))
        assert all(c is None or written.builder.axes(c) == (K, V) for c in written.cotangents)
