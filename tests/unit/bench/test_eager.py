"""The generated PyTorch loop against the float64 reference, for every spec of the zoo and unseen ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

import recurra
from recurra.runtime.bench.data import draw_arguments
from recurra.runtime.bench.eager import compiled_loop, eager_loop
from recurra.runtime.bench.shape import shape_of
from recurra.runtime.bench.side_by_side import Contender, gradients
from recurra.runtime.bench.step_source import step_of

ROOT = Path(__file__).parents[3]
FILES = sorted([*(ROOT / "examples" / "zoo").glob("*.rec"), *(ROOT / "tests" / "fixtures" / "unseen").glob("*.rec")])
CPU = torch.device("cpu")


def compared(rec: recurra.Recurrence, sizes: dict[str, int], make) -> None:
    """Outputs and gradients of a loop and of the reference, in float64."""
    torch.manual_seed(0)
    given = dict(zip((dim.name for dim in rec.program.dims if dim.alias is None), (4, 3, 5, 6), strict=False))
    shape = shape_of(rec, {"B": 2, "T": 5, "H": 3, **given, **sizes})
    arguments = draw_arguments(rec.program, shape, torch.float64, CPU)
    groups = (arguments.inputs, arguments.params)
    leaves = tuple(x for group in groups for x in group.values() if x.requires_grad)
    call = make(rec.program, shape)

    def reference() -> tuple[torch.Tensor, ...]:
        steps = None if rec.inputs else shape.steps
        found = rec({**arguments.inputs, **arguments.params}, backend="reference", steps=steps)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    loop, true = Contender("loop", lambda: call(*groups), leaves), Contender("reference", reference, leaves)
    outputs, expected = loop.run(), true.run()
    assert [o.shape for o in outputs] == [o.shape for o in expected]
    torch.testing.assert_close(outputs, expected, rtol=1e-11, atol=1e-12)
    if any(output.requires_grad for output in expected):
        cotangents = [torch.randn_like(output) for output in expected]
        slopes = zip(gradients(loop, cotangents), gradients(true, cotangents), leaves, strict=True)
        for found, slope, leaf in slopes:
            nothing = torch.zeros_like(leaf)
            pair = (nothing if found is None else found, nothing if slope is None else slope)
            torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loop(path):
    compared(recurra.load(path), {}, eager_loop)


@pytest.mark.parametrize(("batch", "heads", "steps"), [(1, 1, 1), (1, 3, 2), (3, 1, 4)])
@pytest.mark.parametrize("name", ["delta_net", "m2rnn", "lstm", "mlstm"])
def test_loop_at_other_shapes(name, batch, heads, steps):
    rec = recurra.load(ROOT / "examples" / "zoo" / f"{name}.rec")
    compared(rec, {"B": batch, "H": heads, "T": steps}, eager_loop)


@pytest.mark.parametrize(
    "transition",
    [
        "clip_grad(tanh(h), 0.25) + sum(x) * W[0]",  # left to the reference
        "concat(h[1:], h[:1]) * max(h) + x",
        "W + x",  # a state that is replaced
        "softmax(h) + W * sum(h * h) + x @ outer(h, x)",
    ],
)
def test_rare_operations(transition):
    text = f"recurrence r\ndims D\nstate h[D]\ninput x[D]\nparam W[D]\ntransition h' = {transition}\noutput o[D] = h'\n"
    compared(recurra.load(text), {}, eager_loop)


def test_chunks_under_torch_compile(monkeypatch):
    """Seven steps, three at a time; without inductor, whose compilation takes long and is not ours to test."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    rec = recurra.load(ROOT / "examples" / "zoo" / "delta_net.rec")
    compared(rec, {"T": 7}, partial(compiled_loop, unrolled=3))


def test_a_matrix_of_inputs_stays_in_the_loop_and_vectors_do_not():
    rec = recurra.load(ROOT / "examples" / "zoo" / "delta_net.rec")
    step = step_of(rec.program, shape_of(rec, {}))
    body = rec.program.body
    assert all(len(body[p].axes) <= 1 or body[p].op == "broadcast" for p in step.before)
    assert "rsqrt" not in step.source and step.source.count(" @ ") == 2


def test_what_only_outputs_read_waits_until_after_the_loop():
    text = (
        "recurrence r\ndims D, E\nstate h[D]\ninput x[D]\nparam C[E, D]\ntransition h' = h + x\noutput o[E] = C @ h'\n"
    )
    rec = recurra.load(text)
    assert " @ " not in step_of(rec.program, shape_of(rec, {})).source
    compared(rec, {}, eager_loop)
