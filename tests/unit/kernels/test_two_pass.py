"""The two-pass backward on Triton kernels against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from two_pass_specs import SPECS, ZOO_NAMES, program_of
from unit.kernels.against_reference import arguments, changed, check, run, sizes_of, spec

from recurra.compiler.kernels import compile_kernels
from recurra.compiler.lower.recurrent import Recurrent
from recurra.compiler.lower.two_pass import FLOW_CHUNK, TwoPassKernels
from recurra.compiler.options import KernelOptions

TILED = KernelOptions(tiles=(("V", 8),))
SIZES = {"sub_steps": (20, 36)}
"""Where the usual ones give states of fewer numbers than vectors."""


@pytest.mark.parametrize("options", [None, TILED], ids=["whole", "tiles"])
@pytest.mark.parametrize("name", [*SPECS, *ZOO_NAMES])
def test_gradients(name: str, options: KernelOptions | None) -> None:
    program = program_of(name)
    sizes = sizes_of(program, *SIZES.get(name, (12, 20)))
    assert isinstance(compile_kernels(program, sizes, KernelOptions(), "recurrent").lowered, TwoPassKernels)
    if options is not None and name in ("sub_steps", "columns"):
        pytest.skip("no axis to cut")
    check(program, sizes, arguments(program, sizes, steps=4), options=options)


@pytest.mark.parametrize("steps", [0, 1, FLOW_CHUNK + 1])
@pytest.mark.parametrize("name", ["members", "kda"])
def test_lengths(name: str, steps: int) -> None:
    """Programs for chunks that are not there, and a flow that starts again."""
    program = program_of(name)
    sizes = sizes_of(program, 8, 16)
    check(program, sizes, arguments(program, sizes, steps=steps, heads=1), options=TILED)


@pytest.mark.parametrize("name", ["members", "gated_delta_net"])
def test_groups_directions_and_strides(name: str) -> None:
    program = program_of(name)
    sizes = sizes_of(program, 12, 20)
    given = arguments(program, sizes, steps=3, grouped=True, heads=2)
    check(program, sizes, given, options=TILED, reverse=True)
    strided = {n: x.transpose(1, 2).contiguous().transpose(1, 2) for n, x in given.inputs.items()}
    options = KernelOptions(strided=True)
    check(program, sizes, changed(arguments(program, sizes, steps=3, start=False), **strided), options=options)


@pytest.mark.parametrize("name", ["members", "gated_delta_net"])
def test_packed_sequences(name: str) -> None:
    program = program_of(name)
    sizes = sizes_of(program, 12, 20)
    for reverse in (False, True):
        given = arguments(program, sizes, lengths=(3, 0, 1, 2), heads=2, start=reverse)
        check(program, sizes, given, options=TILED, reverse=reverse)
    kinds = compile_kernels(program, sizes, KernelOptions(packed=True), "recurrent")
    assert isinstance(kinds.lowered, TwoPassKernels)


def test_packed_sequences_of_several_chunks() -> None:
    program = program_of("gated_delta_net")
    sizes = sizes_of(program, 8, 16)
    given = arguments(program, sizes, lengths=(FLOW_CHUNK + 1, 2), heads=1)
    check(program, sizes, given)


def test_runs_have_the_same_bits() -> None:
    program = program_of("gated_delta_net")
    sizes = sizes_of(program, 12, 20)
    given = arguments(program, sizes, steps=3)
    first, second = (run(program, sizes, given, options=TILED) for _ in range(2))
    assert all(torch.equal(q.value, second[key].value) for key, q in first.items())


@pytest.mark.parametrize("name", ["before", "kda"])
def test_log_decays_from_zero_to_minus_infinity(name: str) -> None:
    text = SPECS["before"] if name == "before" else KDA
    program = spec(text)
    sizes = sizes_of(program, 12, 20)
    logs = torch.tensor([0.0, -1e-4, -0.6, -5.0, -20.0, -1000.0, -math.inf])
    given = arguments(program, sizes, steps=len(logs), heads=1)
    g = given.inputs["g"]
    mixed = logs[torch.arange(g.numel()).reshape(g.shape) * 5 % len(logs)]
    unit = {key: torch.nn.functional.normalize(given.inputs[key], dim=-1) for key in ("k", "p") if key in given.inputs}
    check(program, sizes, changed(given, g=mixed, **unit), options=TILED)


KDA = """recurrence channels
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[K], b in [0, 2]
transition S' = householder(k, b) @ diag(exp(g)) @ S + b * outer(k, v)
output o[V] = q @ S'
"""


def test_checkpoints_that_are_asked_for_are_kept() -> None:
    program = program_of("delta_net")
    compiled = compile_kernels(program, {"K": 32, "V": 32}, KernelOptions(chunk=4), "recurrent")
    assert isinstance(compiled.lowered, Recurrent)
    reasons = {v.strategy: v.reason for v in compiled.verdicts}
    assert "every 4 steps, as was asked for" in reasons["recurrent"]
