"""Hard values and properties of the chunk strategy's kernels, and recurrences drawn at random."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from affine_specs import AffineSpec, specs
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import Tensor
from unit.kernels.against_reference import arguments, changed, check, run, runner
from unit.kernels.against_reference import spec as from_text
from unit.kernels.test_chunk import FEW, SCHEDULES, options, small, spec

from recurra.compiler.ir.program import Program
from recurra.compiler.options import KernelOptions
from recurra.runtime import reference
from recurra.runtime.verify.data import Arguments
from recurra.runtime.verify.metric import TOLERANCES, distance

INF = math.inf
DECAYS = (0.0, -1e-4, -0.6, -5.0, -20.0, -1000.0, -INF)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
some = pytest.mark.parametrize("name", FEW)


def hard(program: Program, decay: float | None, steps: int = 37) -> Arguments:
    """Unit keys of which some repeat and some are zero, write strengths 0, 1 and 2, and log decays of one value at
    every other step (None: all values mixed) between mild ones."""
    generator = torch.Generator().manual_seed(0)
    drawn = arguments(program, small(program), steps=steps, heads=1)
    k, b, g = (drawn.inputs[name].detach().clone() for name in "kbg")
    k = k / k.norm(dim=-1, keepdim=True)
    k[:, steps // 3 : steps // 2] = k[:, :1]
    k[:, 5::7] = 0
    b = torch.randint(0, 3, b.shape, generator=generator).float()
    g = -0.1 * torch.rand(g.shape, generator=generator)
    if decay is None:
        chosen = torch.tensor(DECAYS)[torch.randint(0, len(DECAYS), g.shape, generator=generator)]
        g = torch.where(torch.rand(g.shape, generator=generator) < 0.3, chosen, g)
    else:
        g[:, 1::2] = decay
    return changed(drawn, k=k, b=b, g=g)


@pytest.mark.parametrize("decay", [*DECAYS, None])
@pytest.mark.parametrize("name", ["scalar_log", "channel_log"])
def test_hard_decays_keys_and_strengths(name: str, decay: float | None) -> None:
    program = spec(name)
    schedule = SCHEDULES[name == "scalar_log"]
    check(program, small(program), hard(program, decay), "chunk", options=options(schedule))


@schedules
@pytest.mark.parametrize("name", ["scalar_log", "channel_log"])
def test_mixed_decays_in_one_chunk_of_sixty_four(name: str, schedule: str) -> None:
    program = spec(name)
    given = hard(program, None, steps=70)
    check(program, small(program), given, "chunk", options=KernelOptions(schedule=schedule))


DECAYED_LAST = """recurrence decayed_last
dims K, V
state S[K, V], n[K]
input q[K], k[K], v[V], b in [0, 1], a in [-1, 1]
transition {
  S' = a * (householder(k, b) @ S + outer(k, v))
  n' = a * (householder(k, b) @ n + k)
}
output o[V] = q @ S' + (q @ n') * (k @ S)
output r[V] = k @ S
"""
VANISHING = """recurrence vanishing
dims K, V
state S[K, V]
input q[K], k[K], v[V], a[K] in [0, 1]
transition S' = diag(a) @ S + outer((1 - a) * k, v)
output o[V] = q @ S'
"""
SIGNED = {name: spec(name) for name in ("signed", "signed_channels", "mixed_sub_steps")}
SIGNED |= {"decayed_last": from_text(DECAYED_LAST), "vanishing": from_text(VANISHING)}


@pytest.mark.parametrize("name", SIGNED)
def test_decays_at_and_near_zero(name: str) -> None:
    """Where its logarithm has no gradient, or one without digits, a decay gets its own."""
    program = SIGNED[name]
    generator = torch.Generator().manual_seed(3)
    drawn = arguments(program, small(program), steps=34, heads=1)
    a = drawn.inputs["a"].detach().clone()
    for value in (0.0, 1.0, -1.0, 1e-30, -1e-5, 3e-3):
        a[torch.rand(a.shape, generator=generator) < 0.12] = value
    a[:, 20:22] = 0.0
    a = a.abs() if name == "vanishing" else a
    check(program, small(program), changed(drawn, a=a), "chunk", options=options())


def test_gradients_of_decays_of_zero_are_sums_over_tiles() -> None:
    program, sizes = SIGNED["signed_channels"], {"K": 3, "V": 35}
    drawn = arguments(program, sizes, steps=18, heads=1)
    given = changed(drawn, a=lambda a: torch.where(a.abs() < 0.3, 0.0, a))
    check(program, sizes, given, "chunk", options=options("split", tiles=(("V", 16),)))


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_the_same_key_again_and_again(beta: float) -> None:
    """Erased to zero, written anew, reflected: chunks solve the same triangle of ones."""
    program = spec("delta_net_neg")
    drawn = arguments(program, small(program), steps=37, heads=1)
    same = changed(drawn, k=lambda k: k[:, :1].expand_as(k).clone(), beta=lambda b: torch.full_like(b, beta))
    check(program, small(program), same, "chunk", options=options())


@pytest.mark.parametrize("bad", [INF, math.nan])
def test_what_is_wrong_stays_in_its_sequence_and_behind_its_chunk(bad: float) -> None:
    program, sizes = spec("kda"), small(spec("kda"))
    drawn = arguments(program, sizes, batch=2, steps=40, heads=1)

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, 20] = bad
        return x

    good = run(program, sizes, drawn, "chunk", options=options())
    spoilt = run(program, sizes, changed(drawn, v=spoil), "chunk", options=options())
    for key in ("o", "final S", "d q", "d g", "d S"):
        assert torch.equal(good[key].value[1], spoilt[key].value[1]), key
    assert torch.equal(good["o"].value[0, :16], spoilt["o"].value[0, :16])
    assert not spoilt["o"].value[0, 20:].isfinite().any()


# ---------------------------------------------------------------- properties


def forward(
    program: Program, drawn: Arguments, schedule: str, first: int = 0, last: int | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Outputs and final states of some of the steps, from the given start states."""
    inputs = {name: x.detach()[:, first:last] for name, x in drawn.inputs.items()}
    steps = len(range(drawn.steps)[first:last])
    with torch.no_grad():
        outputs, final = runner("chunk", options(schedule))(
            program, small(program), inputs, drawn.params, drawn.initial, steps=steps
        )
    return outputs, {s.name: x for s, x in zip(program.states, final, strict=True)}


@schedules
@some
def test_two_runs_have_the_same_bits(name: str, schedule: str) -> None:
    program = spec(name)
    drawn = arguments(program, small(program), steps=18, grouped=True)
    first, second = (run(program, small(program), drawn, "chunk", options=options(schedule)) for _ in range(2))
    for key, q in first.items():
        assert torch.equal(q.value, second[key].value), key


@schedules
@some
def test_the_future_changes_nothing(name: str, schedule: str) -> None:
    program = spec(name)
    drawn = arguments(program, small(program), steps=34, heads=1)
    whole, _ = forward(program, drawn, schedule)
    for prefix in (1, 7, 16, 21):

        def otherwise(x: Tensor, prefix: int = prefix) -> Tensor:
            return torch.cat([x[:, :prefix], torch.rand_like(x[:, prefix:])], 1)

        short, _ = forward(program, drawn, schedule, last=prefix)
        other, _ = forward(program, changed(drawn, **dict.fromkeys(drawn.inputs, otherwise)), schedule)
        for a, b, c in zip(whole, short, other, strict=True):
            assert torch.equal(a[:, :prefix], b) and torch.equal(a[:, :prefix], c[:, :prefix])
            assert not torch.equal(a[:, prefix:], c[:, prefix:])


@pytest.mark.parametrize("cut", [0, 1, 16, 30])
@some
def test_two_parts_make_the_whole(name: str, cut: int) -> None:
    """To the last bit where the cut is one of chunks, within rounding elsewhere."""
    program = spec(name)
    schedule = SCHEDULES[cut % 3 % 2]
    drawn = arguments(program, small(program), steps=34, heads=1)
    whole, end = forward(program, drawn, schedule)
    left, middle = forward(program, drawn, schedule, last=cut)
    right, last = forward(program, changed(drawn, **middle), schedule, first=cut)
    tolerance = TOLERANCES[torch.float32]["output"] if cut % 16 else 0.0
    for a, b, c in zip(whole, left, right, strict=True):
        assert distance(torch.cat([b, c], 1), a, 3, 1) <= tolerance
    for state, value in end.items():
        assert distance(last[state], value, 2) <= tolerance


@schedules
@some
def test_gradients_do_not_change_what_is_computed(name: str, schedule: str) -> None:
    program = spec(name)
    drawn = arguments(program, small(program), steps=18, heads=1)
    outputs, final = forward(program, drawn, schedule)
    found = run(program, small(program), drawn, "chunk", options=options(schedule))
    for output, value in zip(program.outputs, outputs, strict=True):
        assert torch.equal(found[output.name].value, value)
    for state, value in final.items():
        assert torch.equal(found[f"final {state}"].value, value)


def test_half_precision_inputs() -> None:
    """Outputs and gradients are in the inputs' dtype, states in float32."""
    program, sizes = spec("gated_delta_net"), small(spec("gated_delta_net"))
    drawn = arguments(program, sizes, steps=18).to(torch.float16, ())
    wide = drawn.to(torch.float64, ())
    half = replace(options(), operand="tl.float16", precision="tf32")
    outputs, final = runner("chunk", half)(program, sizes, drawn.inputs, drawn.params, drawn.initial, steps=18)
    expected, end = reference.run(program, sizes, wide.inputs, wide.params, wide.initial, steps=18)
    assert outputs[0].dtype == torch.float16 and final[0].dtype == torch.float32
    torch.testing.assert_close(outputs[0].double(), expected[0], rtol=5e-3, atol=3e-3)
    torch.testing.assert_close(final[0].double(), end[0], rtol=5e-3, atol=3e-3)
    slopes = torch.autograd.grad(outputs[0].float().sum(), list(drawn.inputs.values()))
    true = torch.autograd.grad(expected[0].sum(), list(wide.inputs.values()))
    for slope, wanted in zip(slopes, true, strict=True):
        assert slope.dtype == torch.float16
        torch.testing.assert_close(slope.double(), wanted, rtol=2e-2, atol=1e-2)


# ---------------------------------------------------------------- drawn at random


@settings(max_examples=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False)
@given(specs(most_steps=2), st.booleans(), st.booleans(), st.sampled_from(SCHEDULES))
def test_drawn_recurrences(drawn: AffineSpec, start: bool, packed: bool, schedule: str) -> None:
    text = drawn.text()
    note(text)
    program = from_text(text)
    lengths = (3, 0, 18) if packed else None
    values = arguments(program, {"K": 3, "V": 5}, steps=21, heads=1, start=start, lengths=lengths)
    check(program, {"K": 3, "V": 5}, values, "chunk", options=options(schedule), reverse=packed)
