"""What every construct of an expression means, against the same thing written in PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.compiler.frontend import elaborate
from recurra.compiler.ir.program import Program, live
from recurra.compiler.ir.verify import check_program
from recurra.dsl import Source, parse
from recurra.runtime.reference import evaluate

DECLARED = """
dims K, V, U = K, M
const N = 3
const c = 0.5
state S[K, V], h[K], P[K, K], R[V, K], z[M], line[N]
input k[K], j[K], v[V], u[U], a, b, A[N, K], B[N], X[K, V], pos in (0, 1)
param W[V, V], D[K, K]
def swiglu(x, y) = silu(x) * y
def scaled(x) = c * x
"""
SIZES = {"K": 4, "V": 5, "M": 6, "N": 3, "U": 4}
AXES = {
    "S": "KV", "h": "K", "P": "KK", "R": "VK", "z": "M", "line": "N", "k": "K", "j": "K", "v": "V", "u": "U", "a": "",
    "b": "", "A": "NK", "B": "N", "X": "KV", "W": "VV", "D": "KK", "pos": "",
}  # fmt: skip


def leaves() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {
        name: torch.randn([SIZES[axis] for axis in axes], generator=generator, dtype=torch.float64)
        for name, axes in AXES.items()
    }
    found["pos"] = torch.tensor(0.7, dtype=torch.float64)
    return found


def program(expression: str, axes: str, before: str = "") -> Program:
    keep = "".join(f"transition {name}' = {name}\n" for name in ("S", "h", "P", "R", "z", "line"))
    brackets = f"[{axes}]" if axes else ""
    text = f"recurrence r{DECLARED}{before}\n{keep}output o{brackets} = {expression}\n"
    found = elaborate(parse(Source("r.rec", text)))
    check_program(found)
    return found


def value(expression: str, axes: str = "", before: str = "") -> Tensor:
    found = program(expression, axes, before)
    kinds = {**dict.fromkeys((s.name for s in found.states), "state"), **{p.name: "param" for p in found.params}}
    given = {(kinds.get(name, "input"), name): tensor for name, tensor in leaves().items()}
    like = torch.zeros((), dtype=torch.float64)
    return evaluate(found.body, [found.outputs[0].value], given, SIZES, 0, like=like)[found.outputs[0].value]


L = leaves()
S, h, P, R, z, line = (L[name] for name in ("S", "h", "P", "R", "z", "line"))
k, j, v, u, a, b, A, B, X, W, D = (L[name] for name in ("k", "j", "v", "u", "a", "b", "A", "B", "X", "W", "D"))
pos = L["pos"]
I4 = torch.eye(4, dtype=torch.float64)


def house(key: Tensor, beta: float | Tensor) -> Tensor:
    return torch.eye(len(key), dtype=torch.float64) - beta * torch.outer(key, key)


def full(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


ELEMENTWISE = {
    "exp": torch.exp, "log1p": torch.log1p, "expm1": torch.expm1, "square": torch.square, "abs": torch.abs,
    "sign": torch.sign, "sigmoid": torch.sigmoid, "logsigmoid": F.logsigmoid, "tanh": torch.tanh,
    "relu": torch.relu, "silu": F.silu, "softplus": F.softplus, "gelu": F.gelu, "sin": torch.sin, "cos": torch.cos,
    "neg": torch.neg, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "log": torch.log, "stop_grad": lambda x: x,
}  # fmt: skip

CASES: list[tuple[str, str, Tensor]] = [
    *[(f"{name}(pos)", "", function(pos)) for name, function in ELEMENTWISE.items()],
    # alignment by name
    ("a * S", "K, V", a * S),
    ("k * S", "K, V", k[:, None] * S),
    ("S * v", "K, V", S * v),
    ("S + R", "K, V", S + R.T),
    ("R - S", "V, K", R - S.T),
    ("k * S * v / 2", "K, V", k[:, None] * S * v / 2),
    ("P + D", "K, K", P + D),
    ("1 - S", "K, V", 1 - S),
    ("-k + 3", "K", 3 - k),
    ("A * B", "N, K", A * B[:, None]),
    ("max(S, k)", "K, V", torch.maximum(S, k[:, None])),
    ("min(a, v)", "V", torch.minimum(a, v)),
    ("clamp(S, -k^2, 1)", "K, V", torch.clamp(S, -(k**2)[:, None], full(1))),
    ("where(k > a, S, v)", "K, V", torch.where((k > a)[:, None], S, v)),
    ("where(k >= j, 1, 0) + where(k <= j, 1, 0)", "K", full(1).expand(4)),
    ("where(a != b, k, j)", "K", k),
    ("where(a == a, k, j)", "K", k),
    ("where((k > 0) * (j > 0), 1, 2)", "K", torch.where((k > 0) & (j > 0), 1.0, 2.0).double()),
    ("(k > 0) * j", "K", (k > 0) * j),
    # powers and constants
    ("k^2", "K", k**2),
    ("k^3", "K", k**3),
    ("k^4", "K", k**4),
    ("k^-1", "K", 1 / k),
    ("k^-2", "K", k**-2),
    ("k^0", "K", torch.ones(4, dtype=torch.float64)),
    ("pos^0.5 + pow(pos, -0.5)", "", pos**0.5 + pos**-0.5),
    ("pos^1.5", "", pos**1.5),
    ("2^-k", "K", 2**-k),
    ("-k^2", "K", -(k**2)),
    ("K^-0.5 * k", "K", k / 2),
    ("K + 2 * M - N", "", full(4 + 12 - 3)),
    ("c * a + log(2) - exp(-inf)", "", 0.5 * a + math.log(2)),
    ("swiglu(k, scaled(j))", "K", F.silu(k) * 0.5 * j),
    # contractions
    ("k @ S", "V", k @ S),
    ("S @ v", "K", S @ v),
    ("k @ j", "", k @ j),
    ("S @ W", "K, V", S @ W),
    ("S.T @ k", "V", S.T @ k),
    ("u @ S", "V", u @ S),
    ("S @ R @ S", "K, V", S @ R @ S),
    ("A @ S", "N, V", A @ S),
    ("P @ P", "K, K", P @ P),
    ("P.T", "K, K", P.T),
    # structured matrices
    ("outer(k, v)", "K, V", torch.outer(k, v)),
    ("S + a * outer(k, v) / 2", "K, V", S + a * torch.outer(k, v) / 2),
    ("tanh(outer(k, v))", "K, V", torch.tanh(torch.outer(k, v))),
    ("outer(k, v) * S", "K, V", torch.outer(k, v) * S),
    ("outer(k, v) @ W", "K, V", torch.outer(k, v) @ W),
    ("outer(k, v) @ v", "K", torch.outer(k, v) @ v),
    ("k @ outer(k, v)", "V", k @ torch.outer(k, v)),
    ("outer(k, v).T @ k", "V", torch.outer(v, k) @ k),
    ("outer(k, v) @ outer(v, j) @ S", "K, V", torch.outer(k, v) @ torch.outer(v, j) @ S),
    ("eye(K) @ S", "K, V", S),
    ("S @ eye(V)", "K, V", S),
    ("diag(k) @ S", "K, V", k[:, None] * S),
    ("S @ diag(v)", "K, V", S * v),
    ("diag(k) @ P", "K, K", k[:, None] * P),
    ("P @ diag(k)", "K, K", P * k),
    ("diag(k) @ diag(j) @ S", "K, V", (k * j)[:, None] * S),
    ("diag(u) @ S", "U, V", u[:, None] * S),
    ("householder(k, a) @ S", "K, V", house(k, a) @ S),
    ("householder(k, a).T @ S", "K, V", house(k, a) @ S),
    ("S @ householder(v, a)", "K, V", S @ house(v, a)),
    ("householder(k, a) @ j", "K", house(k, a) @ j),
    ("j @ householder(k, a)", "K", j @ house(k, a)),
    ("a * householder(k, b) @ diag(j) @ S", "K, V", a * house(k, b) @ torch.diag(j) @ S),
    ("(diag(j) @ householder(k, b)).T @ S", "K, V", (torch.diag(j) @ house(k, b)).T @ S),
    ("householder(k, a) @ householder(j, b) @ S", "K, V", house(k, a) @ house(j, b) @ S),
    ("(a * eye(K) + D) @ h", "K", (a * I4 + D) @ h),
    ("h @ (D - diag(k) / 2)", "K", h @ (D - torch.diag(k) / 2)),
    ("(D + outer(k, j)) @ h", "K", (D + torch.outer(k, j)) @ h),
    ("-(diag(k) - outer(k, j)) @ S", "K, V", -(torch.diag(k) - torch.outer(k, j)) @ S),
    ("(2 * diag(k) + outer(k, j) - eye(K)) @ S", "K, V", (2 * torch.diag(k) + torch.outer(k, j) - I4) @ S),
    ("householder(k, a) @ outer(j, v)", "K, V", house(k, a) @ torch.outer(j, v)),
    ("outer(j, v) @ householder(v, a)", "K, V", torch.outer(j, v) @ house(v, a)),
    ("householder(k, a) @ (S + outer(k, v)) - S", "K, V", house(k, a) @ (S + torch.outer(k, v)) - S),
    ("diag(k) @ D @ diag(j) @ h", "K", torch.diag(k) @ D @ torch.diag(j) @ h),
    ("(outer(k, j) @ diag(k)) * P", "K, K", torch.outer(k, j) @ torch.diag(k) * P),
    # reductions
    ("sum(k)", "", k.sum()),
    ("sum(S, K)", "V", S.sum(0)),
    ("sum(S, V)", "K", S.sum(1)),
    ("mean(S, V)", "K", S.mean(1)),
    ("mean(A, N)", "K", A.mean(0)),
    ("max(S, K)", "V", S.amax(0)),
    ("max(k)", "", k.max()),
    ("min(S, V)", "K", S.amin(1)),
    ("max(a, K)", "", torch.maximum(a, full(4))),
    ("softmax(S, K)", "K, V", torch.softmax(S, 0)),
    ("softmax(v)", "V", torch.softmax(v, 0)),
    ("logsumexp(S, V)", "K", torch.logsumexp(S, 1)),
    ("norm(S)", "K", S.norm(dim=1)),
    ("norm(S, K)", "V", S.norm(dim=0)),
    ("l2norm(S)", "K, V", S * torch.rsqrt((S**2).sum(1, keepdim=True) + 1e-6)),
    ("rmsnorm(k)", "K", k * torch.rsqrt((k**2).mean() + 1e-6)),
    ("layernorm(S)", "K, V", F.layer_norm(S, (5,))),
    # parts
    ("A[1]", "K", A[1]),
    ("A[N - 1] + A[-1]", "K", 2 * A[2]),
    ("A[1][2]", "", A[1, 2]),
    ("k[0] + k[-1]", "", k[0] + k[-1]),
    ("S[1]", "V", S[1]),
    ("line[1:N]", "line2", line[1:]),
    ("z[0:M - 2] @ z[2:M]", "", z[:-2] @ z[2:]),
    ("z[-2:] @ z[:2]", "", z[-2:] @ z[:2]),
    ("concat(z[M - 1:M], z[0:M - 1])", "M", torch.roll(z, 1)),
    ("concat(line[1:N], z[0:1])", "N", torch.cat([line[1:], z[:1]])),
    ("concat(z[0:1], z[1:3], z[3:M])", "M", z),
    ("concat(S, X)", "rows, V", torch.cat([S, X])),
    ("sum(z[0:3] * B)", "", (z[:3] * B).sum()),
    ("sum(S[0:2], 2)", "V", S[:2].sum(0)),
    ("z[0:K]", "K", z[:4]),
    ("clip_grad(k, 1)", "K", k),
]
NEW_AXES = {"line2": "const line2 = 2", "rows": ""}


@pytest.mark.parametrize(("expression", "axes", "expected"), CASES, ids=[case[0] for case in CASES])
def test_value(expression: str, axes: str, expected: Tensor) -> None:
    if axes == "rows, V":
        expression, axes, expected = f"sum({expression}, V)[0:K]", "K", expected.sum(1)[:4]
    found = value(expression, axes, NEW_AXES.get(axes, ""))
    torch.testing.assert_close(found, expected.expand(found.shape), rtol=1e-12, atol=1e-12)


def test_rotation_turns_neighbouring_channels() -> None:
    text = "const Q = 4\nconst H = 2\ninput w[Q], X2[Q, V], t[H]"
    found = program("rotation(t) @ X2 - rotation(t).T @ rotation(t) @ X2", "Q, V", text)
    angles = torch.tensor([0.3, 1.1], dtype=torch.float64)
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = {("input", "t"): angles, ("input", "X2"): x}
    root = found.outputs[0].value
    result = evaluate(found.body, [root], given, SIZES, 0)[root]
    turn = torch.block_diag(*(
        torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]], dtype=torch.float64) for t in (0.3, 1.1)
    ))  # fmt: skip
    torch.testing.assert_close(result, turn @ x - x)


@pytest.mark.parametrize(
    "expression",
    [
        "a * householder(k, b) @ S",
        "(eye(K) - b * outer(k, k)) @ diag(j) @ S",
        "S @ (diag(v) + outer(v, v))",
        "householder(k, a) @ householder(j, b) @ S",
    ],
)
def test_no_square_matrix_is_built(expression: str) -> None:
    """Nothing K x K or V x V, and only rank-one products: the operators cost what the free form costs."""
    found = program(expression, "K, V")
    step = [found.body[p] for p in live(found.body, (found.outputs[0].value,))]
    assert not any([axis.name for axis in instr.axes] in (["K", "K"], ["V", "V"]) for instr in step)
    assert not any(len(instr.axes) > 2 for instr in step)


def test_spans_and_names() -> None:
    found = program("y @ S", "V", "let y = l2norm(k) + j")
    (named,) = (instr for instr in found.body if instr.name == "y")
    assert named.op == "add" and named.span is not None
    text = f"recurrence r{DECLARED}let y = l2norm(k) + j"
    assert text[named.span.start : named.span.end] == "l2norm(k) + j"
    root = found.body[found.outputs[0].value]
    assert root.op == "contract"


def test_unused_values_are_dropped() -> None:
    found = program("a", "", "let y = tanh(S @ v)")
    assert not any(instr.op == "tanh" for instr in found.body)
