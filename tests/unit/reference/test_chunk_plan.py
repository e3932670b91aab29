"""Which recurrences have a chunk form, what is said of the others, and how a call comes to chunks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from unit.reference.chunk_specs import NAMES, spec

import recurra
from recurra.compiler.analysis.affine import AffineForm
from recurra.runtime import chunked
from recurra.runtime.chunked.elementwise import Elementwise
from recurra.runtime.errors import BackendError


@pytest.mark.parametrize("name", NAMES)
def test_these_have_one(name: str) -> None:
    assert chunked.refuses(spec(name)) is None


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("mlstm", [Elementwise, AffineForm]),
        ("mamba", [Elementwise]),
        ("gated_delta_product", [AffineForm]),
        ("two_memories", [AffineForm, AffineForm]),
        ("stabilised", [Elementwise] * 3),
        ("members", [AffineForm]),
        ("rotated", [Elementwise, Elementwise, Elementwise, AffineForm]),  # its states stand in another order
    ],
)
def test_passes(name: str, kinds: list[type]) -> None:
    assert [type(part) for part in chunked.plan(spec(name)).passes] == kinds


DEMO = """
dims K, V
state S[K, V]
input q[K], k[K], v[V], g
{}
output o[V] = q @ S'
"""


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("transition S' = tanh(S) + outer(k, v)", "it has no chunk form: `tanh` of `S` (demo.rec:5:17)"),
        (
            "transition S' = S + outer(k, v * (k @ S))",
            "it has no chunk form: what is read of `S` is scaled along V, and `S` is mixed along K (demo.rec:5:17), "
            "nor is it element-wise: entries of `S` mix along K (demo.rec:5:34)",
        ),
        (
            "transition S' = exp(-exp(g)) * stop_grad(S) + outer(k, v)",
            "it has no chunk form: `stop_grad` of `S` changes its gradient (demo.rec:5:32)",
        ),
    ],
)
def test_the_others_hear_why_and_where(step: str, reason: str) -> None:
    program = spec(DEMO.format(step))
    found = chunked.refuses(program)
    assert found is not None and found.startswith(reason)
    with pytest.raises(BackendError, match="no chunk form"):
        chunked.run(program, {"K": 2, "V": 2}, {}, {}, {}, steps=0)


def test_a_gradient_that_passes_clip_in_parts_is_refused() -> None:
    program = spec("""
dims D
state m[D] = -inf, s[D]
input x[D], u[D]
let c = clip_grad(x, 0.1)
transition m' = max(m, c)
transition s' = exp(m - m') * s + exp(c - m') * u
output o[D] = s'
""")
    found = chunked.refuses(program)
    assert found == "it has no chunk form: several passes read what `clip_grad` clips (demo.rec:5:9)"


def test_no_state() -> None:
    assert chunked.refuses(replace(spec("kda"), states=())) == "there is no state to carry"


# ---------------------------------------------------------------- calls

TEXT = "recurrence demo" + DEMO.format("transition S' = exp(-exp(g)) * S + outer(k, v)")


def arguments() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (2, 9, 3, 4), "k": (2, 9, 1, 4), "v": (2, 9, 3, 5), "g": (2, 9, 3)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_the_reference_takes_chunks_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rec, given = recurra.load(TEXT), arguments()
    asked = []
    run = chunked.run
    monkeypatch.setattr(chunked, "run", lambda *args, **options: asked.append(1) or run(*args, **options))
    loop = rec(given, backend="reference", return_state=True)
    assert not asked
    found = rec(given, backend="reference", strategy="chunk", return_state=True)
    assert asked
    torch.testing.assert_close(found, loop)
    torch.testing.assert_close(rec(given, strategy="chunk"), loop[0])


def test_a_call_that_cannot_have_chunks_says_why() -> None:
    rec = recurra.load(TEXT.replace("exp(-exp(g)) * S", "tanh(S)"))
    with pytest.raises(BackendError, match=r"demo: backend 'reference' cannot run this: .* `tanh` of `S` \(.*:5:17\)"):
        rec(arguments(), backend="reference", strategy="chunk")


def test_one_step_of_decoding() -> None:
    rec = recurra.load(TEXT)
    given = {name: x[:, 0] for name, x in arguments().items()}
    one, two = (rec.step(None, given, backend="reference", strategy=way) for way in ("chunk", "auto"))
    torch.testing.assert_close(one, two)
