"""Tensors as models make them, lengths and sizes around those of blocks and chunks, single steps, on native kernels."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from unit.cpu.agreement import arguments, check, on_kernels, on_reference
from unit.kernels.against_reference import ROOT, sizes_of, zoo

import recurra
from recurra.compiler.lower.layout import Layout
from recurra.compiler.options import Options
from recurra.runtime import reference
from recurra.runtime.ops import cpu_backend, native
from recurra.runtime.verify.data import Arguments

F32 = torch.float32
REC = recurra.load(ROOT / "examples" / "zoo" / "delta_net.rec")
BATCH, STEPS, HEADS, SIZE = 2, 9, 3, 20


def delta_net(*given: Tensor) -> Tensor:
    return REC(dict(zip(REC.inputs, given, strict=True)), backend="cpu")


# ---------------------------------------------------------------- strides


def projected(kind: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A leaf, and ``q``, ``k``, ``v`` [B, T, H, 20] as a model cuts them from it without a copy."""
    generator = torch.Generator().manual_seed(3)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    match kind:
        case "chunks":
            x = leaf(BATCH, STEPS, HEADS, 3 * SIZE)
            return x, x.chunk(3, -1)
        case "chunks, then heads":
            x = leaf(BATCH, STEPS, 3 * HEADS * SIZE)
            return x, tuple(part.unflatten(-1, (HEADS, SIZE)) for part in x.chunk(3, -1))
        case "heads before time":
            x = leaf(3, BATCH, HEADS, STEPS, SIZE)
            return x, x.transpose(2, 3).unbind()
        case "time first":
            x = leaf(3, STEPS, BATCH, HEADS, SIZE)
            return x, x.transpose(1, 2).unbind()
        case "the same for all":
            x = leaf(3, 1, STEPS, 1, SIZE)
            return x, x.expand(3, BATCH, STEPS, HEADS, SIZE).unbind()
    raise AssertionError(kind)


KINDS = ("chunks", "chunks, then heads", "heads before time", "time first", "the same for all")


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_read_where_they_lie(kind: str) -> None:
    """Without a copy, with the bits of contiguous tensors; gradients arrive at the leaf."""
    x, parts = projected(kind)
    assert all(native._packed(part) is part and not part.is_contiguous() for part in parts)
    beta = torch.rand(BATCH, STEPS, 1, generator=torch.Generator().manual_seed(4)).expand(BATCH, STEPS, HEADS)
    copies = [part.detach().contiguous().requires_grad_() for part in parts]
    found, expected = delta_net(*parts, beta), delta_net(*copies, beta.contiguous())
    assert torch.equal(found, expected)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
    slopes = torch.autograd.grad((expected * weight).sum(), copies)
    through = torch.autograd.grad(parts, x, slopes)[0]
    assert torch.equal(torch.autograd.grad((found * weight).sum(), x)[0], through)


def test_entries_apart_are_copied() -> None:
    x = torch.randn(BATCH, STEPS, HEADS, SIZE, 2)[..., 0]
    assert native._packed(x).is_contiguous()
    rows = torch.randn(BATCH, STEPS, HEADS, SIZE, 1).expand(-1, -1, -1, -1, 3)
    assert native._packed(rows).is_contiguous()


@pytest.mark.parametrize("groups", [(1, 1, 1, 1), (2, 1, 4, 2), (4, 4, 1, 4)])
def test_grouped_heads(groups: tuple[int, ...]) -> None:
    """Heads of the state share those of inputs, whose gradients are sums over the group, bit for bit."""
    generator = torch.Generator().manual_seed(6)
    shapes = zip(groups, ((SIZE,), (SIZE,), (SIZE,), ()), strict=True)
    given = [torch.rand(BATCH, STEPS, g, *axes, generator=generator).requires_grad_() for g, axes in shapes]
    heads = max(groups)
    whole = [x.detach().repeat_interleave(heads // x.shape[2], 2).requires_grad_() for x in given]
    found, expected = delta_net(*given), delta_net(*whole)
    assert torch.equal(found, expected)
    slopes, parts = (torch.autograd.grad(o.square().sum(), xs) for o, xs in ((found, given), (expected, whole)))
    for slope, part, x in zip(slopes, parts, given, strict=True):
        summed = part.unflatten(2, (x.shape[2], heads // x.shape[2])).sum(3)
        assert torch.equal(slope, summed)


# ---------------------------------------------------------------- lengths, batches, sizes


@pytest.mark.parametrize("steps", [0, 1, 63, 64, 65])
@pytest.mark.parametrize("name", ["delta_net", "gru"])
def test_lengths(name: str, steps: int) -> None:
    program = zoo(name)
    sizes = sizes_of(program, SIZE, SIZE)
    check(program, sizes, arguments(program, sizes, batch=1, steps=steps, heads=HEADS), F32)


@pytest.mark.parametrize("batch", [0, 1, 17])
@pytest.mark.parametrize("name", ["delta_net", "gru"])
def test_batches(name: str, batch: int) -> None:
    program = zoo(name)
    sizes = sizes_of(program, SIZE, SIZE)
    check(program, sizes, arguments(program, sizes, batch=batch, heads=1), F32)


@pytest.mark.parametrize(
    ("name", "shape"), [("gla", (60, 100)), ("gla", (100, 1)), ("gla", (1, 60)), ("lstm", (60,)), ("lstm", (100,))]
)
def test_sizes(name: str, shape: tuple[int, ...]) -> None:
    program = zoo(name)
    sizes = sizes_of(program, *shape)
    check(program, sizes, arguments(program, sizes, steps=19, heads=1), F32)


# ---------------------------------------------------------------- directions, gradients that nobody asks for, steps


@pytest.mark.parametrize("name", ["delta_net", "gru"])
def test_reverse_is_forward_on_turned_inputs(name: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, SIZE, SIZE)
    given = arguments(program, sizes, steps=21).to(F32, ())
    turned = {key: x.detach().flip(1).requires_grad_() for key, x in given.inputs.items()}
    backward, forward = (
        cpu_backend.run(program, sizes, inputs, given.params, given.initial, steps=21, reverse=reverse)
        for inputs, reverse in ((given.inputs, True), (turned, False))
    )
    assert torch.equal(backward[0][0], forward[0][0].flip(1)) and torch.equal(backward[1][0], forward[1][0])
    slopes, expected = (
        torch.autograd.grad(o.square().sum() + s.sum(), list(inputs.values()))
        for ((o,), (s,)), inputs in ((backward, given.inputs), (forward, turned))
    )
    for slope, other in zip(slopes, expected, strict=True):
        assert torch.equal(slope, other.flip(1))


@pytest.mark.parametrize("asked", ["inputs", "params", "initial"])
def test_gradients_of_some_arguments_only(asked: str) -> None:
    """Those that are asked for are as they are beside the others, from outputs alone and from final states alone."""
    program = zoo("gru")
    sizes = {"D": SIZE}
    given = arguments(program, sizes)
    every, some = given.to(F32, ()), given.to(F32, ())
    for group in {"inputs", "params", "initial"} - {asked}:
        for x in getattr(some, group).values():
            x.requires_grad_(False)

    def slopes(leaves: Arguments, which: int) -> tuple[Tensor, ...]:
        results = cpu_backend.run(program, sizes, leaves.inputs, leaves.params, leaves.initial, steps=leaves.steps)
        return torch.autograd.grad(results[which][0].square().sum(), list(getattr(leaves, asked).values()))

    for which in (0, 1):
        for found, expected in zip(slopes(some, which), slopes(every, which), strict=True):
            assert torch.equal(found, expected) and expected.abs().max() > 0


def test_a_state_that_gets_no_gradient() -> None:
    """Start states that are constants, final states that nobody reads."""
    program = zoo("delta_net")
    sizes = sizes_of(program, SIZE, SIZE)
    given = arguments(program, sizes, steps=65)
    leaves, wide = given.to(F32, ()), given.to(torch.float64, ())
    slopes = []
    for run, inputs, initial in (
        (cpu_backend.run, leaves.inputs, {key: x.detach() for key, x in leaves.initial.items()}),
        (reference.run, wide.inputs, {key: x.detach() for key, x in wide.initial.items()}),
    ):
        (o,), _ = run(program, sizes, inputs, {}, initial, steps=65)
        slopes.append(torch.autograd.grad(o.square().sum(), list(inputs.values())))
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "tolerance"),
    [("delta_net", SIZE, 0.0), ("mlstm", SIZE, 0.0), ("gru", SIZE, 1e-6), ("lstm", 100, 1e-6), ("m2rnn", SIZE, 1e-6)],
)
def test_single_steps_make_the_whole(name: str, size: int, tolerance: float) -> None:
    """Bit for bit without matrices of weights, which a single step reads, and so sums, in another order."""
    rec = recurra.load(ROOT / "examples" / "zoo" / f"{name}.rec")
    sizes = sizes_of(rec.program, size, size)
    given = arguments(rec.program, sizes, steps=9, heads=HEADS).to(F32, ())
    with torch.no_grad():
        whole, end = rec({**given.inputs, **given.params}, initial=given.initial, return_state=True, backend="cpu")
        state, outputs = dict(given.initial), []
        for step in range(9):
            now = {key: x[:, step] for key, x in given.inputs.items()}
            output, state = rec.step(state, {**now, **given.params}, backend="cpu")
            outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, 1), whole, rtol=tolerance, atol=tolerance)
    for key, value in end.items():
        torch.testing.assert_close(state[key], value, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- chunks


@pytest.mark.parametrize("name", ["delta_net", "gru"])
def test_the_length_of_chunks_does_not_show(name: str) -> None:
    """Bit for bit, except in gradients of matrices of weights, whose sums over steps are formed chunk by chunk."""
    program = zoo(name)
    sizes = sizes_of(program, SIZE, SIZE)
    given = arguments(program, sizes, steps=65, heads=1)
    matrices = {f"d {p.name}" for p in program.params if len(p.axes) == 2}
    one, seven, most = (on_kernels(program, sizes, given, F32, options=Options(checkpoint=n)) for n in (1, 7, 64))
    expected = on_reference(program, sizes, given, F32)
    for key, q in one.items():
        for other in (seven, most):
            if key in matrices:
                assert q.distance(other[key]) < 1e-6 and q.distance(expected[key]) < 1e-4
            else:
                assert torch.equal(q.value, other[key].value), key


# ---------------------------------------------------------------- large results


@pytest.mark.parametrize("dtype", [F32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["gla", "gru"])
def test_results_written_past_the_caches(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large ones are: the same bits arrive in memory."""
    program = zoo(name)
    sizes = sizes_of(program, 32, 64)
    given = arguments(program, sizes, batch=3, steps=7)
    plain = on_kernels(program, sizes, given, dtype)
    decide, decided = native._past_the_caches, []

    def spy(results: Sequence[Tensor], layout: Layout) -> bool:
        decided.append(decide(results, layout))
        return decided[-1]

    monkeypatch.setattr(native, "_past_the_caches", spy)
    monkeypatch.setattr(native, "STREAMED", 0)
    past = on_kernels(program, sizes, given, dtype)
    assert decided[0]
    assert all(torch.equal(q.value, plain[key].value) for key, q in past.items())
