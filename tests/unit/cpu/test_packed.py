"""Packed sequences on native kernels: dtypes, tiles, threads; see also unit/kernels/test_packed.py."""

from __future__ import annotations

import pytest
import torch
from unit.cpu.agreement import arguments, check, on_kernels
from unit.kernels.against_reference import sizes_of, zoo

from recurra.compiler.options import Options
from recurra.runtime.ops.native import _longest_first
from recurra.runtime.verify.measure import Quantity

LENGTHS = (3, 0, 20, 1, 1, 0, 2, 5, 1, 0, 0, 9, 1, 2, 1, 4, 0, 17, 1, 3)
"""More sequences than one program walks at once, none as long as the next, none at all and single steps."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["delta_net", "gru"])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 20, 12)
    given = arguments(program, sizes, lengths=LENGTHS, grouped=True)
    check(program, sizes, given, dtype, reverse=dtype == torch.float64)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["gla", "m2rnn", "mlstm", "lstm", "esn", "mamba"])
def test_pieces(name: str, reverse: bool) -> None:
    """Several tiles where an axis allows it, several chunks of which some sequences have only a part."""
    program = zoo(name)
    sizes = sizes_of(program, 8, 6)
    tiles = {"gla": (("V", 2),), "mamba": (("D", 4),)}.get(name, ())
    given = arguments(program, sizes, lengths=LENGTHS, start=not reverse)
    check(program, sizes, given, torch.float32, options=Options(checkpoint=4, tiles=tiles), reverse=reverse)


@pytest.mark.parametrize("name", ["delta_net", "gru"])
def test_threads_do_not_show(name: str) -> None:
    """Bit for bit, except in gradients of params, which are the same in every run on as many threads."""
    program = zoo(name)
    sizes = sizes_of(program, 20, 12)
    given = arguments(program, sizes, lengths=LENGTHS)
    before = torch.get_num_threads()
    runs: dict[int, list[dict[str, Quantity]]] = {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs[threads] = [on_kernels(program, sizes, given, torch.float32) for _ in range(3)]
    finally:
        torch.set_num_threads(before)
    params = {f"d {p.name}" for p in program.params}
    for found in runs.values():
        for again in found[1:]:
            assert all(torch.equal(q.value, again[key].value) for key, q in found[0].items())
    one, two = runs[1][0], runs[2][0]
    assert all(torch.equal(q.value, two[key].value) for key, q in one.items() if key not in params)


def test_the_longest_come_first_and_nothing_lies_outside() -> None:
    assert _longest_first(torch.tensor([0, 3, 3, 8, 11]), 11).tolist() == [[2, 3, 5], [0, 0, 3], [3, 8, 3], [1, 3, 0]]
    assert _longest_first(torch.tensor([0], dtype=torch.int32), 0).shape == (0, 3)
    for wrong in ([5, -3, 40, 2], [-9, 99, -9, 99], [11, 0, 11, 0]):
        for _, begin, length in _longest_first(torch.tensor(wrong), 11).tolist():
            assert begin >= 0 and length >= 0 and begin + length <= 11
