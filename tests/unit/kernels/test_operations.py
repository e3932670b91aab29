"""Every operation of the typed IR as a kernel of its own, on values where textbook forms fail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from unit.kernels.against_reference import WAYS, arguments, changed, check, sizes_of, spec

from recurra.compiler.codegen.triton_math import OPERATIONS
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.ops import OPS
from recurra.compiler.ir.program import Dim, Input, Output, Program, State
from recurra.compiler.ir.size import Size
from recurra.compiler.ir.types import EVERYTHING, Axis
from recurra.compiler.options import KernelOptions
from recurra.dsl.source import Source, Span
from recurra.runtime import reference
from recurra.runtime.ops import triton_backend

HERE = Span(0, 0)
V = Axis("V", Size.of("V"))

INF = math.inf
SMALL = [0.0, 1e-30, 1e-8, 1e-4, 0.02, 0.3, 0.34, 0.36, 0.39, 0.41, 0.62, 0.63, 1.0, 2.5]
LARGE = [9.0, 20.0, 88.0, 90.0, 110.0, 1e4, 3e38, INF]
EVERYWHERE = sorted({sign * x for x in (*SMALL, *LARGE) for sign in (1.0, -1.0)})
FINITE = [x for x in EVERYWHERE if math.isfinite(x)]
TAME = [x for x in EVERYWHERE if abs(x) <= 9]
POSITIVE = [x for x in EVERYWHERE if x >= 0]

DOMAIN = {
    "log": POSITIVE,
    "log1p": [x for x in EVERYWHERE if x > -1] + [-0.999],
    "sqrt": POSITIVE,
    "rsqrt": POSITIVE,
    "sin": TAME,
    "cos": TAME,
    # -inf * 0 is NaN in torch's too
    "silu": [x for x in EVERYWHERE if x > -INF],
    "gelu": [x for x in EVERYWHERE if x > -INF],
    "square": [x for x in EVERYWHERE if abs(x) < 1e19],
}
SCALE = {"gelu": 1.0, "sin": 1.0, "cos": 1.0, "erf": 0.0, "logsigmoid": 0.0}
"""Where an operation cancels, errors are relative to this rather than to the result."""

UNARY = [op.name for op in OPS.values() if op.arity == 1 and op.kind == "elementwise" and "grad" not in op.name]
TOLERANCE = 4e-7
TINY = 1e-37
"""What float32 holds with few digits or not at all."""


def program_of(op: str, arity: int) -> Program:
    """``o = op(x0, x1, ...)``, entry by entry, beside a state that stays."""
    b = Builder()
    state = b.leaf("state", "s")
    args = [b.leaf("input", f"x{i}", (V,)) for i in range(arity)]
    value = b.emit(op, tuple(args), (), (V,))
    if OPS[op].kind == "compare":
        value = b.apply("where", value, b.spread(b.const(1.0), (V,)), b.const(0.0))
    return Program(
        f"op_{op}",
        "",
        (Dim("V", None, HERE),),
        (),
        (State("s", (), b.const(0.0), state, HERE),),
        tuple(Input(f"x{i}", (V,), EVERYTHING, False, HERE) for i in range(arity)),
        (),
        (),
        (Output("o", (V,), value, HERE),),
        tuple(b.body),
        None,
        Source("op.rec", ""),
    )


def both(op: str, *columns: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The result and the gradients by kernels and, in float64, by the reference."""
    program = program_of(op, len(columns))
    sizes = {"V": columns[0].numel()}
    found = []
    for run, dtype in ((triton_backend.run, torch.float32), (reference.run, torch.float64)):
        leaves = {f"x{i}": x.to(dtype)[None, None, None].requires_grad_() for i, x in enumerate(columns)}
        (o,), _ = run(program, sizes, leaves, {}, {}, steps=1)
        slopes = torch.autograd.grad(o.sum(), list(leaves.values()), allow_unused=True) if o.requires_grad else []
        slopes = [torch.zeros_like(x) if g is None else g for g, x in zip(slopes, leaves.values(), strict=False)]
        found.append([o.detach().flatten(), *(g.flatten() for g in slopes)])
    return found[0], found[1]


def off(found: Tensor, expected: Tensor, scale: float) -> Tensor:
    """Errors relative to the result plus ``scale``; infinite where NaN or Inf differ."""
    expected32 = expected.float()
    same = (found == expected32) | (found.isnan() & expected32.isnan())
    error = ((found.double() - expected).abs() - TINY).clamp(min=0) / (expected.abs() + scale)
    return torch.where(same, 0.0, torch.nan_to_num(error, nan=INF))


def report(op: str, columns: list[Tensor], error: Tensor) -> str:
    at = int(error.argmax())
    return f"{op}({', '.join(f'{float(x[at])!r}' for x in columns)}) is off by {float(error[at]):.1e}"


@pytest.mark.parametrize("op", UNARY)
def test_functions_of_one_value(op: str) -> None:
    x = torch.tensor(DOMAIN.get(op, EVERYWHERE))
    (found, *_), (expected, *_) = both(op, x)
    error = off(found, expected, SCALE.get(op, 0.0))
    assert error.max() <= TOLERANCE, report(op, [x], error)


EXACT_SLOPE = {"neg", "exp", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "sign", "relu", "logsigmoid", "softplus"}
"""Operations whose derivative does not cancel."""


@pytest.mark.parametrize("op", UNARY)
def test_derivatives_of_one_value(op: str) -> None:
    x = torch.tensor([x for x in DOMAIN.get(op, EVERYWHERE) if 1e-10 < abs(x) < 1e4])
    (_, slope), (_, expected) = both(op, x)
    error = off(slope, expected, 0.0 if op in EXACT_SLOPE else 1.0)
    assert error.max() <= 4 * TOLERANCE, report(f"d {op}", [x], error)


PAIRS = [(x, y) for x in EVERYWHERE for y in (-INF, -90.0, -1.0, 0.0, 0.3, 2.0, INF)]
POWERS = [(x, y) for x in (0.02, 0.3, 1.0, 2.5, 9.0) for y in (-2.5, -1.0, 0.0, 0.3, 1.0, 2.0, 3.0)]
POWERS += [(x, float(y)) for x in (-0.3, -1.0, -2.5) for y in (-3, -2, -1, 0, 1, 2, 3, 4)]
POWERS += [(0.0, y) for y in (0.0, 0.5, 1.0, 2.0, 3.0)] + [(-2.0, 0.5)]
BINARY = [op.name for op in OPS.values() if op.arity == 2 and op.kind in ("elementwise", "compare")]


@pytest.mark.parametrize("op", BINARY)
def test_functions_of_two_values(op: str) -> None:
    pairs = POWERS if op == "pow" else PAIRS
    x, y = torch.tensor(pairs).T.contiguous()
    (found, *_), (expected, *_) = both(op, x, y)
    error = off(found, expected, 0.0)
    assert error.max() <= (2e-6 if op == "pow" else TOLERANCE), report(op, [x, y], error)


@pytest.mark.parametrize("op", [op for op in BINARY if OPS[op].kind == "elementwise"])
def test_derivatives_of_two_values(op: str) -> None:
    if op == "pow":
        pairs = [(x, y) for x, y in POWERS if x > 0]
    else:
        pairs = [(x, y) for x, y in PAIRS if max(abs(x), abs(y)) <= 9 and abs(y) > 0.1 and (not x or abs(x) > 1e-5)]
    x, y = torch.tensor(pairs).T.contiguous()
    (_, *slopes), (_, *expected) = both(op, x, y)
    for slope, true in zip(slopes, expected, strict=True):
        error = off(slope, true, 1e-3)
        assert error.max() <= (4e-6 if op == "pow" else TOLERANCE), report(f"d {op}", [x, y], error)


def test_clamp() -> None:
    rows = [(x, low, high) for x in (-INF, -2.0, -1.0, 0.0, 1.0, 2.0, INF) for low, high in ((-1.0, 1.0), (1.0, -1.0))]
    columns = list(torch.tensor(rows).T.contiguous())
    (found, *slopes), (expected, *true) = both("clamp", *columns)
    for got, wanted in zip((found, *slopes), (expected, *true), strict=True):
        assert torch.equal(got.double(), wanted)


def test_every_elementwise_operation_is_printed() -> None:
    quiet = {"stop_grad", "clip_grad"}
    wanted = {op.name for op in OPS.values() if op.kind in ("elementwise", "compare")} - quiet
    assert wanted == OPERATIONS


REST = {
    "contract": "output o[V] = q @ X\noutput p = q @ k\noutput s[K, V] = outer(q, v)\noutput r[V, K] = outer(v, q)",
    "sum": "output o[V] = sum(X, K)\noutput p = sum(sum(X, K), V)\noutput r = sum(h * 0 + 1, V)",
    "amax": "output o[V] = max(X, K)\noutput p[K] = max(X * 0 + q, V)\noutput r = max(-abs(q) - 1, K)",
    "broadcast": "output o[K, V] = X * q\noutput p[K, V] = X / (2 + tanh(v))\noutput r[V, K] = X.T * q",
    "index": "output o = X[1][0]\noutput p[V] = (X * q)[2]\noutput r = q[0] + h'[1]",
    "slice": "output o[K] = concat(q[1:K], (2 * q)[0:1])\noutput r[V] = concat(h'[V - 2:V], (h' * v)[2:V])",
    "concat": "output o[K] = concat(q[0:1], concat(k[1:K - 1], b * q[0:1]))\noutput r[V] = concat(h[1:V], v[0:1])",
    "place": "output o = sum(concat(q[0:1], k[1:K]) * q[1], K)\noutput r = X[0][1] * X[1][0]",
    "transpose": "output o[V, K] = X.T\noutput p[V, V] = outer(h', v).T @ outer(v, h')\n"
    "output r = v @ outer(h', v).T @ v",
    "where": "output o[K] = where(q > 0, k, -q)\noutput p[K, V] = where(X != X, 1, where(X == X, q, 3))",
    "stop_grad": "output o[K] = stop_grad(q) * k\noutput p[V] = stop_grad(h') * h' + stop_grad(v)",
    "clip_grad": "output o[K] = 5 * clip_grad(q, 0.2) * k\n"
    "output p[V] = clip_grad(3 * h', 0.1) + clip_grad(2, 0.1) * v",
    "size": "output o[K] = K^-0.5 * q + V\noutput p = where(K > 3, 1, b) * log(V) + clamp(K, 0, 2)",
    "compositions": "output o[K] = softmax(q)\noutput p[K, V] = softmax(X, K)\n"
    "output r = logsumexp(90 * q, K) + norm(k)",
    "norms": "output o[K] = l2norm(q) + rmsnorm(k)\noutput p[K, V] = layernorm(X)\noutput r[K] = l2norm(q * 0)",
    "structured": "output o[K, V] = householder(q, b) @ X + diag(k) @ X\noutput p[F] = rotation(w) @ z\n"
    "output r[F, V] = rotation(w) @ outer(z, v)\noutput s[V] = eye(V) @ v + v @ outer(v, h')",
}
HEADER = """recurrence one
dims K, V
const F = 4
const P = 2
state h[V]
input q[K], k[K], v[V], X[K, V], b, w[P], z[F]
transition h' = tanh(h + v)
"""


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", REST)
def test_other_operations(name: str, strategy: str) -> None:
    text = HEADER + REST[name] + "\n"
    program = spec(text)
    sizes = sizes_of(program, 5, 3)
    given = arguments(program, sizes, steps=2)
    check(program, sizes, given, strategy, options=KernelOptions(chunk=2))


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize(
    "text", ["softmax(q)", "max(q, K) + q", "logsumexp(q, K) + q", "l2norm(q)", "where(q > 0, q, 0)"]
)
def test_infinities_beyond_the_axis_stay_there(text: str, strategy: str) -> None:
    """Padding is never the maximum and never counts: all real entries are far below zero or infinite."""
    program = spec(f"recurrence one\ndims K\nstate m\ninput q[K]\ntransition m' = m + q[0]\noutput o[K] = {text}\n")
    given = arguments(program, {"K": 5}, steps=2, heads=1)
    check(program, {"K": 5}, changed(given, q=lambda q: q - 1e3), strategy)
    check(program, {"K": 5}, changed(given, q=lambda q: q * 1e-6), strategy)
