"""Recurrences that go backward in two passes: hard ones of every kind, and the zoo's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from recurra.compiler.frontend import elaborate
from recurra.compiler.ir.program import Program
from recurra.dsl import Source, parse

ZOO = Path(__file__).parents[1] / "examples" / "zoo"

MEMBERS = """recurrence with_normaliser
dims K, V
state S[K, V], n[K]
input q[K], k[K], v[V], g[K], b in [0, 1]
let a = sigmoid(g)
let kn = l2norm(k)
transition S' = diag(a) @ S + outer(kn, v - b * (kn @ S))
transition n' = a * n + kn * (1 - b * (kn @ n))
output o[V] = (q @ S') / (1 + square(q @ n'))
"""
SUB_STEPS = """recurrence sub_steps
dims K, V
const N = 3
state S[K, V]
input q[K], r[K], p[V], k[N, K] unit, v[N, V], b[N] in [0, 2], g, w[K], x[V], y[K]
param t[K]
let yn = l2norm(y)
transition {
  S' = exp(-softplus(g)) * S
  repeat j < N { S' = householder(k[j], b[j]) @ S' + b[j] * outer(k[j], v[j]) }
  S' = diag(exp(-softplus(w + t))) @ S'
  S' = S' + outer(y, x) - 0.5 * outer(l2norm(r), yn @ S')
}
output o[V] = q @ S'
output before[V] = r @ S
output along[K] = tanh(S' @ p)
"""
SIGNED = """recurrence signed
dims K, V
state S[K, V]
input q[K], k[K], v[V], g
transition S' = -exp(-softplus(g)) * S + outer(k, v)
output o[V] = q @ S' * sigmoid(g)
"""
READ_BEFORE_DECAY = """recurrence read_before_decay
dims K, V
state S[K, V]
input q[K], k[K] unit, p[K] unit, v[V], beta in [0, 1], g in (-inf, 0]
let alpha = exp(g)
transition S' = alpha * S + outer(k, beta * (v - p @ S))
output o[V] = q @ S'
"""
COLUMNS = """recurrence columns
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[V], b in [0, 1]
let a = sigmoid(g)
let vn = l2norm(v)
transition S' = S * a + b * outer(k - (S * a) @ vn, vn)
output o[V] = q @ S'
"""
SPECS = {
    "members": MEMBERS, "sub_steps": SUB_STEPS, "signed": SIGNED, "before": READ_BEFORE_DECAY, "columns": COLUMNS,
}  # fmt: skip
ZOO_NAMES = "delta_net gated_delta_net gla kda linear_attention retnet rwkv6 rwkv7".split()


@cache
def program_of(name: str) -> Program:
    text = SPECS[name] if name in SPECS else (ZOO / f"{name}.rec").read_text()
    return elaborate(parse(Source(f"{name}.rec", text)))
