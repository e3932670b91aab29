"""Chunks against the token loop in float64: outputs, final states and all gradients, at hard lengths and values."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from unit.reference.chunk_specs import NAMES, SPECS, both, drawn, sizes_of, spec, with_inputs, worst

from recurra.compiler.ir.program import Program
from recurra.runtime import chunked, reference
from recurra.runtime.verify.data import Arguments
from recurra.runtime.verify.measure import draw_weights, quantities
from recurra.runtime.verify.metric import TOLERANCES

EXACT = 1e-10
DECAYS = (0.0, -1e-4, -0.6, -5.0, -20.0, -1000.0, -math.inf)
LOGS = ("scalar_log", "channel_log")
"""Specs whose decay is exp of an input g, the write strength an input b."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
def test_chunks_of_any_size_are_the_token_loop(name: str, chunk: int) -> None:
    program = spec(name)
    assert worst(*both(program, drawn(program, steps=37), chunk)) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_from_the_declared_start_backwards_with_shared_heads(name: str) -> None:
    program = spec(name)
    given = drawn(program, steps=9, start=False, grouped=True, heads=3)
    assert worst(*both(program, given, 4, reverse=True)) < EXACT


@pytest.mark.parametrize("steps", [0, 1, 2, 63, 64, 65, 257])
@pytest.mark.parametrize("name", ["kda", "gated_delta_product"])
def test_lengths(name: str, steps: int) -> None:
    program = spec(name)
    assert worst(*both(program, drawn(program, steps=steps, batch=1), 64)) < EXACT


@pytest.mark.parametrize("steps", [0, 1, 65])
@pytest.mark.parametrize("name", ["mlstm", "mamba", "rwkv7", "sub_steps", "members", "columns", "coupled", "bounded"])
def test_lengths_of_other_forms(name: str, steps: int) -> None:
    program = spec(name)
    assert worst(*both(program, drawn(program, steps=steps, batch=1), 64)) < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_float32(name: str) -> None:
    """Within the tolerances of kernels, and no worse than twice the token loop's own error in float32."""
    program = spec(name)
    given = drawn(program, steps=70, batch=1)
    found, true = both(program, given, 16, dtype=torch.float32)
    sizes = sizes_of(program)
    weights = draw_weights(program, sizes, torch.Generator().manual_seed(1), (1, 70, 2))
    own = quantities(program, sizes, given.to(torch.float32, ()), weights, reference.run)
    for quantity, value in found.items():
        allowed = max(TOLERANCES[torch.float32][value.kind], 2 * own[quantity].distance(true[quantity]))
        assert value.distance(true[quantity]) <= allowed, quantity


# ---------------------------------------------------------------- hard values


def hard(program: Program, decay: float | None, seed: int = 0, steps: int = 48) -> Arguments:
    """Unit keys of which some repeat and some are zero, write strengths 0, 1 and 2, and decays of one value at every
    other step (None: all values mixed) between mild ones."""
    generator = torch.Generator().manual_seed(seed)
    given = drawn(program, steps=steps, batch=1, seed=seed)
    shapes = {name: x.shape for name, x in given.inputs.items()}
    k = torch.randn(shapes["k"], generator=generator, dtype=torch.float64)
    k = k / k.norm(dim=-1, keepdim=True)
    k[:, steps // 3 : steps // 2] = k[:, :1]
    k[:, 5::7] = 0
    b = torch.randint(0, 3, shapes["b"], generator=generator).double()
    g = -0.1 * torch.rand(shapes["g"], generator=generator, dtype=torch.float64)
    if decay is None:
        which = torch.randint(0, len(DECAYS), shapes["g"], generator=generator)
        chosen = torch.tensor(DECAYS, dtype=torch.float64)[which]
        g = torch.where(torch.rand(shapes["g"], generator=generator) < 0.3, chosen, g)
    else:
        g[:, 1::2] = decay
    return with_inputs(given, k=k, b=b, g=g)


@pytest.mark.parametrize("chunk", [4, 64])
@pytest.mark.parametrize("decay", [*DECAYS, None])
@pytest.mark.parametrize("name", LOGS)
def test_hard_decays_and_keys(name: str, decay: float | None, chunk: int) -> None:
    program = spec(name)
    assert worst(*both(program, hard(program, decay), chunk)) < EXACT


@pytest.mark.parametrize("decay", [*DECAYS, None])
@pytest.mark.parametrize("name", LOGS)
def test_hard_decays_and_keys_in_float32(name: str, decay: float | None) -> None:
    program = spec(name)
    found, true = both(program, hard(program, decay), 64, dtype=torch.float32)
    for quantity, value in found.items():
        assert value.distance(true[quantity]) <= TOLERANCES[torch.float32][value.kind], quantity


@pytest.mark.parametrize("decay", [-1000.0, -math.inf])
@pytest.mark.parametrize("name", LOGS)
def test_what_is_forgotten_leaves_exact_zeros(name: str, decay: float) -> None:
    program = spec(name)
    given = drawn(program, steps=20, batch=1)
    g = given.inputs["g"].detach().clone().clamp(max=0)
    g[:, 11] = decay
    given = with_inputs(given, g=g)
    (o, _), _ = chunked.run(program, sizes_of(program), given.inputs, given.params, given.initial, steps=20, chunk=8)
    tensors = {**given.inputs, **given.initial}
    slopes = dict(zip(tensors, torch.autograd.grad(o[:, 11:].sum(), list(tensors.values())), strict=True))
    assert all(slope.isfinite().all() for slope in slopes.values())
    assert not any(slopes[name][:, :11].any() for name in ("q", "k", "v", "g", "b")) and not slopes["S"].any()
    assert not slopes["g"][:, 11].any() and slopes["v"][:, 11:].any()


@pytest.mark.parametrize("name", ["signed", "signed_channels", "mixed_sub_steps"])
def test_decays_of_exactly_zero_and_one_have_the_right_gradient(name: str) -> None:
    program = spec(name)
    given = drawn(program, steps=24)
    generator = torch.Generator().manual_seed(3)
    a = given.inputs["a"].detach().clone()
    a[torch.rand(a.shape, generator=generator) < 0.2] = 0.0
    a[torch.rand(a.shape, generator=generator) < 0.2] = 1.0
    a[torch.rand(a.shape, generator=generator) < 0.2] = -1.0
    found, true = both(program, with_inputs(given, a=a), 8)
    assert (a == 0).any() and worst(found, true) < EXACT


def test_the_gradient_of_a_tiny_decay_is_no_difference_of_large_sums() -> None:
    """d alpha is of order one where alpha is 1e-12: it must not be a rounding error divided by alpha."""
    program = spec("gated_delta_product")
    given = drawn(program, steps=32, batch=1)
    alpha = given.inputs["alpha"].detach().clone()
    alpha[:, 3::4] = 1e-12
    found, true = both(program, with_inputs(given, alpha=alpha), 16, dtype=torch.float32)
    torch.testing.assert_close(found["d alpha"].value.double(), true["d alpha"].value, rtol=1e-4, atol=1e-5)


def test_ties_of_running_extremes_split_their_gradient_as_the_step_does() -> None:
    for name in ("stabilised", "bounded"):
        program = spec(name)
        given = drawn(program, steps=21, start=False)
        rounded = {name: x.detach().round() for name, x in given.inputs.items()}
        f = torch.full_like(rounded["x"], 40.0)  # logsigmoid is exactly 0 in sums: ties
        found, true = both(program, with_inputs(given, **(rounded | ({"f": f} if "f" in rounded else {}))), 4)
        assert worst(found, true) < EXACT


# ---------------------------------------------------------------- properties


def evaluated(program: Program, given: Arguments, chunk: int = 8) -> tuple[Tensor, ...]:
    return chunked.run(
        program, sizes_of(program), given.inputs, given.params, given.initial, steps=given.steps, chunk=chunk
    )[0]


@pytest.mark.parametrize("name", [*NAMES])
def test_a_prefix_does_not_change_with_the_future(name: str) -> None:
    program = spec(name)
    given, other = drawn(program, steps=29), drawn(program, steps=29, seed=5)
    before = evaluated(program, given)
    for cut in (1, 8, 13):
        mixed = {n: torch.cat([x[:, :cut], 3 * other.inputs[n][:, cut:]], 1) for n, x in given.inputs.items()}
        for one, two in zip(before, evaluated(program, with_inputs(given, **mixed)), strict=True):
            assert torch.equal(one[:, :cut], two[:, :cut])


@pytest.mark.parametrize("name", ["kda", "mlstm", "sub_steps", "stabilised", "coupled", "two_memories"])
def test_a_run_is_two_runs_joined_by_the_state_at_any_step(name: str) -> None:
    program = spec(name)
    sizes = sizes_of(program)
    given = drawn(program, steps=11)
    run = partial(chunked.run, program, sizes, chunk=4)
    whole, final = run(given.inputs, given.params, given.initial, steps=11)
    for cut in range(12):
        halves = ({n: x[:, :cut] for n, x in given.inputs.items()}, {n: x[:, cut:] for n, x in given.inputs.items()})
        first, middle = run(halves[0], given.params, given.initial, steps=cut)
        joined = {s.name: value for s, value in zip(program.states, middle, strict=True)}
        second, end = run(halves[1], given.params, joined, steps=11 - cut)
        for one, a, b in zip(whole, first, second, strict=True):
            torch.testing.assert_close(one, torch.cat([a, b], 1), rtol=1e-10, atol=1e-10)
        for one, last in zip(final, end, strict=True):
            torch.testing.assert_close(one, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["kda", "mlstm", "coupled"])
def test_packed_sequences(name: str, reverse: bool) -> None:
    program = spec(name)
    sizes = sizes_of(program)
    given = drawn(program, steps=20, batch=1)
    starts = drawn(program, steps=1, batch=4).initial
    bounds = torch.tensor([0, 7, 7, 8, 20])
    results = [
        run(program, sizes, given.inputs, given.params, starts, steps=20, reverse=reverse, cu_seqlens=bounds)
        for run in (partial(chunked.run, chunk=4), reference.run)
    ]
    for group, expected in zip(*results, strict=True):
        for one, other in zip(group, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["mlstm", "kda", "rwkv6", "retnet", "hgrn", *(n for n in SPECS if n != "clipped")])
def test_second_derivatives(name: str) -> None:
    """Finite differences of gradients: everything can be differentiated twice."""
    program = spec(name)
    sizes = sizes_of(program, 2, 2, 2)
    given = drawn(program, steps=5, batch=1, heads=1, sizes=sizes)
    groups = (given.inputs, given.params, given.initial)
    names = [list(group) for group in groups]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        left = iter(tensors)
        inputs, params, initial = ({name: next(left) for name in group} for group in names)
        outputs, final = chunked.run(program, sizes, inputs, params, initial, steps=5, chunk=2)
        return (*outputs, *final)

    tensors = tuple(x for group in groups for x in group.values())
    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_answers_in_the_inputs_dtype(dtype: torch.dtype) -> None:
    program = spec("kda")
    sizes = sizes_of(program)
    given = drawn(program, steps=5)
    narrow = {name: x.detach().to(dtype) for name, x in given.inputs.items()}
    others = [{name: x.detach().float() for name, x in group.items()} for group in (given.params, given.initial)]
    results = [run(program, sizes, narrow, *others, steps=5) for run in (chunked.run, reference.run)]
    for (o,), (final,) in results:
        assert o.dtype == dtype and final.dtype == torch.float32
    torch.testing.assert_close(results[0][0][0], results[1][0][0])
