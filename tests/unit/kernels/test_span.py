"""Decays per channel that are proved to be weak take one product of matrices instead of one per level."""

from __future__ import annotations

import pytest
from unit.kernels.against_reference import arguments, changed, check, spec, zoo

from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.options import KernelOptions

SPEC = """\
recurrence bounded
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[K], b in [0, 2]
transition S' = householder(l2norm(k), b) @ diag(exp(-{bound} * sigmoid(g))) @ S + outer(k, v)
output o[V] = q @ S'
"""


def bounded(bound: float) -> Program:
    return spec(SPEC.format(bound=bound))


def text(program: Program, operand: str = "tl.float32") -> str:
    return compile_kernels(program, {"K": 32, "V": 32}, KernelOptions(operand=operand), "chunk").generated.text


def test_one_product_where_the_range_allows_it() -> None:
    assert "for level in range(" not in text(zoo("rwkv7"))
    assert "_block_start(" not in text(zoo("rwkv7")), "one block is the whole chunk"
    assert "for level in range(0, 6):" in text(zoo("kda")), "nothing is promised of its decay"


def test_blocks_are_as_long_as_the_range_allows() -> None:
    found = text(bounded(3))  # 4.3 powers of two per step: 16 steps stay below 96
    assert "_block_start(upto, 16)" in found
    assert "for level in range(0, 2):" in found, "blocks of 32 and of 16 steps beside each other"


def test_float16_has_less_room() -> None:
    found = text(zoo("rwkv7"), "tl.float16")
    assert "for level in range(0, 3):" in found and "_block_start(upto, 8)" in found


@pytest.mark.parametrize("bound", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
def test_strongest_decays_neither_overflow_nor_round(bound: float, logit: float) -> None:
    program, sizes = bounded(bound), {"K": 3, "V": 5}
    given = changed(arguments(program, sizes, steps=37), g=lambda g: g * 0.1 + logit)
    check(program, sizes, given, "chunk", options=KernelOptions(chunk=16))
