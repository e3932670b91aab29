"""What the normal form of every known recurrence is, as it is printed, however the recurrence is written."""

from __future__ import annotations

import re

import pytest
from unit.analysis.specs import SPECS, compiled, named, shown, step

from recurra.compiler.analysis.affine import affine_form
from recurra.compiler.analysis.proof import prove

FORMS = {
    "alrnn": "none for z: entries of `z` are moved",
    "comba": """\
S along K; decay scalar in (0, 1]; rank 1, reads before the decay; 1 sub-step
  S' = alpha * S + outer(kn, beta * v - beta * (pn @ S))
  o = K^-0.5 * (qn @ S')""",
    "delta_net": """\
S along K; no decay; rank 1, reads the state; 1 sub-step
  S' = S + outer(kn, beta * v - beta * (kn @ S))
  o = K^-0.5 * (qn @ S')""",
    "delta_net_neg": """\
S along K; no decay; rank 1, reads the state; 1 sub-step
  S' = S + outer(kn, beta * v - beta * (kn @ S))
  o = K^-0.5 * (qn @ S')""",
    "elman": "none for h: `h` is multiplied by a matrix that is no outer product",
    "esn": "none for h: `tanh` of `h`",
    "gated_delta_net": """\
S along K; decay scalar in (0, 1); rank 1, reads after the decay; 1 sub-step
  S' = alpha * S
  S' = S' + outer(kn, beta * v - beta * (kn @ S'))
  o = K^-0.5 * (qn @ S')""",
    "gated_delta_product": """\
S along K; decay scalar in (0, 1]; rank 1, reads after the decay; 2 sub-steps
  S' = alpha * S
  S' = S' + outer(k[0], beta[0] * v[0] - beta[0] * (k[0] @ S'))
  S' = S' + outer(k[1], beta[1] * v[1] - beta[1] * (k[1] @ S'))
  o = K^-0.5 * (q @ S')""",
    "gdn2": """\
S along K; decay per K in (0, 1); rank 1, reads after the decay; 1 sub-step
  S' = decay * S
  S' = S' + outer(kn, v * write - kn * erase @ S')
  o = K^-0.5 * (qn @ S')""",
    "gla": """\
S along K; decay per K in (0, 1); no erase; 1 sub-step
  S' = alpha * S + outer(k, v)
  o = K^-0.5 * (q @ S')""",
    "gru": "none for h: `sigmoid` of `h`",
    "gsa": """\
pass 1: Sk along M; decay per M in (0, 1); no erase; 1 sub-step
  Sk' = alpha * Sk + outer(k, s)
  hands on K^-0.5 * q @ Sk'
pass 2: Sv along M; decay per M in (0, 1); no erase; 1 sub-step
  Sv' = alpha * Sv + outer(s, v)
  o = read @ Sv'""",
    "hgrn": "none for h: an output reads `h` as a whole",
    "hgrn2": """\
S along K; decay per K signed in (-inf, inf); no erase; 1 sub-step
  S' = a * S + outer(1 - a, v)
  o = q @ S'""",
    "iplr": """\
S along K; no decay; rank 1, reads the state; 1 sub-step
  S' = S + outer(b, a @ S) + outer(k, v)
  o = K^-0.5 * (q @ S')""",
    "kda": """\
S along K; decay per K in (0, 1); rank 1, reads after the decay; 1 sub-step
  S' = a * S
  S' = S' + outer(kn, beta * v - beta * (kn @ S'))
  o = K^-0.5 * (qn @ S')""",
    "linear_attention": """\
S along K; no decay; no erase; 1 sub-step
  S' = S + outer(k, v)
  o = K^-0.5 * (q @ S')""",
    "longhorn": """\
S along K; no decay; rank 1, reads the state; 1 sub-step
  S' = S + outer(k, beta * v - beta * (k @ S))
  o = K^-0.5 * (q @ S')""",
    "lru": "none for hr, hi: `hr` reads `hi`, which shares its stratum",
    "lstm": "none for h, c: `h` reads `c`, which shares its stratum",
    "m2rnn": "none for S: `tanh` of `S`",
    "mamba": "none for h: every entry of `h` has a decay of its own",
    "mamba2": """\
S along N; decay scalar in (0, 1); no erase; 1 sub-step
  S' = alpha * S + outer(B, d * x)
  y = C @ S' + D * x""",
    "mamba3_siso": """\
pass 1: none for v: an output reads `v` as a whole
  hands on v
pass 2: none for angle: an output reads `angle` as a whole
  hands on angle', k'
pass 3: none for k: an output reads `k` as a whole
  hands on k
pass 4: S along N; decay scalar in (0, 1); no erase; 1 sub-step
  S' = alpha * S + outer(k', d * share * x) + outer(k, alpha * d * (1 - share) * v)
  y is made of what is read of S and what is given""",
    "mamba_neg": "none for h: every entry of `h` has a decay of its own",
    "mingru": "none for h: an output reads `h` as a whole",
    "mlstm": """\
pass 1: none for m: `m` is a scalar: there is nothing for a low rank to mix
  hands on m, m'
pass 2: C, n along K; decay scalar in (0, inf); no erase; 1 sub-step
  C' = exp(lf + m - m') * C + outer(k, exp(i - m') * v)
  n' = exp(lf + m - m') * n + k * exp(i - m')
  h = K^-0.5 * (q @ C') / max(abs(q @ n' * K^-0.5), exp(-m'))""",
    "momentum_delta": "none for S, M: `S` reads `M`, which shares its stratum",
    "ndm": "none for S: `tanh` of `S`",
    "oja": """\
S along V; decay per V in (0, 1); rank 1, reads after the decay; 1 sub-step
  S' = decay * S
  S' = S' + outer(beta * k - beta * (S' @ vn), vn)
  o = q @ S'""",
    "retnet": """\
S along K; decay constant in (0, inf); no erase; 1 sub-step
  S' = exp(log_gamma) * S + outer(k, v)
  o = K^-0.5 * (q @ S')""",
    "rg_lru": "none for h: an output reads `h` as a whole",
    "rwkv4": """\
pass 1: none for mx: `max` of `mx`
  hands on mx, mx'
pass 2: none for num: an output reads `num` as a whole
  hands on num
pass 3: none for den: `/` of `den`""",
    "rwkv6": """\
S along K; decay per K in (0, 1); no erase; 1 sub-step
  S' = decay * S + outer(k, v)
  o = r @ S + k @ (r * u) * v""",
    "rwkv7": """\
S along K; decay per K in (0.545239, 1); rank 1, reads before the decay; 1 sub-step
  S' = d * S + outer(sigmoid(a) * kh, -(kh @ S)) + outer(k, v)
  o = r @ S'""",
    "s4d": "none for hr, hi: `hr` reads `hi`, which shares its stratum",
    "slstm": "none for y, c, n, m: `y` reads `m`, which shares its stratum",
    "column_decay_erase": "none for S: the decay of `S` varies along V, and `S` is mixed along K",
    "coupled_memories": "none for A, B: `A` reads `B`, which shares its stratum",
    "decay_between": """\
S along K; decay scalar in (0, 1]; rank 1, reads after the decay; 2 sub-steps
  S' = alpha * S
  S' = S' + outer(k[0], alpha * beta[0] * v[0] - beta[0] * (k[0] @ S'))
  S' = S' + outer(k[1], beta[1] * v[1] - beta[1] * (k[1] @ S'))
  o = K^-0.5 * (q @ S')""",
    "multiplicative_lstm": "none for h, c: `h` reads `c`, which shares its stratum",
    "normalised_bonus": """\
S along K; decay scalar in (0, 1]; rank 1, reads after the decay; 1 sub-step
  S' = alpha * S
  S' = S' + outer(kn, beta * v - beta * (kn @ S'))
  o is made of q @ S and what is given""",
    "offset_householders": """\
S along K; decay scalar in (0, 1); rank 1, reads after the decay; 3 sub-steps
  S' = alpha * S
  S' = S' + outer(l2norm(k + offset[0]), beta[0] * v[0] - beta[0] * (l2norm(k + offset[0]) @ S'))
  S' = S' + outer(l2norm(k + offset[1]), beta[1] * v[1] - beta[1] * (l2norm(k + offset[1]) @ S'))
  S' = S' + outer(l2norm(k + offset[2]), beta[2] * v[2] - beta[2] * (l2norm(k + offset[2]) @ S'))
  o = K^-0.5 * (q @ S')
  before = l2norm(k) @ S""",
    "rank_two_substeps": """\
S along K; decay per K in (0, 1); rank 2, reads before the decay; 3 sub-steps
  S' = sigmoid(a[0]) * S + outer(f[0], r[0] @ S) + outer(e[0], -(p[0] @ S)) + outer(k[0], v[0])
  S' = sigmoid(a[1]) * S' + outer(f[1], r[1] @ S') + outer(e[1], -(p[1] @ S')) + outer(k[1], v[1])
  S' = sigmoid(a[2]) * S' + outer(e[2], -(p[2] @ S')) + outer(f[2], r[2] @ S') + outer(k[2], v[2])
  o = q @ S'""",
    "rank_two_substeps_free": """\
S along K; decay per K in (0, 1); rank 2, reads before the decay; 3 sub-steps
  S' = sigmoid(a[0]) * S + outer(f[0], r[0] @ S) + outer(e[0], -(p[0] @ S)) + outer(k[0], v[0])
  S' = sigmoid(a[1]) * S' + outer(f[1], r[1] @ S') + outer(e[1], -(p[1] @ S')) + outer(k[1], v[1])
  S' = sigmoid(a[2]) * S' + outer(e[2], -(p[2] @ S')) + outer(f[2], r[2] @ S') + outer(k[2], v[2])
  o = q @ S'""",
    "right_erase": """\
S along V; decay scalar in (0, 1); rank 1, reads after the decay; 1 sub-step
  S' = alpha * S
  S' = S' + outer(beta * k - beta * (S' @ vn), vn)
  o = K^-0.5 * (q @ S')""",
    "running_softmax": """\
pass 1: none for top: `top` is a scalar: there is nothing for a low rank to mix
  hands on top, top'
pass 2: none for sum_w: `sum_w` is a scalar: there is nothing for a low rank to mix
  hands on sum_w'
pass 3: none for sum_v: an output reads `sum_v` as a whole""",
    "signed_normaliser": """\
S, n along K; decay scalar signed in (-1, 1); no erase; 1 sub-step
  S' = a * S + outer(kp, v)
  n' = a * n + kp
  o = q @ S' / (1 + abs(q @ n'))""",
    "slot_memory": "none for h, slots: `h` reads `slots`, which shares its stratum",
    "spiking": "none for u, tired, last: `u` reads `tired`, which shares its stratum",
    "split_flow": "none for z, line: `z` reads `line`, which shares its stratum",
    "two_key_erase": """\
S along K; decay per K in (0, 1); rank 2, reads before the decay; 1 sub-step
  S' = a * S + outer(w2, -(r2 @ S)) + outer(w1, r1 @ S) + outer(k, v)
  o = q @ S'""",
    "two_sided_delta": "none for S: `S` is mixed along V, and `S` is mixed along K",
    "two_sided_delta_free": "none for S: `S` is mixed along V, and `S` is mixed along K",
    "two_writes": """\
S along K; decay per K in (0, 1); no erase; 1 sub-step
  S' = a * S + outer(k, v) + outer(p * (1 - a), -tanh(w))
  o = q @ S'""",
}


@pytest.mark.parametrize("name", FORMS)
def test_known_recurrences(name: str) -> None:
    assert re.sub(r" on line \d+", "", shown(named(name))) == FORMS[name]


def test_all_are_covered() -> None:
    assert FORMS.keys() == SPECS.keys()


SAME = [
    ("S' = a * householder(k, b) @ S + b * outer(k, v)", "S' = a * S + b * outer(k, v - a * (k @ S))"),
    ("S' = a * householder(k, b) @ S + b * outer(k, v)", "{ S' = a * S\n S' = S' + outer(b * k, v - k @ S') }"),
    ("S' = householder(k, b) @ diag(sigmoid(x)) @ S", "S' = sigmoid(x) * S - outer(k, b * ((sigmoid(x) * k) @ S))"),
    ("S' = (diag(sigmoid(x)) + outer(p, e)) @ S + outer(k, v)", "S' = outer(k, v) + outer(p, e @ S) + sigmoid(x) * S"),
    ("S' = a * S @ householder(v, b) + outer(k, v)", "{ S' = S * a\n S' = S' - outer(b * (S' @ v) - k, v) }"),
    ("S' = (1 - b) * S + outer(k, v)", "S' = S + outer(k, v) - b * S"),
    ("S' = S / (1 + c^2) + outer(k, v)", "S' = (1 / (1 + c^2)) * S + outer(k, v)"),
    ("S' = a * S - outer(k, mean(S, K))", "S' = a * S - outer(k, 1 / K * sum(S, K))"),
    ("S' = a * (S + outer(k, v))", "S' = a * S + outer(k, v) * a"),
    ("S' = a * S + outer(k, v) + outer(p, v - k @ S + w)", "S' = outer(p, w + v - k @ S) + outer(k, v) + a * S"),
    (
        "{ S' = a * S\n repeat j < N { S' = householder(kn[j], bn[j]) @ S' + bn[j] * outer(kn[j], vn[j]) } }",
        "{ S' = a * S\n S' = S' + outer(kn[0], bn[0] * (vn[0] - kn[0] @ S'))\n"
        "S' = S' + bn[1] * outer(kn[1], vn[1] - kn[1] @ S') }",
    ),
    (
        "{ S' = householder(k, b) @ S\n S' = a * S'\n S' = householder(p, b) @ S' + outer(k, v) }",
        "{ S' = S - b * outer(k, k @ S)\n S' = householder(p, b) @ (a * S')\n S' = S' + outer(k, v) }",
    ),
    (
        "{ S' = householder(k, b) @ S + outer(k, v)\n S' = sigmoid(x) * S'\n S' = householder(p, b) @ S' }",
        "{ S' = S - b * outer(k, k @ S)\n S' = S' + outer(k, v)\n S' = householder(p, b) @ diag(sigmoid(x)) @ S' }",
    ),
    ("{ S' = a * S + outer(k, v)\n S' = S' + outer(p, w - e @ S') }",
     "S' = a * S + outer(k, v) + outer(p, w - a * (e @ S) - (e @ k) * v)"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SAME)
def test_one_form_for_all_ways_to_write(left: str, right: str) -> None:
    assert shown(step(f"transition {left}")) == shown(step(f"transition {right}"))


OUTPUTS = [
    ("q @ S' / sum(q @ S')", "o = q @ S' / sum(q @ S', V)"),
    ("q @ (S' - S)", "o = q @ S' - q @ S"),
    ("q @ (S' + outer(k, v))", "o = q @ S' + k @ q * v"),
    ("q @ (sigmoid(c) * S) + v", "o = sigmoid(c) * q @ S + v"),
    ("(q @ U) @ S'", "o = q @ U @ S'"),
    ("(q @ S') @ W", "o = q @ S' @ W"),
    ("sum(S', K)", "o = sum(S', K)"),
    ("tanh(q @ S') * (k @ S)", "o = tanh(q @ S') * (k @ S)"),
    ("clip_grad(q @ S', 1)", "o = clip_grad(q @ S', 1)"),
    ("v", "o = v"),
]


@pytest.mark.parametrize(("text", "expected"), OUTPUTS)
def test_outputs(text: str, expected: str) -> None:
    found = step("transition S' = a * S + outer(k, v)", f"output o[V] = {text}")
    prove(found, affine_form(found))
    assert shown(found).splitlines()[-1].strip() == expected


def test_columns_are_mixed_where_queries_contract_them() -> None:
    text = shown(step("transition S' = a * S + outer(k, v)", "output o[K] = S' @ v"))
    assert text.startswith("S along V;") and text.endswith("o = S' @ v")


@pytest.mark.parametrize(
    ("decay", "title"),
    [
        ("1", "no decay"),
        ("0.5", "decay constant in [0.5, 0.5]"),
        ("(-0.5)", "decay constant signed in [-0.5, -0.5]"),
        ("exp(l)", "decay constant in (0, inf)"),
        ("a", "decay scalar in (0, 1]"),
        ("tanh(c)", "decay scalar signed in (-1, 1)"),
        ("sigmoid(x)", "decay per K in (0, 1)"),
        ("a * tanh(x)", "decay per K signed in (-1, 1)"),
        ("exp(l) * exp(-x * x)", "decay per K in (0, inf)"),
    ],
)
def test_decays(decay: str, title: str) -> None:
    found = step(f"transition S' = {decay} * S + outer(k, v)")
    prove(found, affine_form(found))
    assert shown(found).splitlines()[0] == f"S along K; {title}; no erase; 1 sub-step"


@pytest.mark.parametrize(
    ("erase", "title"),
    [
        ("a * (S - outer(k, k @ S))", "rank 1, reads after the decay; 1 sub-step"),
        ("a * S - outer(k, k @ S)", "rank 1, reads before the decay; 1 sub-step"),
        ("S - outer(k, k @ S)", "rank 1, reads the state; 1 sub-step"),
        (
            "a * S - outer(k, k @ S) - outer(p, a * (e @ S))",
            "rank 2, reads before the decay and after the decay; 1 sub-step",
        ),
        ("a * householder(k, b) @ householder(p, c) @ S", "rank 1, reads after the decay; 2 sub-steps"),
    ],
)  # fmt: skip
def test_erases(erase: str, title: str) -> None:
    found = step(f"transition S' = {erase} + outer(k, v)")
    prove(found, affine_form(found))
    assert shown(found).splitlines()[0].endswith(title)


def test_names_stand_for_what_they_name() -> None:
    text = (
        "recurrence r\ndims K, V\nstate S[K, V]\ninput q[K], k[K], v[V], a, b\nparam l\n"
        "gate f in (0, 1] = exp(-exp(l)) * sigmoid(a)\nlet kn = l2norm(k)\nlet strength = 2 * sigmoid(b)\n"
        "let wide = strength * v\ntransition S' = f * S + outer(kn, wide)\noutput o[V] = q @ S'\n"
    )
    assert shown(compiled(text)).splitlines()[1:] == ["  S' = f * S + outer(kn, wide)", "  o = q @ S'"]
    form = affine_form(compiled(text))
    (link,) = form.links
    assert link.decay is not None
    assert form.body[link.decay.value].name == "f"
    assert form.body[link.decay.log].op == "add", "the logarithm is that of the factors"
    assert [form.body[v].name for pair in link.pairs for v in (pair.key, *pair.values) if v is not None] == [
        "kn",
        "wide",
    ]
