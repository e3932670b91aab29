"""Packed sequences of different lengths on every kind of kernel: each as by itself, whatever lies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from unit.kernels.against_reference import (
    STRATEGIES,
    WAYS,
    arguments,
    changed,
    check,
    compiled,
    run,
    runner,
    sizes_of,
    spec,
    zoo,
)
from unit.kernels.test_lengths_and_layouts import KINDS, TWO, odd_strides

from recurra.compiler.ir.program import Program
from recurra.compiler.lower.recurrent import Recurrent
from recurra.compiler.options import KernelOptions
from recurra.runtime.ops.fused import Fused
from recurra.runtime.ops.launch import Packed
from recurra.runtime.verify.data import Arguments
from recurra.runtime.verify.measure import Quantity, draw_weights

CHUNK = 3
OPTIONS = KernelOptions(chunk=CHUNK)
LENGTHS = (5, 0, 1, 7, 0)


def program_and_sizes(name: str) -> tuple[Program, dict[str, int]]:
    program = spec(TWO) if name == "two" else zoo(name)
    return program, sizes_of(program, 5, 3)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["two", "gru", "gated_delta_product"])
def test_lengths(name: str, reverse: bool, strategy: str) -> None:
    program, sizes = program_and_sizes(name)
    given = arguments(program, sizes, lengths=LENGTHS, start=not reverse, grouped=True)
    check(program, sizes, given, strategy, options=OPTIONS, reverse=reverse)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0), (1,), (1, 1), (0, 1), (CHUNK, 2 * CHUNK)], ids=str)
@pytest.mark.parametrize("name", ["two", "gru"])
def test_few_steps(name: str, lengths: Sequence[int], strategy: str) -> None:
    program, sizes = program_and_sizes(name)
    check(program, sizes, arguments(program, sizes, lengths=lengths, heads=1), strategy, options=OPTIONS)


@pytest.mark.parametrize("strategy", ["recurrent", "cpu"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["elman", "gru", "lstm"])
def test_sequences_that_share_a_program(name: str, reverse: bool, strategy: str) -> None:
    """More of them than fit into one; they end one after another."""
    program = zoo(name)
    lengths = (2, 0, 4, 1, 1, 0, 3, 1, 0, 0, 2, 0, 1, 0, 1, 5, 0, 1, 2)
    given = arguments(program, {"D": 5}, lengths=lengths, heads=1)
    check(program, {"D": 5}, given, strategy, options=KernelOptions(chunk=2), reverse=reverse)


PARTED = (9, 0, 4, 1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("name", ["gated_delta_net", "lstm"])
def test_backward_in_parts(name: str, chunk: int, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written to holds NaN."""
    for make in ("empty", "empty_like"):
        monkeypatch.setattr(torch, make, _full_of_nan(getattr(torch, make)))
    monkeypatch.setattr(Tensor, "new_empty", _full_of_nan(Tensor.new_empty))
    program, sizes = program_and_sizes(name)
    given = arguments(program, sizes, lengths=PARTED, heads=1)
    check(program, sizes, given, options=KernelOptions(chunk=chunk), segment=3 * chunk, reverse=reverse)


def _full_of_nan(make: object) -> object:
    def filled(*args: object, **options: object) -> Tensor:
        value = make(*args, **options)  # type: ignore[operator]
        return value.fill_(torch.nan) if value.is_floating_point() else value

    return filled


@pytest.mark.parametrize("name", ["gated_delta_net", "lstm"])
def test_parts_fit_into_the_memory_of_a_segment(name: str) -> None:
    """Or take twice a chunk of each sequence, where that is more."""
    program, sizes = program_and_sizes(name)
    lowered = compiled(program, sizes, "recurrent").lowered
    assert isinstance(lowered, Recurrent)
    for sequences, steps, most in ((4, 200, 100), (4, 1000, 130), (1, 64, 64), (30, 40, 8), (9, 5000, 40)):
        kernels = Fused(program, lowered, None, segment=most)
        whole = Packed(sequences, steps, 1, lowered.chunk, torch.zeros(sequences + 1))
        extents = list(kernels._segments(whole))
        assert [e.part for e in extents if isinstance(e, Packed)] == [*reversed(range(len(extents)))]
        rows = extents[0].lead("segment")[1]
        assert rows <= max(most, min(steps, 2 * sequences * lowered.chunk))
        assert rows * len(extents) >= steps


# ---------------------------------------------------------------- sequences do not know of each other


def _parts(given: Arguments, found: dict[str, Quantity], i: int) -> dict[str, Tensor]:
    """What belongs to one sequence of everything that came out, params' gradients aside."""
    assert given.cu_seqlens is not None
    begin, end = given.cu_seqlens[i : i + 2].tolist()
    return {
        name: q.value[:, begin:end] if q.time is not None else q.value[i : i + 1]
        for name, q in found.items()
        if name.removeprefix("d ") not in given.params
    }


ALONE = [(name, way) for name in ("two", "gru") for way in WAYS if (name, way) != ("gru", "recurrent")]
"""A GRU's sequences are rows of a matrix product on GPU kernels, and in the interpreter bits depend on the row."""


@pytest.mark.parametrize(("name", "strategy"), ALONE)
@pytest.mark.parametrize("reverse", [False, True])
def test_each_sequence_has_the_bits_of_itself_alone(name: str, reverse: bool, strategy: str) -> None:
    program, sizes = program_and_sizes(name)
    given = arguments(program, sizes, lengths=LENGTHS)
    generator = torch.Generator().manual_seed(1)
    weights = draw_weights(program, sizes, generator, (len(LENGTHS), given.steps, 2), packed=True)
    outputs = {o.name for o in program.outputs}
    whole = run(program, sizes, given, strategy, options=OPTIONS, reverse=reverse, weights=weights)
    assert given.cu_seqlens is not None
    for i, (begin, end) in enumerate(pairwise(given.cu_seqlens.tolist())):
        inputs = {key: x.detach()[:, begin:end] for key, x in given.inputs.items()}
        starts = {key: x.detach()[i : i + 1] for key, x in given.initial.items()}
        own = {key: w[:, begin:end] if key in outputs else w[i : i + 1] for key, w in weights.items()}
        alone = Arguments(inputs, given.params, starts, end - begin)
        expected = run(program, sizes, alone, strategy, options=OPTIONS, reverse=reverse, weights=own)
        for key, value in _parts(given, whole, i).items():
            assert torch.equal(value, expected[key].value), (key, i)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", ["two", "lstm"])
def test_one_sequence_has_the_bits_of_a_batch_of_one(name: str, strategy: str) -> None:
    program, sizes = program_and_sizes(name)
    given = arguments(program, sizes, lengths=(7,))
    batch = Arguments(given.inputs, given.params, given.initial, 7)
    found, expected = (run(program, sizes, x, strategy, options=OPTIONS) for x in (given, batch))
    for key, q in found.items():
        assert torch.equal(q.value, expected[key].value), key


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", ["two", "gru"])
def test_a_changed_sequence_changes_no_other(name: str, strategy: str) -> None:
    program, sizes = program_and_sizes(name)
    given = arguments(program, sizes, lengths=LENGTHS)

    def otherwise(x: Tensor) -> Tensor:
        return torch.cat([x[:, :6], x[:, 6:] * -3 + 1], 1) if x.shape[0] == 1 else x

    other = changed(given, **dict.fromkeys(given.inputs, otherwise))
    found, moved = (run(program, sizes, x, strategy, options=OPTIONS) for x in (given, other))
    for i in range(len(LENGTHS)):
        same = [torch.equal(x, _parts(given, moved, i)[key]) for key, x in _parts(given, found, i).items()]
        assert not all(same) if i == 3 else all(same), i


# ---------------------------------------------------------------- how arguments lie in memory


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_strides(kind: str, strategy: str) -> None:
    program, sizes = program_and_sizes("two")
    given = arguments(program, sizes, lengths=(2, 0, 3))
    strided = changed(given, **{name: lambda x: odd_strides(x, kind) for name in ("q", "v", "g", "W", "A", "S", "m")})
    check(program, sizes, strided, strategy, options=OPTIONS)


@pytest.mark.parametrize("strategy", WAYS)
def test_where_sequences_begin_comes_in_either_width_and_any_stride(strategy: str) -> None:
    program, sizes = program_and_sizes("gru")
    given = arguments(program, sizes, lengths=LENGTHS)
    assert given.cu_seqlens is not None
    results = []
    for cu_seqlens in (given.cu_seqlens, given.cu_seqlens.int(), given.cu_seqlens.repeat_interleave(2)[::2]):
        groups = (given.inputs, given.params, given.initial)
        with torch.no_grad():
            results.append(runner(strategy)(program, sizes, *groups, steps=given.steps, cu_seqlens=cu_seqlens))
    for outputs, final in results[1:]:
        assert torch.equal(outputs[0], results[0][0][0]) and torch.equal(final[0], results[0][1][0])


WRONG = ((3, 5, 4, 9, 30), (-4, 2, 99, 1, 13), (13, 0, 13, 0, 13), (0, 0, 0, 0, 0), (7, 6, 5, 4, 3))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["two", "gru"])
@pytest.mark.parametrize("values", WRONG, ids=str)
def test_wrong_values_lead_to_nothing_outside(values: Sequence[int], name: str, strategy: str) -> None:
    """Of inputs and start states that lie in a sea of NaN, nothing around them shows in what is written."""
    program, sizes = program_and_sizes(name)
    given = arguments(program, sizes, lengths=(5, 0, 1, 7), heads=1)

    def in_a_sea(x: Tensor) -> Tensor:
        where = 1 if x.shape[0] == 1 else 0
        size = x.shape[where]
        sea = torch.full((*x.shape[:where], size + 80, *x.shape[where + 1 :]), torch.nan)
        sea.narrow(where, 40, size).copy_(x)
        return sea.narrow(where, 40, size)

    inside = changed(given, **dict.fromkeys((*given.inputs, *given.initial), in_a_sea))
    leaves = [x.detach().requires_grad_() for x in inside.inputs.values()]
    inputs = dict(zip(inside.inputs, leaves, strict=True))
    outputs, final = runner(strategy, OPTIONS)(
        program, sizes, inputs, inside.params, inside.initial, steps=13, cu_seqlens=torch.tensor(values)
    )
    loss = sum(o.nan_to_num().sum() for o in outputs) + sum(f.sum() for f in final)
    torch.autograd.grad(loss, leaves)
    assert all(f.isfinite().all() for f in final)
