"""The scan strategy against the float64 reference: kinds of recurrences, lengths, hard values, properties."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from unit.kernels.against_reference import (
    UNSEEN,
    ZOO,
    arguments,
    changed,
    check,
    only,
    run,
    runner,
    scans,
    sizes_of,
    spec,
    true,
    wrong,
    zoo,
)
from unit.kernels.test_hard_values import memory_full_of
from unit.kernels.test_lengths_and_layouts import KINDS, odd_strides

import recurra
from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.options import KernelOptions
from recurra.runtime import reference
from recurra.runtime.verify.data import Arguments

INF = math.inf
BLOCK = 4
OPTIONS = KernelOptions(chunk=BLOCK)

TOP = """recurrence top
dims D
state m[D] = -inf
input a[D], b[D], w[D]
transition m' = max(m + a, b)
output o[D] = where(m' > m, w * m', m')
output e[D] = exp(b - m')
"""
PAIR = """recurrence pair
dims N
state hr[N], hi[N]
input ur[N], ui[N], r[N], g[N]
param nu[N], theta[N]
let a = exp(-exp(nu)) * cos(theta)
let b = exp(-exp(nu)) * sin(theta)
transition hr' = a * hr - b * hi + ur
transition hi' = b * hr + a * hi + ui
output y[N] = r * hr' - g * hi' + hi
"""
TWO_BY_TWO = """recurrence two_by_two
dims D
state p[D], q[D]
input a[D], b[D], c[D], d[D], u[D]
transition p' = tanh(a) * p + 0.5 * tanh(b) * q + u
transition q' = 0.3 * tanh(c) * p - tanh(d) * q
output y[D] = p' * q + q'
output z = sum(p * q', D)
"""
MANY = """recurrence many
dims K, V
state S[K, V], n[K], m, prev[K], c[V], still[V]
input q[K], k[K], v[V], f, g
param w[V], P[K, V]
transition S' = sigmoid(f) * S + P * outer(k, v)
transition n' = sigmoid(f) * n + k
transition m' = min(m + 0.3 * g, g + f)
transition prev' = k
transition c' = c + v * w
transition still' = still
output o[V] = q @ S' / (1 + abs(m')) + c * sum(prev * q, K) + still'
output s = q @ n + m
output S_out[K, V] = S
"""
LRU = """recurrence lru_core
dims N, D
state hr[N], hi[N]
input u[D]
param nu[N], theta[N], B_re[N, D], B_im[N, D], C_re[D, N], C_im[D, N], D_skip[D]
let r = exp(-exp(nu))
let scale = sqrt(1 - r * r)
transition hr' = r * cos(theta) * hr - r * sin(theta) * hi + scale * (B_re @ u)
transition hi' = r * sin(theta) * hr + r * cos(theta) * hi + scale * (B_im @ u)
output y[D] = C_re @ hr' - C_im @ hi' + D_skip * u
"""
SIGNED = """recurrence signed
dims D
state h[D]
input x[D], d[D]
transition h' = (2 * sigmoid(d) - 1) * h + x
output o[D] = h' * h
"""
SCALAR = """recurrence scalar_decay
dims D
state h[D]
input x[D], g
param w
transition h' = exp(-softplus(g)) * h + w * x
output o[D] = tanh(h')
output p = sum(h' * x, D)
"""
SPECS = {text.split()[1]: spec(text) for text in (TOP, PAIR, TWO_BY_TWO, MANY, LRU, SIGNED, SCALAR)} | {
    name: zoo(name) for name in ("hgrn", "mamba", "gla", "retnet", "rwkv6", "linear_attention")
}


def small(program: Program) -> dict[str, int]:
    return sizes_of(program, 5, 3)


@pytest.mark.parametrize("steps", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
@pytest.mark.parametrize("name", SPECS)
def test_lengths(name: str, steps: int) -> None:
    program = SPECS[name]
    given = arguments(program, small(program), steps=steps, heads=1)
    check(program, small(program), given, "scan", options=OPTIONS)


@pytest.mark.parametrize("steps", [0, 1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("name", ["hgrn", "top", "pair"])
def test_lengths_around_blocks_of_sixty_four(name: str, steps: int) -> None:
    program = SPECS[name]
    options = KernelOptions(chunk=64)
    assert compile_kernels(program, small(program), options, "scan").kernels[0].layout.rows == 64
    given = arguments(program, small(program), steps=steps, heads=1)
    check(program, small(program), given, "scan", options=options)


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_batches_groups_directions_and_start_states(name: str, reverse: bool, start: bool) -> None:
    program = SPECS[name]
    given = arguments(program, small(program), batch=3, steps=5, heads=2, start=start, grouped=True)
    check(program, small(program), given, "scan", options=OPTIONS, reverse=reverse)


@pytest.mark.parametrize("batch", [0, 2])
def test_no_sequence_at_all(batch: int) -> None:
    program = SPECS["many"]
    check(program, small(program), arguments(program, small(program), batch=batch, steps=3), "scan", options=OPTIONS)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (20, 3), (60, 2), (100, 1)])
@pytest.mark.parametrize("name", ["mamba", "many", "lru_core"])
def test_sizes(name: str, shape: tuple[int, int]) -> None:
    program = SPECS[name]
    sizes = sizes_of(program, *shape)
    check(program, sizes, arguments(program, sizes, steps=3, heads=1), "scan", options=KernelOptions(chunk=2))


@pytest.mark.parametrize("tile", [1, 2, 8])
@pytest.mark.parametrize("name", ["hgrn", "mamba", "many", "pair", "top"])
def test_tiles_do_not_matter(name: str, tile: int) -> None:
    """Tiles share states and inputs without the axis; their gradients are sums over tiles."""
    program = SPECS[name]
    axis = "V" if name == "many" else program.states[0].axes[0].name
    sizes = sizes_of(program, 3, 5) if name == "many" else small(program)
    options = KernelOptions(chunk=BLOCK, tiles=((axis, tile),))
    check(program, sizes, arguments(program, sizes, steps=6, grouped=True), "scan", options=options)


@pytest.mark.parametrize("segment", [1, BLOCK, 2 * BLOCK])
@pytest.mark.parametrize("name", ["hgrn", "many", "pair"])
def test_segments(name: str, segment: int) -> None:
    program = SPECS[name]
    given = arguments(program, small(program), steps=3 * BLOCK - 1, heads=1)
    check(program, small(program), given, "scan", options=OPTIONS, segment=segment, reverse=segment == BLOCK)


@pytest.mark.parametrize("kind", KINDS)
def test_strides(kind: str) -> None:
    program = SPECS["many"]
    given = arguments(program, small(program), batch=2, steps=5)
    strided = changed(given, **{name: lambda x: odd_strides(x, kind) for name in ("q", "v", "g", "w", "P", "S", "m")})
    check(program, small(program), strided, "scan", options=KernelOptions(chunk=BLOCK, strided=True))


@pytest.mark.parametrize("used", [("o",), ("s",), ("S_out",), ("final S",), ("final m", "s"), ("final prev",), ()])
def test_gradients_from_one_place_only(used: tuple[str, ...]) -> None:
    program = SPECS["many"]
    given = arguments(program, small(program), steps=5, heads=1)
    weights = only(program, small(program), given, *used)
    check(program, small(program), given, "scan", options=OPTIONS, weights=weights)


# ---------------------------------------------------------------- hard values


LOG_DECAYS = torch.tensor([0.0, -1e-4, -0.6, -5.0, -20.0, -1000.0, -INF])
LOGS = """recurrence logs
dims D
state h[D]
input x[D], g[D]
transition h' = exp(g) * h + (1 - exp(g)) * x
output o[D] = h' * x + h
"""


def test_log_decays_from_zero_to_minus_infinity() -> None:
    program, sizes = spec(LOGS), {"D": 3}
    given = arguments(program, sizes, steps=9, heads=1)
    mixed = changed(given, g=LOG_DECAYS[torch.arange(27).reshape(1, 9, 1, 3) % 7])
    check(program, sizes, mixed, "scan", options=OPTIONS)
    check(program, sizes, changed(given, g=lambda g: torch.full_like(g, -INF)), "scan", options=OPTIONS)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, 1e-30, -0.5])
def test_constant_decays(decay: float) -> None:
    text = "recurrence r\ndims D\nstate h[D]\ninput x[D], a\ntransition h' = a * h + x\noutput o[D] = h' * h\n"
    program, sizes = spec(text), {"D": 3}
    given = arguments(program, sizes, steps=9, heads=1)
    check(program, sizes, changed(given, a=lambda a: torch.full_like(a, decay)), "scan", options=OPTIONS)


def test_a_matrix_of_divisors() -> None:
    text = "recurrence r\ndims K, V\nstate S[K, V]\ninput X[K, V]\ntransition S' = X - S / (1 + square(X))\n"
    program, sizes = spec(text + "output o[K, V] = S'\n"), {"K": 3, "V": 2}
    check(program, sizes, arguments(program, sizes, steps=6), "scan", options=OPTIONS)


@pytest.mark.parametrize("start", [False, True])
def test_maxima_of_infinities_and_ties(start: bool) -> None:
    """Shifts and bounds of minus infinity (there is none yet, none any more), equal ones share their gradient."""
    text = "recurrence r\ndims D\nstate m[D] = -inf\ninput a[D], b[D]\ntransition m' = max(m + a, b)\n"
    program, sizes = spec(text + "output o[D] = exp(min(m', 3))\n"), {"D": 3}
    given = arguments(program, sizes, steps=9, heads=1, start=start)
    a = torch.tensor([0.0, -1.0, -INF])[torch.arange(27).reshape(1, 9, 1, 3) * 5 % 7 % 3]
    b = torch.tensor([1.0, 0.0, -1.0, -INF])[torch.arange(27).reshape(1, 9, 1, 3) * 3 % 11 % 4]
    hard = changed(given, a=a, b=b, m=lambda m: torch.zeros_like(m))
    weights = only(program, sizes, hard, "o")  # the last state may be infinite, where its distance is NaN
    found = run(program, sizes, hard, "scan", options=OPTIONS, weights=weights)
    expected = true(program, sizes, hard, weights=weights)
    final = "final m"
    assert torch.equal(found[final].value.double(), expected[final].value)
    found.pop(final), expected.pop(final)
    assert not wrong(program, sizes, hard, found, expected, weights=weights)
    assert all(q.value.isfinite().all() for q in found.values())


def test_a_replaced_state_forgets_infinity() -> None:
    text = "recurrence r\ndims V\nstate m = -inf, z[V]\ninput x[V]\ntransition m' = 0.5\ntransition z' = x\n"
    program, sizes = spec(text + "output o[V] = x * exp(m) + z'\noutput p[V] = z * x\n"), {"V": 3}
    check(program, sizes, arguments(program, sizes, steps=6, start=False), "scan", options=OPTIONS)


@pytest.mark.parametrize("bad", [INF, math.nan])
def test_what_is_wrong_stays_in_its_sequence_and_behind_its_step(bad: float) -> None:
    program, sizes = SPECS["hgrn"], {"D": 3}
    given = arguments(program, sizes, batch=2, steps=6, heads=1)

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, 2] = bad
        return x

    good = run(program, sizes, given, "scan", options=OPTIONS)
    spoilt = run(program, sizes, changed(given, i=spoil), "scan", options=OPTIONS)
    for key in ("o", "final h", "d i", "d f", "d h"):
        assert torch.equal(good[key].value[1], spoilt[key].value[1]), key
    assert torch.equal(good["o"].value[0, :2], spoilt["o"].value[0, :2])
    assert not spoilt["o"].value[0, 2:].isfinite().any()


@pytest.mark.parametrize("path", [*ZOO, *UNSEEN], ids=lambda path: path.stem)
def test_every_recurrence_in_memory_full_of_nan(path: Path) -> None:
    program = spec(path.read_text(), path.name)
    if not scans(program, 5, 3):
        pytest.skip("a scan cannot run it")
    sizes = small(program)
    given = arguments(program, sizes, steps=3, heads=1, seed=3)
    with memory_full_of(math.nan) as seen:
        found = run(program, sizes, given, "scan", options=KernelOptions(chunk=2))
    assert len(seen) > 3
    assert not wrong(program, sizes, given, found, true(program, sizes, given))


@pytest.mark.parametrize("name", ["many", "mamba", "two_by_two"])
def test_tiles_write_all_that_is_allocated(name: str) -> None:
    program = SPECS[name]
    sizes = sizes_of(program, 3, 5) if name == "many" else small(program)
    axis = "V" if name == "many" else "D"
    options = KernelOptions(chunk=BLOCK, tiles=((axis, 2),))
    given = arguments(program, sizes, steps=5, heads=1)
    if name == "two_by_two":
        options = OPTIONS  # an output sums over D
    with memory_full_of(math.nan):
        found = run(program, sizes, given, "scan", options=options)
    assert not wrong(program, sizes, given, found, true(program, sizes, given))


# ---------------------------------------------------------------- properties


def forward(
    program: Program, given: Arguments, first: int = 0, last: int | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Outputs and final states of some of the steps, from the given start states."""
    inputs = {name: x.detach()[:, first:last] for name, x in given.inputs.items()}
    steps = len(range(given.steps)[first:last])
    with torch.no_grad():
        outputs, final = runner("scan", OPTIONS)(
            program, small(program), inputs, given.params, given.initial, steps=steps
        )
    return outputs, {s.name: x for s, x in zip(program.states, final, strict=True)}


@pytest.mark.parametrize("name", SPECS)
def test_two_runs_have_the_same_bits(name: str) -> None:
    program = SPECS[name]
    given = arguments(program, small(program), steps=6, grouped=True)
    first, second = (run(program, small(program), given, "scan", options=OPTIONS) for _ in range(2))
    for key, q in first.items():
        assert torch.equal(q.value, second[key].value), key


@pytest.mark.parametrize("prefix", [2, BLOCK, 5])
@pytest.mark.parametrize("name", SPECS)
def test_the_future_changes_nothing(name: str, prefix: int) -> None:
    program = SPECS[name]
    given = arguments(program, small(program), steps=7, heads=1)

    def otherwise(x: Tensor) -> Tensor:
        return torch.cat([x[:, :prefix], x[:, prefix:] * -7 + 1], 1)

    whole, _ = forward(program, given)
    short, _ = forward(program, given, last=prefix)
    other, _ = forward(program, changed(given, **dict.fromkeys(given.inputs, otherwise)))
    for a, b, c in zip(whole, short, other, strict=True):
        assert torch.equal(a[:, :prefix], b) and torch.equal(a[:, :prefix], c[:, :prefix])
        assert not torch.equal(a[:, prefix:], c[:, prefix:])


@pytest.mark.parametrize("cut", [0, 1, BLOCK, 6])
@pytest.mark.parametrize("name", SPECS)
def test_two_parts_make_the_whole(name: str, cut: int) -> None:
    """To the last bit where the cut is one of blocks, within rounding elsewhere."""
    program = SPECS[name]
    given = arguments(program, small(program), steps=7, heads=1)
    whole, end = forward(program, given)
    left, middle = forward(program, given, last=cut)
    right, last = forward(program, changed(given, **middle), first=cut)
    tolerance = {"rtol": 0.0, "atol": 0.0} if cut % BLOCK == 0 else {"rtol": 1e-5, "atol": 1e-5}
    for a, b, c in zip(whole, left, right, strict=True):
        torch.testing.assert_close(a, torch.cat([b, c], 1), **tolerance)
    for state, value in end.items():
        torch.testing.assert_close(value, last[state], **tolerance)


@pytest.mark.parametrize("name", SPECS)
def test_gradients_do_not_change_what_is_computed(name: str) -> None:
    program = SPECS[name]
    given = arguments(program, small(program), steps=6, heads=1)
    outputs, final = forward(program, given)
    found = run(program, small(program), given, "scan", options=OPTIONS)
    for output, value in zip(program.outputs, outputs, strict=True):
        assert torch.equal(found[output.name].value, value)
    for state, value in final.items():
        assert torch.equal(found[f"final {state}"].value, value)


@pytest.mark.slow_scans
@pytest.mark.parametrize("name", ["hgrn", "many"])
def test_scans_step_by_step(name: str) -> None:
    """Triton's own interpreted scan, which combines one row after the other, and its own flip."""
    program = SPECS[name]
    sizes = sizes_of(program, 2, 2)
    check(program, sizes, arguments(program, sizes, steps=5, heads=1), "scan", options=OPTIONS)


def test_half_precision_inputs() -> None:
    """Outputs and gradients are in the inputs' dtype, states in float32."""
    program, sizes = SPECS["hgrn"], {"D": 3}
    given = arguments(program, sizes, steps=5).to(torch.float16, ())
    wide = given.to(torch.float64, ())
    outputs, final = runner("scan", OPTIONS)(program, sizes, given.inputs, given.params, given.initial, steps=5)
    expected, end = reference.run(program, sizes, wide.inputs, wide.params, wide.initial, steps=5)
    assert outputs[0].dtype == torch.float16 and final[0].dtype == torch.float32
    torch.testing.assert_close(outputs[0].double(), expected[0], rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(final[0].double(), end[0], rtol=1e-4, atol=1e-5)
    slopes = torch.autograd.grad(outputs[0].float().sum(), list(given.inputs.values()))
    right = torch.autograd.grad(expected[0].sum(), list(wide.inputs.values()))
    for slope, true_slope in zip(slopes, right, strict=True):
        assert slope.dtype == torch.float16
        torch.testing.assert_close(slope.double(), true_slope, rtol=4e-3, atol=4e-3)


def test_called_by_name() -> None:
    """A user names the strategy; one that cannot run a recurrence says why."""
    zoo_folder = Path(__file__).parents[3] / "examples" / "zoo"
    hgrn, gru = (recurra.load(zoo_folder / f"{name}.rec") for name in ("hgrn", "gru"))
    i, f = torch.randn(2, 1, 9, 2, 4, generator=torch.Generator().manual_seed(0))
    given = {"i": i, "f": f}
    found = hgrn(**given, backend="triton", strategy="scan")
    torch.testing.assert_close(found, hgrn(**given, backend="reference"), rtol=1e-5, atol=1e-6)
    inputs = {name: torch.zeros(1, 3, 1, 4) for name in ("xr", "xz", "xn")}
    weights = {name: torch.zeros(1, 4, 4) for name in ("Ur", "Uz", "Un")} | {"bn": torch.zeros(1, 4)}
    with pytest.raises(ValueError, match="strategy 'scan' does not apply: entries of `h` mix along D"):
        gru(**inputs, **weights, backend="triton", strategy="scan")
