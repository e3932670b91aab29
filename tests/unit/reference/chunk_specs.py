"""Recurrences beside the zoo's for whatever chunks must get right, and how chunks are compared with the token loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from recurra.compiler.frontend import elaborate
from recurra.compiler.ir.program import Program
from recurra.dsl import Source, parse
from recurra.runtime import chunked, reference
from recurra.runtime.verify.data import Arguments, draw, fitting_sizes
from recurra.runtime.verify.measure import Quantity, draw_weights, quantities

ZOO = Path(__file__).parents[3] / "examples" / "zoo"

SPECS = {
    "signed": """
dims K, V
state S[K, V]
input q[K], k[K], v[V], a in [-1, 1], b in [0, 2]
transition S' = a * householder(k, b) @ S + outer(k, v)
output o[V] = q @ S'
output r[V] = q @ S
""",
    "signed_channels": """
dims K, V
state S[K, V]
input q[K], k[K], v[V], e[K], a[K] in [-1, 1]
transition S' = diag(a) @ S + outer(k, v - e @ S)
output o[V] = q @ S'
""",
    "scalar_log": """
dims K, V
state S[K, V]
input q[K], k[K], v[V], g, b
transition S' = exp(g) * S + b * outer(k, v - exp(g) * (k @ S))
output o[V] = q @ S'
output r[V] = q @ S
""",
    "channel_log": """
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[K], b
transition S' = householder(k, b) @ diag(exp(g)) @ S + b * outer(k, v)
output o[V] = q @ S'
output r[V] = q @ S
""",
    "sub_steps": """
dims K, V
const N = 3
state S[K, V]
input q[K], k[N, K], e[N, K], v[N, V], p[K], w[V], b[N], g[N, K], u[V]
transition {
  repeat j < N {
    S' = diag(exp(-exp(g[j]))) @ S'
    S' = S' + outer(k[j], v[j] - b[j] * (e[j] @ S')) - outer(p, k[j] @ S')
  }
  S' = S' + outer(p, w)
}
output o[V] = q @ S' + p @ S
output r[K] = S' @ u
output s[K] = S @ u
""",
    "mixed_sub_steps": """
dims K, V
const N = 3
state S[K, V]
input q[K], k[N, K], v[N, V], a in [-1, 1], g, b[N]
transition {
  S' = a * S
  S' = householder(k[0], b[0]) @ S' + outer(k[0], v[0])
  S' = exp(-exp(g)) * S'
  S' = householder(k[1], b[1]) @ S' + outer(k[1], v[1])
  S' = householder(k[2], b[2]) @ S' + outer(k[2], v[2])
}
output o[V] = q @ S'
""",
    "members": """
dims K, V, U
state S[K, V], n[K], W[U, K]
input q[K], k[K], v[V], u[U], x, c[K], g[K]
let a = exp(-exp(g))
let e = 0.3 * c
transition S' = diag(a) @ S + outer(k, v - e @ S)
transition n' = a * n + k * (x - e @ n)
transition W' = W @ diag(a) + outer(u - W @ e, k)
output o[V] = (q @ S') / (1 + abs(q @ n'))
output r[U] = W' @ q + W @ k
output z[K] = S' @ v
output y[K] = u @ W
""",
    "columns": """
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[V]
transition S' = S @ diag(exp(-exp(g))) + outer(k - S @ v, v)
output o[V] = q @ S'
output r[V] = q @ S
""",
    "mirrored": """
dims K, V
state S[K, V]
input q[V], k[K], v[V], g[V]
transition S' = S @ diag(exp(-exp(g))) + outer(k - S @ v, v)
output o[K] = S' @ q
""",
    "no_writes": """
dims K, V
state S[K, V]
input q[K], g[K]
transition S' = diag(exp(-exp(g))) @ S
output o[V] = q @ S'
output r[V] = sum(S', K)
""",
    "vector": """
dims K
state h[K]
input q[K], k[K], e[K], x, a
transition h' = sigmoid(a) * h + k * (x - e @ h)
output o = q @ h'
output s = sum(h, K)
""",
    "two_memories": """
dims K, V, M
state A[K, M], B[M, V]
input q[K], k[K], v[V], s[M], g[M]
let a = exp(-exp(g))
transition A' = A @ diag(a) + outer(k, s)
transition B' = diag(a) @ B + outer(s, v)
output o[V] = softmax(q @ A', M) @ B'
""",
    "rotated": """
dims N, P
state S[N, P], k[N], v[P], angle[N]
input b[N], c[N], x[P], a, share in [0, 1], theta[N]
let alpha = exp(-softplus(a))
transition angle' = angle + theta
transition k' = cos(angle') * b
transition v' = x
transition S' = alpha * S + (1 - share) * alpha * outer(k, v) + share * outer(k', x)
output y[P] = (sin(angle') * c) @ S' + x
""",
    "clipped": """
dims K, V
state S[K, V]
input q[K], k[K], v[V], g
let kc = clip_grad(k, 0.05)
let a = clip_grad(exp(-exp(g)), 0.02)
transition S' = a * S + outer(kc, v - kc @ S)
output o[V] = q @ S' + a * v + sum(kc, K) * v
""",
    "coupled": """
dims D
state x[D], y[D]
input a[D], b[D], c[D], d[D], u[D], w[D]
transition x' = a * x + b * y + u
transition y' = c * x + d * y + w
output o[D] = tanh(x') * y
""",
    "stabilised": """
dims D
state m[D] = -inf, s[D], h[D]
input x[D], f[D], u[D], g
let lf = logsigmoid(f)
transition m' = max(m + lf, x)
transition s' = exp(m + lf - m') * s + exp(x - m') * u
transition h' = sigmoid(g) * h + s'
output o[D] = h' / (1 + abs(s'))
output r[D] = m' - min(m', 3)
""",
    "bounded": """
dims D
state h[D], l[D] = 1
input x[D], y[D]
transition h' = relu(h + x)
transition l' = min(l - y, max(x, y)) + x
output o[D] = h' * l + h
""",
}

ZOO_NAMES = tuple(
    path.stem
    for path in sorted(ZOO.glob("*.rec"))
    if path.stem not in ("alrnn", "elman", "esn", "gru", "lstm", "m2rnn", "momentum_delta", "ndm", "slstm")
)
"""The recurrences of the zoo that have a parallel form: all but those whose states are tied together otherwise."""

NAMES = (*ZOO_NAMES, *SPECS)


@cache
def spec(name: str) -> Program:
    """A recurrence of the zoo or of ``SPECS``, or the one that a text is."""
    if "\n" in name:
        return elaborate(parse(Source("demo.rec", f"recurrence demo{name}")))
    if name in SPECS:
        return elaborate(parse(Source(f"{name}.rec", f"recurrence {name}{SPECS[name]}")))
    return elaborate(parse(Source(f"{name}.rec", (ZOO / f"{name}.rec").read_text())))


def sizes_of(program: Program, *preferred: int) -> dict[str, int]:
    return fitting_sizes(program, cycle(preferred or (3, 5, 4, 6)))


def drawn(
    program: Program,
    *,
    steps: int,
    batch: int = 2,
    heads: int = 2,
    start: bool = True,
    grouped: bool = False,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Arguments:
    """Arguments in float64 that ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    found = draw(
        program, sizes or sizes_of(program), generator,
        batch=batch, steps=steps, heads=heads, start=start, grouped=grouped,
    )  # fmt: skip
    return found.to(torch.float64, ())


Found = dict[str, Quantity]


def both(
    program: Program, given: Arguments, chunk: int, *, reverse: bool = False, dtype: torch.dtype = torch.float64
) -> tuple[Found, Found]:
    """Everything that comes out in chunks, computed from inputs in ``dtype``, and by the token loop in float64."""
    sizes = sizes_of(program)
    batches, heads = reference.extent(given.inputs, given.params, given.initial)
    weights = draw_weights(program, sizes, torch.Generator().manual_seed(1), (batches, given.steps, heads))
    rounded = given.to(dtype, ())
    found = quantities(program, sizes, rounded, weights, partial(chunked.run, chunk=chunk), reverse=reverse)
    wide = rounded.to(torch.float64, ())
    return found, quantities(program, sizes, wide, weights, reference.run, reverse=reverse)


def worst(found: Found, true: Found) -> float:
    """The largest distance of any output, final state or gradient (infinite where one is NaN)."""
    assert found.keys() == true.keys()
    return max(found[name].distance(true[name]) for name in true)


def with_inputs(given: Arguments, **changed: Tensor) -> Arguments:
    """The same arguments with other inputs of some names."""
    return Arguments({**given.inputs, **changed}, given.params, given.initial, given.steps).to(torch.float64, ())
