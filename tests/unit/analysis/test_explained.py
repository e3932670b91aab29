"""The normal form as `recurra explain` gives it: text and plain data."""

from __future__ import annotations

import json

import pytest
from unit.analysis.specs import SPECS, compiled, named

import recurra
from recurra.compiler.analysis.infix import COMPARE, Infix
from recurra.compiler.forms import describe_passes


def test_text() -> None:
    text = str(recurra.load(SPECS["gated_delta_net"]).explain("cpu"))
    assert (
        "  normal form  S along K; decay scalar in (0, 1); rank 1, reads after the decay; 1 sub-step\n"
        "                 S' = alpha * S\n"
        "                 S' = S' + outer(kn, beta * v - beta * (kn @ S'))\n"
        "                 o = K^-0.5 * (qn @ S')\n"
    ) in text
    assert text.isascii()
    assert "  normal form  none for S: `tanh` of `S` on line " in str(recurra.load(SPECS["m2rnn"]).explain("cpu"))


def test_data() -> None:
    (found,) = describe_passes(named("gated_delta_net"))
    write = {
        "key": "kn",
        "values": {"S": "beta * v"},
        "read": "kn",
        "scale": "-beta",
        "sees": "after the decay",
    }
    decay = {
        "kind": "scalar",
        "along": None,
        "constant": False,
        "signed": False,
        "range": "(0, 1)",
        "formula": "alpha",
    }
    assert found == {
        "states": ["S"],
        "outputs": ["o"],
        "handed": [],
        "form": {
            "mix": "K",
            "columns": {"S": "V"},
            "rank": 1,
            "substeps": [{"decay": decay, "writes": [write]}],
            "transition": {"S": ["S' = alpha * S", "S' = S' + outer(kn, beta * v - beta * (kn @ S'))"]},
            "reads": [{"state": "S", "query": "qn", "over": "K", "when": "after the step", "text": "qn @ S'"}],
            "outputs": {"o": "K^-0.5 * (qn @ S')"},
        },
    }


@pytest.mark.parametrize("name", SPECS)
def test_data_are_plain(name: str) -> None:
    assert json.loads(json.dumps(describe_passes(named(name)))) == describe_passes(named(name))


def test_what_passes_hand_on_has_the_authors_names() -> None:
    first, second = describe_passes(named("mlstm"))
    assert first["handed"] == ["m", "m'"]
    assert second["form"]["substeps"][0]["decay"]["formula"] == "exp(lf + m - m')"


def test_long_outputs_are_not_spelled_out() -> None:
    text = str(recurra.load(SPECS["normalised_bonus"]).explain("cpu"))
    assert "o is made of q @ S and what is given" in text


EXPRESSIONS = [
    "x - (y - z)",
    "(x + y) * z",
    "x / (y * z)",
    "-x * y",
    "(x * y) @ z * y",
    "outer(x, w)[0]",
    "x^2 + y^a",
    "(-x)^2",
    "where(x < y, x, z)",
    "concat(x[0:1], y[1:K])",
    "clamp(x, 0, 1)",
    "K^-0.5 * x",
    "max(sum(x, K), a) * y",
    "min(x, y) - max(y, K)",
    "sum(outer(x, w), V)",
    "A @ w + w @ B",
    "l2norm(x)",
    "clip_grad(x, 0.5) + stop_grad(y)",
    "(1 - a * 0.25) * x",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_infix_compiles_to_what_it_was_printed_from(text: str) -> None:
    """Printing is a right inverse of parsing: what comes out parses to the same value."""
    head = "recurrence r\ndims K, V\nstate h\ninput x[K], y[K], z[K], w[V], a, A[K, V], B[V, K]\n"
    if text == "outer(x, w)[0]":
        head = head.replace("dims K, V\n", "dims V\nconst K = 3\n")
    tail = "transition h' = h\noutput o = sum({})\n"

    def value(expression: str) -> tuple[str, object]:
        program = compiled(head + tail.format(expression))
        total = program.body[program.outputs[0].value]
        return Infix(program.body)(total.args[0], COMPARE), program.body

    printed, body = value(text)
    again, same = value(printed)
    assert printed == again and body == same
