"""The scan strategy on packed sequences, and scans one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from unit.kernels.against_reference import arguments, check, run, spec, true, wrong, zoo
from unit.kernels.test_hard_values import memory_full_of
from unit.kernels.test_scan import BLOCK, OPTIONS, SPECS, small

from recurra.compiler.options import KernelOptions
from recurra.runtime.verify.measure import draw_weights

LENGTHS = (5, 0, 1, 2 * BLOCK + 1, 0)
PASSES = {
    "rwkv4": zoo("rwkv4"),
    "shifted": spec("""recurrence shifted
dims K
state g[K], h[K]
input k[K], x[K], a
transition g' = sigmoid(a) * g + k
transition h' = tanh(g') * h + x
output o[K] = h' * g + h
"""),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", [*SPECS, *PASSES])
def test_lengths(name: str, reverse: bool) -> None:
    """All that is allocated is written before it is read."""
    program = (SPECS | PASSES)[name]
    sizes = small(program)
    given = arguments(program, sizes, lengths=LENGTHS, start=not reverse, grouped=True)
    with memory_full_of(math.nan):
        found = run(program, sizes, given, "scan", options=OPTIONS, reverse=reverse)
    assert not wrong(program, sizes, given, found, true(program, sizes, given, reverse=reverse), reverse=reverse)


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0), (1,), (BLOCK, 2 * BLOCK)], ids=str)
@pytest.mark.parametrize("name", ["many", "rwkv4"])
def test_few_steps(name: str, lengths: Sequence[int]) -> None:
    program = (SPECS | PASSES)[name]
    check(program, small(program), arguments(program, small(program), lengths=lengths), "scan", options=OPTIONS)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["hgrn", "lru_core"])
def test_backward_in_parts(name: str, reverse: bool) -> None:
    """Products over the steps are made of all parts."""
    program, sizes = SPECS[name], small(SPECS[name])
    given = arguments(program, sizes, lengths=(9, 0, 4, 1), heads=1)
    with memory_full_of(math.nan):
        found = run(program, sizes, given, "scan", options=KernelOptions(chunk=2), segment=6, reverse=reverse)
    assert not wrong(program, sizes, given, found, true(program, sizes, given, reverse=reverse), reverse=reverse)


@pytest.mark.parametrize("name", ["many", "pair", "rwkv4"])
def test_each_sequence_has_the_bits_of_itself_alone(name: str) -> None:
    program = (SPECS | PASSES)[name]
    sizes = small(program)
    given = arguments(program, sizes, lengths=LENGTHS)
    weights = draw_weights(program, sizes, torch.Generator().manual_seed(1), (5, given.steps, 2), packed=True)
    outputs = {o.name for o in program.outputs}
    whole = run(program, sizes, given, "scan", options=OPTIONS, weights=weights)
    assert given.cu_seqlens is not None
    for i, (begin, end) in enumerate(pairwise(given.cu_seqlens.tolist())):
        inputs = {n: x[:, begin:end] for n, x in given.inputs.items()}
        alone = type(given)(inputs, given.params, {n: x[i : i + 1] for n, x in given.initial.items()}, end - begin)
        own = {n: w[:, begin:end] if n in outputs else w[i : i + 1] for n, w in weights.items()}
        found = run(program, sizes, alone, "scan", options=OPTIONS, weights=own)
        for key, q in whole.items():
            if key.removeprefix("d ") not in given.params:
                part = q.value[:, begin:end] if q.time is not None else q.value[i : i + 1]
                assert torch.equal(part, found[key].value), (i, key)


@pytest.mark.parametrize("steps", [0, 1, BLOCK, 2 * BLOCK + 1])
@pytest.mark.parametrize("name", PASSES)
def test_scans_one_after_the_other(name: str, steps: int) -> None:
    program, sizes = PASSES[name], small(PASSES[name])
    for start in (False, True):
        given = arguments(program, sizes, batch=2, steps=steps, start=start, grouped=True)
        check(program, sizes, given, "scan", options=OPTIONS, reverse=start)
