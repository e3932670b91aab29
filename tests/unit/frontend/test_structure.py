"""The class of every transition, the same for all ways to write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recurra.compiler.analysis.structure import TransitionFacts, strata
from recurra.compiler.pipeline import compile_source
from recurra.dsl import Source

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
UNSEEN = Path(__file__).parents[2] / "fixtures" / "unseen"

ZOO_CLASSES = {
    "linear_attention": "S: scalar decay",
    "retnet": "S: scalar decay",
    "gla": "S: diagonal along K",
    "rwkv6": "S: diagonal along K",
    "mamba": "h: diagonal along D, N",
    "hgrn": "h: diagonal along D",
    "mamba2": "S: scalar decay",
    "mamba_neg": "h: diagonal along D, N",
    "mamba3_siso": "S: scalar decay; k: replaced; v: replaced; angle: scalar decay",
    "hgrn2": "S: diagonal along K",
    "mingru": "h: diagonal along D",
    "rg_lru": "h: diagonal along D",
    "lru": "hr: diagonal along N; hi: diagonal along N",
    "s4d": "hr: diagonal along N; hi: diagonal along N",
    "gdn2": "S: diagonal plus rank 1 along K",
    "comba": "S: diagonal plus rank 1 along K",
    "iplr": "S: diagonal plus rank 1 along K",
    "oja": "S: diagonal plus rank 1 along V",
    "longhorn": "S: Householder along K",
    "momentum_delta": "S: Householder along K; M: scalar decay",
    "rwkv4": "num: diagonal along D; den: diagonal along D; mx: non-linear with independent entries along D",
    "gsa": "Sk: diagonal along M; Sv: diagonal along M",
    "delta_net": "S: Householder along K",
    "delta_net_neg": "S: Householder along K",
    "gated_delta_net": "S: Householder along K",
    "gated_delta_product": "S: product of 2 Householders along K",
    "kda": "S: diagonal plus rank 1 along K",
    "rwkv7": "S: diagonal plus rank 1 along K",
    "m2rnn": "S: non-linear with independent entries along K",
    "ndm": "S: non-linear with independent entries along V",
    "elman": "h: non-linear, coupled",
    "gru": "h: non-linear, coupled",
    "lstm": "h: non-linear, coupled; c: non-linear, coupled",
    "slstm": "y: non-linear, coupled; c: non-linear, coupled; n: non-linear, coupled; m: non-linear, coupled",
    "mlstm": "C: scalar decay; n: scalar decay; m: non-linear with independent entries",
    "alrnn": "z: non-linear, coupled",
    "esn": "h: non-linear, coupled",
}


def facts(text: str, name: str = "r.rec") -> tuple[TransitionFacts, ...]:
    return compile_source(Source(name, text)).facts


@pytest.mark.parametrize("name", ZOO_CLASSES)
def test_zoo(name: str) -> None:
    found = facts((ZOO / f"{name}.rec").read_text(encoding="utf-8"), name)
    assert "; ".join(f"{f.state}: {f.title}" for f in found) == ZOO_CLASSES[name]


def test_the_zoo_is_covered() -> None:
    assert {path.stem for path in ZOO.glob("*.rec")} == set(ZOO_CLASSES)


HEAD = (
    "recurrence r\ndims K, V\nconst N = 2\nstate S[K, V]\ninput k[K], p[K], e[K], v[V], w[V], a, b, A[K, V]\n"
    "input kn[N, K], bn[N]\nparam W[V, V], D[K, K]\n"
)

CLASSES = [
    ("S' = a * S + outer(k, v)", "scalar decay"),
    ("S' = (1 - a) * S / 2 + v", "scalar decay"),
    ("S' = S", "scalar decay"),
    ("S' = outer(k, v)", "replaced"),
    ("S' = diag(p) @ S", "diagonal along K"),
    ("S' = p * S", "diagonal along K"),
    ("S' = S @ diag(w)", "diagonal along V"),
    ("S' = w * S + p * S", "diagonal along K, V"),
    ("S' = A * S", "diagonal along K, V"),
    ("S' = where(A > 0, S, 0)", "diagonal along K, V"),
    ("S' = clip_grad(p * S, 1) + S", "diagonal along K"),
    ("S' = householder(k, b) @ S", "Householder along K"),
    ("S' = S - b * outer(k, k @ S)", "Householder along K"),
    ("S' = a * householder(k, b) @ S + b * outer(k, v)", "Householder along K"),
    ("S' = a * S + b * outer(k, v - a * (k @ S))", "Householder along K"),
    ("S' = S @ householder(v, b)", "Householder along V"),
    ("S' = S - outer(S @ v, v) * b", "Householder along V"),
    ("S' = (eye(K) - b * outer(k, k)) @ S", "Householder along K"),
    ("S' = householder(k, b) @ householder(p, a) @ S", "product of 2 Householders along K"),
    ("{ S' = a * S\n repeat j < N { S' = householder(kn[j], bn[j]) @ S' } }", "product of 2 Householders along K"),
    (
        "{ S' = a * S\n repeat j < N { S' = S' - bn[j] * outer(kn[j], kn[j] @ S') } }",
        "product of 2 Householders along K",
    ),
    ("S' = S - a * outer(k, k @ S) - b * outer(p, p @ S)", "diagonal plus rank 2 along K"),
    ("S' = householder(k, b) @ diag(p) @ S", "diagonal plus rank 1 along K"),
    ("S' = diag(p) @ householder(k, b) @ S", "diagonal plus rank 1 along K"),
    ("S' = a * S + outer(k, v - p @ S)", "diagonal plus rank 1 along K"),
    ("S' = S + outer(e, p @ S) + outer(e, k @ S)", "diagonal plus rank 1 along K"),
    ("S' = (diag(p) + outer(e, k)) @ S", "diagonal plus rank 1 along K"),
    ("S' = S - outer(k, w * (k @ S))", "diagonal plus rank 1 along K"),
    ("S' = outer(k, k @ S)", "diagonal plus rank 1 along K"),
    ("S' = S @ W", "dense affine"),
    ("S' = D @ S + outer(k, v)", "dense affine"),
    ("S' = (a * eye(K) + D) @ S", "dense affine"),
    ("S' = householder(k, b) @ S @ householder(v, a)", "dense affine"),
    ("S' = S + outer(k, v) * (k @ S @ v)", "dense affine"),
    ("S' = concat(S[1:K], S[0:1])", "dense affine"),
    ("S' = tanh(S)", "non-linear with independent entries along K, V"),
    ("S' = tanh(S @ W + outer(k, v))", "non-linear with independent entries along K"),
    ("S' = relu(D @ S)", "non-linear with independent entries along V"),
    ("S' = softmax(S, K)", "non-linear with independent entries along V"),
    ("S' = S * sum(S, V)", "non-linear with independent entries along K"),
    ("S' = tanh(D @ S @ W)", "non-linear, coupled"),
    ("S' = sigmoid(k @ S @ v) * S", "non-linear, coupled"),
    ("S' = S @ S.T @ S", "non-linear, coupled"),
]


@pytest.mark.parametrize(("transition", "expected"), CLASSES, ids=[case[0] for case in CLASSES])
def test_classes(transition: str, expected: str) -> None:
    (found,) = facts(f"{HEAD}transition {transition}\noutput o[V] = k @ S'\n")
    assert found.title == expected
    assert found.affine == (not expected.startswith("non-linear"))


@pytest.mark.parametrize("name", ["two_sided_delta", "rank_two_substeps"])
def test_both_forms_have_the_same_class(name: str) -> None:
    operators, free = (facts((UNSEEN / f"{name}{form}.rec").read_text(encoding="utf-8")) for form in ("", "_free"))
    assert [f.title for f in operators] == [f.title for f in free]


def test_reasons_point_at_the_text() -> None:
    text = HEAD + "transition S' = a * S + tanh(S @ W)\noutput o[V] = k @ S'\n"
    (found,) = facts(text)
    assert found.reason == "`tanh` of `S`"
    assert text[found.span.start : found.span.end] == "tanh(S @ W)"
    text = HEAD + "transition S' = S * (S @ W)\noutput o[V] = k @ S'\n"
    (found,) = facts(text)
    assert found.reason == "product of `S` with itself"


def test_strata() -> None:
    text = (
        "recurrence r\nstate m, n, s, t, x\ninput i\ntransition s' = exp(m - m') * s + t\ntransition m' = max(m, i)\n"
        "transition n' = exp(m - m') * n + s'\ntransition t' = s * i + t\ntransition x' = i * x\noutput o = s' / n'\n"
    )
    found = {f.state: f for f in facts(text)}
    assert {name: f.stratum for name, f in found.items()} == {"m": 0, "s": 1, "t": 1, "n": 2, "x": 3}
    assert found["n"].reads == ("m", "n", "s", "t")
    assert found["s"].title == "scalar decay" and found["s"].affine
    assert strata({"a": ("b",), "b": ("a",), "c": ("c",)}) == (("a", "b"), ("c",))
