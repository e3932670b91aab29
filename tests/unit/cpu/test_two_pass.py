"""The two-pass backward on native kernels against the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from affine_specs import AffineSpec, specs
from hypothesis import HealthCheck, given, settings
from torch import Tensor
from two_pass_specs import SPECS, ZOO_NAMES, program_of
from unit.cpu.agreement import arguments, check, on_kernels, on_reference
from unit.kernels.against_reference import changed, spec

from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.lower.native import Native
from recurra.compiler.lower.two_pass import LONG_FLOW_CHUNK, TwoPassKernels
from recurra.compiler.options import KernelOptions, Options
from recurra.runtime.ops import cpu_backend
from recurra.runtime.verify.data import Arguments, fitting_sizes
from recurra.runtime.verify.metric import TOLERANCES, distance

NAMES = (*SPECS, *ZOO_NAMES)
LENGTHS = (0, 1, 2, 63, 64, 65, 257)
LOG_DECAYS = torch.tensor([0.0, -1e-4, -0.6, -5.0, -20.0, -1000.0, -math.inf])


def problem(
    name: str, steps: int = LONG_FLOW_CHUNK + 6, *, seed: int = 0, **how: object
) -> tuple[Program, dict[str, int], Arguments]:
    """A recurrence with sizes that are no multiples of a vector, and arguments."""
    program = program_of(name)
    sizes = fitting_sizes(program, (20, 36))
    return program, sizes, arguments(program, sizes, steps=steps, seed=seed, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_taken_and_keeps_vectors(name: str) -> None:
    program, sizes, _ = problem(name, 1)
    lowered = compile_kernels(program, sizes, KernelOptions(), backend="cpu").lowered
    assert isinstance(lowered, TwoPassKernels)
    kept = [t for t in lowered.forward.tensors if t.name in lowered.kept]
    assert len(kept) == len(lowered.kept) and all(t.place == "step" and len(t.axes) <= 1 for t in kept)


@pytest.mark.parametrize("name", NAMES)
def test_lengths(name: str) -> None:
    for steps in LENGTHS:
        found = check(*problem(name, steps), torch.float32)
        assert all(q.value.isfinite().all() for q in found.values())  # or nothing would have been compared


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["sub_steps", "members", "gated_delta_net", "rwkv7"])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    check(*problem(name), dtype)


@pytest.mark.parametrize("name", ["sub_steps", "members", "delta_net", "kda"])
def test_groups_directions_strides_and_tiles(name: str) -> None:
    program, sizes, given = problem(name, grouped=True, heads=4)
    check(program, sizes, given, torch.float32, reverse=True)
    program, sizes, given = problem(name, start=False)
    strided = {n: x.transpose(1, 2).contiguous().transpose(1, 2) for n, x in given.inputs.items()}
    check(program, sizes, changed(given, **strided), torch.float32)
    if name != "sub_steps":  # which has no axis to cut
        check(program, sizes, given, torch.float32, options=Options(tiles=(("V", 4),)))


@pytest.mark.parametrize("name", ["members", "gated_delta_net", "kda"])
def test_runs_have_the_same_bits(name: str) -> None:
    first, second = (on_kernels(*problem(name), torch.float32) for _ in range(2))
    assert all(torch.equal(q.value, second[key].value) for key, q in first.items())


@pytest.mark.parametrize("name", ["members", "delta_net", "kda"])
def test_packed_sequences(name: str) -> None:
    program, sizes, given = problem(
        name, lengths=(5, 0, 1, LONG_FLOW_CHUNK + 6, 0, LONG_FLOW_CHUNK), grouped=True, heads=4
    )
    check(program, sizes, given, torch.float32)
    check(program, sizes, given, torch.float32, reverse=True, options=Options(tiles=(("V", 4),)))
    assert isinstance(
        compile_kernels(program, sizes, KernelOptions(packed=True), backend="cpu").lowered, TwoPassKernels
    )


# ---------------------------------------------------------------- hard values

CHANNELS = """recurrence channels
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[K], b in [0, 2]
transition S' = householder(k, b) @ diag(exp(g)) @ S + b * outer(k, v)
output o[V] = q @ S'
"""
SCALAR = CHANNELS.replace("channels", "scalar").replace("g[K]", "g").replace("@ diag(exp(g)) @ S", "@ (exp(g) * S)")


@pytest.mark.parametrize("text", [CHANNELS, SCALAR], ids=["channels", "scalar"])
@pytest.mark.parametrize("decay", [*LOG_DECAYS.tolist(), "mixed"])
def test_log_decays(text: str, decay: float | str) -> None:
    program = spec(text)
    sizes = fitting_sizes(program, (16, 20))
    given = _unit_keys(arguments(program, sizes, steps=LONG_FLOW_CHUNK + 7))
    g = given.inputs["g"]
    order = torch.arange(g.numel()).reshape(g.shape) * 5 % len(LOG_DECAYS)
    logs = LOG_DECAYS[order] if isinstance(decay, str) else torch.full_like(g, decay)
    check(program, sizes, changed(given, g=logs), torch.float32)


def _unit_keys(given: Arguments) -> Arguments:
    return changed(given, k=lambda k: torch.nn.functional.normalize(k, dim=-1))


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("keys", ["repeated", "zero", "unit"])
def test_keys_and_betas(beta: float, keys: str) -> None:
    program = spec(SCALAR)
    sizes = fitting_sizes(program, (16, 20))
    given = _unit_keys(arguments(program, sizes, steps=9))
    key = {"repeated": lambda k: k[:, :1].expand_as(k).contiguous(), "zero": lambda k: 0 * k, "unit": lambda k: k}[keys]
    hard = changed(given, b=lambda b: torch.full_like(b, beta), g=lambda g: 0 * g, k=key)
    check(program, sizes, hard, torch.float32)


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net", "kda", "rwkv7"])
def test_zero_keys_that_the_spec_normalises(name: str) -> None:
    program, sizes, given = problem(name, 5)
    zero = {key: (lambda x: torch.cat([x[:, :1], 0 * x[:, 1:]], 1)) for key in ("k", "q") if key in given.inputs}
    check(program, sizes, changed(given, **zero), torch.float32)


@pytest.mark.parametrize("text", [CHANNELS, SCALAR], ids=["channels", "scalar"])
def test_long_sequences_do_not_cancel(text: str) -> None:
    """4096 steps of weak decays with sudden strong ones: each chunk's gradients by themselves."""
    program = spec(text)
    sizes = fitting_sizes(program, (16, 16))
    generator = torch.Generator().manual_seed(0)
    given = _unit_keys(arguments(program, sizes, batch=1, steps=4096, heads=1, start=False))
    g = given.inputs["g"]
    strong = LOG_DECAYS[3:6][torch.randint(0, 3, g.shape, generator=generator)]
    weak = torch.where(torch.rand(g.shape, generator=generator) < 0.01, strong, -1e-3)
    given = changed(given, g=weak, b=lambda b: b / 2)
    found, expected = (run(program, sizes, given, torch.float32)["d g"].value for run in (on_kernels, on_reference))
    assert distance(found, expected, 3, 1) <= TOLERANCES[torch.float32]["gate"] / 10


def test_gradcheck() -> None:
    program = program_of("members")
    sizes = fitting_sizes(program, (6, 16))
    assert isinstance(compile_kernels(program, sizes, KernelOptions(), backend="cpu").lowered, TwoPassKernels)
    given = arguments(program, sizes, batch=1, steps=3, heads=1).to(torch.float64, ())
    groups = (given.inputs, given.params, given.initial)
    names = [list(group) for group in groups]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        parts = [{name: next(rest) for name in group} for group in names]
        outputs, final = cpu_backend.run(program, sizes, *parts, steps=given.steps)
        return (*outputs, *final)

    assert torch.autograd.gradcheck(run, [x for group in groups for x in group.values()])


# ---------------------------------------------------------------- when it is not taken


def reason(program: Program, options: KernelOptions, *sizes: int) -> str:
    compiled = compile_kernels(program, fitting_sizes(program, sizes or (20, 36)), options, backend="cpu")
    assert isinstance(compiled.lowered, Native)
    return compiled.verdicts[0].reason


def test_the_verdict_says_why() -> None:
    delta = program_of("delta_net")
    assert "every 8 steps, as was asked for" in reason(delta, KernelOptions(chunk=8))
    assert "more than the 24 of the states" in reason(delta, KernelOptions(), 4, 3)
    assert "`alpha` would be divided by it" in reason(program_of("gated_delta_product"), KernelOptions())
    assert "rebuilt from checkpoints: `tanh`" in reason(program_of("m2rnn"), KernelOptions())
    taken = compile_kernels(delta, {"K": 20, "V": 36}, KernelOptions(), backend="cpu").verdicts[0].reason
    assert "backward in two passes: 36 numbers are kept per step" in taken


# ---------------------------------------------------------------- random recurrences


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(specs(most_steps=2))
def test_drawn_recurrences(drawn: AffineSpec) -> None:
    program = spec(drawn.text())
    sizes = fitting_sizes(program, (18, 33))
    check(program, sizes, arguments(program, sizes, steps=5), torch.float32)
