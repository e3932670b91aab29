"""What holds for every recurrence: same bits twice, no look ahead, whole = halves, and blocks that do not matter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from unit.kernels.against_reference import WAYS, arguments, changed, check, compiled, run, runner, sizes_of, spec, zoo

from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import KernelOptions, compile_kernels
from recurra.runtime import reference
from recurra.runtime.verify.data import Arguments

OPTIONS = KernelOptions(chunk=2)
NAMES = ["gated_delta_net", "lstm", "mlstm"]


def forward(
    program: Program, sizes: dict[str, int], given: Arguments, strategy: str, first: int = 0, last: int | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Outputs and final states of some of the steps, from the given start states."""
    inputs = {name: x.detach()[:, first:last] for name, x in given.inputs.items()}
    steps = len(range(given.steps)[first:last])
    groups = (inputs, given.params, given.initial)
    with torch.no_grad():
        outputs, final = runner(strategy, OPTIONS)(program, sizes, *groups, steps=steps)
    return outputs, {s.name: x for s, x in zip(program.states, final, strict=True)}


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_two_runs_have_the_same_bits(name: str, strategy: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=3, grouped=True)
    first, second = (run(program, sizes, given, strategy, options=OPTIONS, segment=2) for _ in range(2))
    for key, q in first.items():
        assert torch.equal(q.value, second[key].value), key


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_the_future_changes_nothing(name: str, strategy: str) -> None:
    """A prefix has the same outputs, bit for bit, whatever follows it and however long that is."""
    program = zoo(name)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=5, heads=1)
    whole, _ = forward(program, sizes, given, strategy)
    prefix, _ = forward(program, sizes, given, strategy, last=3)

    def otherwise(x: Tensor) -> Tensor:
        return torch.cat([x[:, :3], x[:, 3:] * -7 + 1], 1)

    other, _ = forward(program, sizes, changed(given, **dict.fromkeys(given.inputs, otherwise)), strategy)
    for a, b, c in zip(whole, prefix, other, strict=True):
        assert torch.equal(a[:, :3], b) and torch.equal(a[:, :3], c[:, :3])
        assert not torch.equal(a[:, 3:], c[:, 3:])


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_two_halves_make_the_whole(name: str, strategy: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=5, heads=1)
    whole, end = forward(program, sizes, given, strategy)
    left, middle = forward(program, sizes, given, strategy, last=2)
    right, last = forward(program, sizes, changed(given, **middle), strategy, first=2)
    for a, b, c in zip(whole, left, right, strict=True):
        assert torch.equal(a, torch.cat([b, c], 1))
    for state, value in end.items():
        assert torch.equal(value, last[state])


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_do_not_change_what_is_computed(name: str, strategy: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=3, heads=1)
    outputs, final = forward(program, sizes, given, strategy)
    found = run(program, sizes, given, strategy, options=OPTIONS)
    for output, value in zip(program.outputs, outputs, strict=True):
        assert torch.equal(found[output.name].value, value)
    for state, value in final.items():
        assert torch.equal(found[f"final {state}"].value, value)


@pytest.mark.parametrize("tiles", [{"V": 2}, {"V": 8}])
@pytest.mark.parametrize("name", ["gated_delta_net", "mlstm", "rwkv7"])
def test_tiles_do_not_matter(name: str, tiles: dict[str, int]) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=3, heads=1)
    check(program, sizes, given, options=KernelOptions(chunk=2, tiles=tuple(tiles.items())), segment=2)


@pytest.mark.parametrize("name", ["mamba", "hgrn"])
def test_tiles_of_vectors_do_not_matter(name: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 5, 3)
    axis = program.states[0].axes[0].name
    given = arguments(program, sizes, steps=3)
    for strategy in WAYS:
        check(program, sizes, given, strategy, options=KernelOptions(chunk=2, tiles=((axis, 2),)))


SHARED = """recurrence shared
dims K, V
state S[K, V], n[K], m, u[V]
input k[K], v[V], g
param w[K], b[V], c
transition m' = max(m, g) * c
transition n' = sigmoid(m') * n + k * w
transition u' = tanh(u + v * sum(n', K))
transition S' = sigmoid(g) * S + outer(n', u' + b)
output o[V] = k @ S'
output p[K] = n' * m
output s = sum(n', K) + m'
"""


@pytest.mark.parametrize("strategy", WAYS)
def test_tiles_share_states_and_params(strategy: str) -> None:
    """Every tile of V has its own copy of n, m and all that reads them; gradients are sums over tiles."""
    program = spec(SHARED)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=3, grouped=True)
    check(program, sizes, given, strategy, options=KernelOptions(chunk=2, tiles=(("V", 2),)), segment=2)


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ({"K": 2}, "its 5 entries depend on each other"),
        ({"V": 3}, "must be a power of two"),
        ({"V": 0}, "must be a power of two"),
        ({"W": 2}, "no axis 'W' to tile; there are"),
    ],
)
def test_tiles_that_do_not_work_are_refused(tiles: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_kernels(zoo("delta_net"), {"K": 5, "V": 3}, KernelOptions(tiles=tuple(tiles.items())))


OWN = """recurrence own
dims D
state h[D]
input x[D], A[D, D]
param W[D, D]
transition h' = tanh(x + W @ h + A @ h)
output o[D] = h'
"""


@pytest.mark.parametrize("strategy", WAYS)
def test_sequences_with_matrices_of_their_own_do_not_share_a_program(strategy: str) -> None:
    """Sixteen such matrices in one program would not fit; one program then takes one sequence."""
    program, sizes = spec(OWN), {"D": 5}
    made = compiled(program, sizes, strategy)
    assert made.kernels[0].layout.rows == 1
    shared = compiled(zoo("elman"), sizes, "cpu" if strategy == "cpu" else "recurrent")
    assert shared.kernels[0].layout.rows == 16
    check(program, sizes, arguments(program, sizes, batch=2, steps=3, heads=1), strategy)


@pytest.mark.parametrize(
    ("value", "warps"), [("h'", 1), ("sum(tanh(outer(y, h')), U)", 8), ("h' @ tanh(outer(x, y)) @ outer(y, x)", 8)]
)
def test_large_values_of_a_step_get_the_warps_they_need(value: str, warps: int) -> None:
    text = "recurrence r\ndims V, U = V\nstate h[V]\ninput x[V], y[U]\ntransition h' = h + x\n"
    program = spec(f"{text}output o[V] = {value}\n")
    made = compile_kernels(program, {"V": 64, "U": 64}, KernelOptions(), "recurrent")
    assert made.kernels[0].layout.warps == warps


WIDE = {"elman": 2, "gru": 3}


@pytest.mark.parametrize("name", WIDE)
def test_wide_recurrent_matrices_go_step_by_step(name: str) -> None:
    """512 x 512 weights do not fit on chip: the strategy says so and the library multiplies."""
    program, sizes = zoo(name), {"D": 512}
    compiled = compile_kernels(program, sizes, KernelOptions())
    assert compiled.strategy == "stepwise"
    *_, recurrent, stepwise = compiled.verdicts
    kilobytes = sum(len(p.axes) == 2 for p in compiled.split.core.params) * 512 * 512 * 4 // 1024
    assert not recurrent.applies and stepwise.applies
    assert recurrent.reason.startswith("the recurrent weights of one program would take ")
    assert int(recurrent.reason.split(" take ")[1].split()[0]) >= kilobytes
    assert "80 KB" in recurrent.reason
    with pytest.raises(ValueError, match="does not apply: the recurrent weights"):
        compile_kernels(program, sizes, KernelOptions(), "recurrent")
    check(program, sizes, arguments(program, sizes, batch=2, steps=3, heads=1), "auto")


def test_half_precision_inputs() -> None:
    """Outputs are in the inputs' dtype and states in float32, for both strategies."""
    program = zoo("gated_delta_net")
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=3).to(torch.float16, ())
    wide = given.to(torch.float64, ())
    expected, end = reference.run(program, sizes, wide.inputs, wide.params, wide.initial, steps=3)
    for strategy in WAYS:
        outputs, final = runner(strategy)(program, sizes, given.inputs, given.params, given.initial, steps=3)
        assert outputs[0].dtype == torch.float16 and final[0].dtype == torch.float32
        torch.testing.assert_close(outputs[0].double(), expected[0], rtol=2e-3, atol=1e-3)
        torch.testing.assert_close(final[0].double(), end[0], rtol=1e-4, atol=1e-5)
        slopes = torch.autograd.grad(outputs[0].float().sum(), [*given.inputs.values(), *given.params.values()])
        true = torch.autograd.grad(expected[0].sum(), [*wide.inputs.values(), *wide.params.values()], retain_graph=True)
        for slope, right in zip(slopes, true, strict=True):
            torch.testing.assert_close(slope.double(), right, rtol=4e-3, atol=4e-3)
