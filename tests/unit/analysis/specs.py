"""Specs by text and by name, for the tests of normal forms."""

from __future__ import annotations

from pathlib import Path

from recurra.compiler.forms import describe_passes, pass_lines
from recurra.compiler.ir.program import Program
from recurra.compiler.pipeline import compile_source
from recurra.dsl import Source

ROOT = Path(__file__).parents[3]
SPECS = {
    path.stem: path
    for folder in ("examples/zoo", "tests/fixtures/unseen")
    for path in sorted((ROOT / folder).glob("*.rec"))
}

HEAD = """recurrence r
dims K, V
const N = 2
state S[K, V]
input q[K], k[K], p[K], e[K], x[K], v[V], w[V], y[V]
input kn[N, K], vn[N, V], bn[N], A[K, V]
input a in (0, 1], b in [0, 2], c, d
param W[V, V], U[K, K], l
"""


def compiled(text: str, name: str = "r.rec") -> Program:
    return compile_source(Source(name, text)).program


def named(name: str) -> Program:
    return compiled(SPECS[name].read_text(encoding="utf-8"), name)


def step(text: str, output: str = "output o[V] = q @ S'") -> Program:
    """A recurrence of one matrix state ``S``, many inputs and this transition."""
    return compiled(f"{HEAD}{text}\n{output}\n")


def shown(program: Program) -> str:
    """What is printed of a recurrence's normal forms."""
    return "\n".join(pass_lines(describe_passes(program)))
