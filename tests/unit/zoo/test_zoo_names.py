"""Names, axes and promises of every zoo file, against a table transcribed from the papers' symbols."""

from __future__ import annotations

from pathlib import Path

import pytest

import recurra
from recurra.compiler.ir.program import Program
from recurra.compiler.ir.types import EVERYTHING, Axes

ZOO = Path(__file__).parents[3] / "examples" / "zoo"

# name: states; inputs; params; outputs
TABLE = {
    "linear_attention": "S[K, V]; q[K], k[K], v[V]; ; o[V]",
    "retnet": "S[K, V]; q[K], k[K], v[V]; log_gamma frozen; o[V]",
    "gla": "S[K, V]; q[K], k[K], v[V], g[K]; ; o[V]",
    "mamba": "h[D, N]; x[D], dt[D], B[N], C[N]; A_log[D, N], dt_bias[D], D_skip[D]; y[D]",
    "mamba2": "S[N, P]; B[N], C[N], x[P], dt; A_log, dt_bias, D; y[P]",
    "mamba_neg": "h[D, N]; x[D], dt[D], B[N], C[N]; A_log[D, N], dt_bias[D], D_skip[D]; y[D]",
    "mamba3_siso": (
        "S[N, P], k[N], v[P], angle[M]; B[N], C[N], x[P], dt, a, trap, theta[M]; dt_bias, B_bias[N], C_bias[N], D; y[P]"
    ),
    "hgrn2": "S[K, V]; q[K], f[K], v[V]; lower[K]; o[V]",
    "mingru": "h[D]; z[D], x[D]; ; o[D]",
    "rg_lru": "h[D]; x[D], r[D], i[D]; L[D]; o[D]",
    "lru": ("hr[N], hi[N]; u[D]; nu[N], theta[N], B_re[N, D], B_im[N, D], C_re[D, N], C_im[D, N], D_skip[D]; y[D]"),
    "s4d": "hr[N], hi[N]; u; dt_log, A_re[N], A_im[N], C_re[N], C_im[N], D_skip; y",
    "gdn2": "S[K, V]; q[K], k[K], v[V], g[K], eb[K], wb[V]; ; o[V]",
    "comba": "S[K, V]; q[K], k[K], p[K], v[V], beta in [0, 1], alpha in (0, 1]; ; o[V]",
    "iplr": "S[K, V]; q[K], k[K], v[V], a[K], b[K]; ; o[V]",
    "oja": "S[K, V]; q[K], k[K], v[V], g[V], beta in [0, 1]; ; o[V]",
    "longhorn": "S[K, V]; q[K], k[K], v[V], b; ; o[V]",
    "momentum_delta": ("S[K, V], M[K, V]; q[K], k[K], v[V], beta in [0, 1], eta in [0, 1], alpha in [0, 1]; ; o[V]"),
    "rwkv4": "num[D], den[D], mx[D]; k[D], v[D]; w[D], u[D]; o[D]",
    "gsa": "Sk[K, M], Sv[M, V]; q[K], k[K], v[V], s[M], g[M]; ; o[V]",
    "hgrn": "h[D]; i[D], f[D]; ; o[D]",
    "rwkv6": "S[K, V]; r[K], k[K], v[V], w[K]; u[K]; o[V]",
    "delta_net": "S[K, V]; q[K], k[K], v[V], beta in [0, 1]; ; o[V]",
    "delta_net_neg": "S[K, V]; q[K], k[K], v[V], beta in [0, 2]; ; o[V]",
    "gated_delta_net": "S[K, V]; q[K], k[K], v[V], a, b; A_log, dt_bias; o[V]",
    "gated_delta_product": ("S[K, V]; q[K], k[N, K] unit, v[N, V], beta[N] in [0, 2], alpha in (0, 1]; ; o[V]"),
    "kda": "S[K, V]; q[K], k[K], v[V], g[K], b; A_log, dt_bias[K]; o[V]",
    "rwkv7": "S[K, V]; r[K], w[K], k[K], v[V], kappa[K], a[K]; ; o[V]",
    "m2rnn": "S[K, V]; q[K], k[K], v[V], x; W[V, V], A_log, dt_bias; o[V]",
    "ndm": "S[K, V]; q[K], k[K], v[V], d in (0, 1); ; o[V]",
    "elman": "h[D]; x[D]; U[D, D], b[D]; o[D]",
    "gru": "h[D]; xr[D], xz[D], xn[D]; Ur[D, D], Uz[D, D], Un[D, D], bn[D]; o[D]",
    "lstm": "h[D], c[D]; xi[D], xf[D], xg[D], xo[D]; Ui[D, D], Uf[D, D], Ug[D, D], Uo[D, D]; y[D]",
    "slstm": ("y[D], c[D], n[D], m[D]; zi[D], zf[D], zz[D], zo[D]; Ri[D, D], Rf[D, D], Rz[D, D], Ro[D, D]; o[D]"),
    "mlstm": "C[K, V], n[K], m; q[K], k[K], v[V], i, f; ; h[V]",
    "alrnn": "z[M]; ; A[M], W[M, M], h[M]; o[N]",
    "esn": "h[D]; u[I]; W[D, D] frozen, Win[D, I] frozen; o[D]",
}


def signature(program: Program) -> str:
    """The interface of a program in the notation of the table."""

    def axes(of: Axes) -> str:
        return f"[{', '.join(axis.name for axis in of)}]" if of else ""

    states = [f"{s.name}{axes(s.axes)}" for s in program.states]
    inputs = [
        f"{i.name}{axes(i.axes)}" + (" unit" if i.unit else "") + (f" in {i.range}" if promised(i) else "")
        for i in program.inputs
    ]
    params = [f"{p.name}{axes(p.axes)}" + (" frozen" if p.frozen else "") for p in program.params]
    outputs = [f"{o.name}{axes(o.axes)}" for o in program.outputs]
    return "; ".join(", ".join(part) for part in (states, inputs, params, outputs))


def promised(item) -> bool:
    """Whether the file itself gives the input a range (a unit vector has one of its own)."""
    return item.range != EVERYTHING and not item.unit


@pytest.mark.parametrize("name", TABLE)
def test_names_axes_and_promises(name):
    program = recurra.load(ZOO / f"{name}.rec").program
    assert program.name == name
    assert signature(program) == TABLE[name]


def test_the_table_is_complete():
    assert {path.stem for path in ZOO.glob("*.rec")} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_the_docstring_names_authors_a_title_and_a_year(name):
    doc = recurra.load(ZOO / f"{name}.rec").program.doc
    headline, _, citation = doc.partition("\n\n")
    assert "\n" not in headline
    assert '"' in citation
    assert any(f", {year}" in citation for year in range(1990, 2027))


@pytest.mark.parametrize("name", TABLE)
def test_the_layer_block_sets_every_input_and_y(name):
    program = recurra.load(ZOO / f"{name}.rec").program
    assert program.layer is not None
    assigned = [ident.id for item in program.layer.body for ident in item.names]
    assert sorted(assigned) == sorted([*(i.name for i in program.inputs), "y"])
