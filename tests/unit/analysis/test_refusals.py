"""Why a recurrence has no normal form: every reason with its line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unit.analysis.specs import compiled, shown, step

from recurra.compiler.analysis.affine import NotAffine, affine_form
from recurra.compiler.forms import describe_passes

TRANSITIONS = [
    ("tanh(S) + outer(k, v)", "`tanh` of `S`"),
    ("max(S, 0)", "`max` of `S`"),
    ("where(a > 0.5, S, 0) + outer(k, v)", "`where` of `S`"),
    ("S / (1 + norm(k @ S))", "`/` of `S`"),
    ("S * S", "square of `S`"),
    ("(q @ S @ v) * S", "square of `S`"),
    ("U @ S", "`S` is multiplied by a matrix that is no outer product"),
    ("S @ W + outer(k, v)", "`S` is multiplied by a matrix that is no outer product"),
    ("exp(l) * S - outer(k, (k @ S) @ W)", "`S` is multiplied by a matrix that is no outer product"),
    ("A * S + outer(k, v)", "every entry of `S` has a decay of its own"),
    ("a * S / A", "every entry of `S` has a decay of its own"),
    ("S + A", "what is written to `S` is a matrix that is no outer product"),
    ("a * S + outer(k, v) * A", "what is written to `S` is a matrix that is no outer product"),
    ("a * S + outer(k, v) / A", "what is written to `S` is a matrix that is no outer product"),
    (
        "S @ diag(sigmoid(y)) + outer(k, v - k @ S)",
        "the decay of `S` varies along V, and `S` is mixed along K",
    ),
    (
        "diag(sigmoid(x)) @ S @ diag(sigmoid(y))",
        "the decay of `S` varies along V, and the decay of `S` varies along K",
    ),
    (
        "householder(k, b) @ S @ householder(v, b)",
        "`S` is mixed along V, and `S` is mixed along K",
    ),
    (
        "a * S + outer(k, (k @ S) * y)",
        "what is read of `S` is scaled along V, and `S` is mixed along K",
    ),
    ("clip_grad(S, 1) + outer(k, v)", "`clip_grad` of `S` changes its gradient"),
    ("stop_grad(S) + outer(k, v)", "`stop_grad` of `S` changes its gradient"),
    ("concat(S[0:1], S[1:K])", "entries of `S` are moved"),
]


@pytest.mark.parametrize(("transition", "reason"), TRANSITIONS)
def test_transitions(transition: str, reason: str) -> None:
    assert shown(step(f"transition S' = {transition}")) == f"none for S: {reason} on line 9"


OUTPUTS = [
    ("o[K, V] = S'", "an output reads `S` as a whole"),
    ("o[V] = q @ tanh(S')", "`tanh` of `S`"),
    ("o[V] = max(S', K)", "`max` of `S`"),
    ("o[V] = q @ (A * S')", "an output reads `S` with a matrix"),
    ("o[V] = q @ (S' @ W)", "an output reads `S` with a matrix"),
    ("o[V] = q @ clip_grad(S', 1)", "`clip_grad` of `S` changes its gradient"),
    ("o[V] = softmax(S' @ v, K) @ S'", "`/` of `S`"),
]


@pytest.mark.parametrize(("output", "reason"), OUTPUTS)
def test_outputs(output: str, reason: str) -> None:
    text = shown(step("transition S' = a * S + outer(k, v)", f"output {output}"))
    assert text == f"none for S: {reason} on line 10"


def test_the_line_is_that_of_the_culprit() -> None:
    text = (
        "recurrence r\ndims K, V\nstate S[K, V]\ninput q[K], k[K], v[V], a\n"
        "let seen = tanh(k @ S)\n\ntransition S' = S + outer(k, v - seen)\noutput o[V] = q @ S'\n"
    )
    assert shown(compiled(text)) == "none for S: `tanh` of `S` on line 5"
    assert describe_passes(compiled(text))[0]["reason"] == {"text": "`tanh` of `S`", "line": 5}


def test_a_named_decay_that_can_be_zero() -> None:
    text = (
        "recurrence r\ndims K, V\nstate S[K, V]\ninput q[K], k[K], v[V], b in [0, 1]\ngate keep = 1 - b\n"
        "transition S' = keep * S + b * outer(k, v)\noutput o[V] = q @ S'\n"
    )
    assert shown(compiled(text)).startswith("S along K; decay scalar in [0, 1]")
    assert shown(compiled(text.replace("b in [0, 1]", "b in [0, 1)"))).startswith("S along K; decay scalar in (0, 1]")


SHAPES = [
    ("dims K", "S[K, K]", "S.T + outer(k, k)", "both axes of `S` are K"),
    ("dims K", "S[K, K]", "S + outer(k, k)", "both axes of `S` are K"),
    ("dims K", "S", "S + sum(k)", "`S` is a scalar: there is nothing for a low rank to mix"),
    ("dims K\nconst N = 3", "S[N, K, K]", "2 * S", "`S` is of 3 axes: there is nothing for a low rank to mix"),
]


@pytest.mark.parametrize(("dims", "state", "transition", "reason"), SHAPES)
def test_shapes(dims: str, state: str, transition: str, reason: str) -> None:
    text = f"recurrence r\n{dims}\nstate {state}\ninput k[K]\ntransition S' = {transition}\noutput o[K] = k\n"
    assert shown(compiled(text)) == f"none for S: {reason} on line {3 + dims.count(chr(10))}"


MEMBERS = [
    ("S' = a * S + outer(k, v)", "n' = a * n + k", None),
    ("S' = a * S + outer(k, v)", "n' = c * n + k", "`S` and `n` do not share a decay"),
    ("S' = a * S + outer(k, v - k @ S)", "n' = a * n + k", "`S` and `n` are not erased alike"),
    (
        "S' = householder(k, c) @ householder(p, c) @ S",
        "n' = householder(k, c) @ n",
        "`S` and `n` do not have the same sub-steps",
    ),
    ("S' = a * S + outer(k, v)", "n' = a * n + S @ v", "`n` reads `S`, which shares its stratum"),
]


@pytest.mark.parametrize(("matrix", "vector", "reason"), MEMBERS)
def test_states_that_are_one_memory(matrix: str, vector: str, reason: str | None) -> None:
    text = (
        "recurrence r\ndims K, V\nstate S[K, V], n[K]\ninput q[K], k[K], p[K], v[V], a in (0, 1], c in (0, 1]\n"
        f"transition {matrix}\ntransition {vector}\noutput o[V] = q @ S' / max(abs(q @ n'), 1)\n"
    )
    if reason is None:
        assert [member.state for member in affine_form(compiled(text)).members] == ["S", "n"]
        return
    with pytest.raises(NotAffine) as caught:
        affine_form(compiled(text))
    assert caught.value.reason.text == reason
    assert caught.value.reason.span is not None


def test_no_state() -> None:
    with pytest.raises(NotAffine, match="there is no state"):
        affine_form(replace(step("transition S' = S"), states=()))


def test_more_reads_than_are_kept() -> None:
    many = " - ".join(["a * S", *(f"outer(k * {i + 2}, (p * {i + 2}) @ S)" for i in range(9))])
    assert "rank 1" in shown(step(f"transition S' = {many}")), "multiples of one key are one"
    functions = "exp sin cos tanh silu relu gelu sign abs".split()
    different = " - ".join(["a * S", *(f"outer({f}(k), {f}(p) @ S)" for f in functions)])
    assert "more than 8 reads of the state per step" in shown(step(f"transition S' = {different}"))
