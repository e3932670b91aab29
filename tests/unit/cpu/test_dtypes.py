"""Native kernels in other dtypes than float32: accuracy, dtypes of results, hard values, exact conversions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from unit.cpu.agreement import arguments, check, on_kernels, on_reference
from unit.kernels.against_reference import changed, sizes_of, spec, zoo

from recurra.compiler.options import Options
from recurra.runtime.ops import cpu_backend

DTYPES = (torch.bfloat16, torch.float16, torch.float64)
HALVES = DTYPES[:2]
NAMES = ("delta_net", "gru", "mamba", "mlstm")

all_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
halves = pytest.mark.parametrize("dtype", HALVES, ids=str)


@all_dtypes
@pytest.mark.parametrize("name", NAMES)
def test_within_the_tolerances_of_the_dtype(name: str, dtype: torch.dtype) -> None:
    """Outputs, final states and all gradients, over several chunks; states and params stay in float32."""
    program = zoo(name)
    sizes = sizes_of(program, 16, 20)
    given = arguments(program, sizes, steps=65)
    found = check(program, sizes, given, dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    narrow = {o.name for o in program.outputs} | {f"d {i.name}" for i in program.inputs}
    for key, quantity in found.items():
        assert quantity.value.dtype == (dtype if key in narrow else wide), key


@halves
def test_params_in_the_dtype_of_inputs(dtype: torch.dtype) -> None:
    """They are widened, and their gradients rounded."""
    program, sizes = zoo("gru"), {"D": 16}
    given = arguments(program, sizes)
    rounded = changed(given, **{p.name: lambda x: x.to(dtype).double() for p in program.params})
    expected = on_kernels(program, sizes, rounded, dtype)
    leaves = rounded.to(dtype, ())
    params = {name: x.detach().to(dtype).requires_grad_() for name, x in leaves.params.items()}
    (o,), (h,) = cpu_backend.run(program, sizes, leaves.inputs, params, leaves.initial, steps=given.steps)
    assert torch.equal(o, expected["o"].value) and torch.equal(h, expected["final h"].value)
    for slope, param in zip(torch.autograd.grad(o.sum(), list(params.values())), params.values(), strict=True):
        assert slope.dtype == dtype and slope.shape == param.shape and slope.isfinite().all()


# ---------------------------------------------------------------- hard values

DECAY = """recurrence decay
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[K]
transition S' = diag(exp(g)) @ S + outer(k, v)
output o[V] = q @ S'
"""


@all_dtypes
def test_log_decays_from_zero_to_minus_infinity(dtype: torch.dtype) -> None:
    program = spec(DECAY)
    sizes = sizes_of(program, 5, 3)
    decays = torch.tensor([0.0, -1e-4, -0.6, -5.0, -20.0, -1000.0, -math.inf]).double()
    given = arguments(program, sizes, steps=7)
    order = torch.arange(given.inputs["g"].numel()).reshape(given.inputs["g"].shape) % len(decays)
    check(program, sizes, changed(given, g=decays[order]), dtype)
    check(program, sizes, changed(given, g=lambda g: torch.full_like(g, -math.inf)), dtype)


@all_dtypes
def test_inputs_near_zero(dtype: torch.dtype) -> None:
    """Multiples of the dtype's smallest number: what float32 (float64) has normal numbers for keeps its digits."""
    program = spec(DECAY)
    sizes = sizes_of(program, 5, 3)
    given = arguments(program, sizes, steps=7)
    finfo = torch.finfo(dtype)
    least = finfo.smallest_normal * finfo.eps

    def tiny(x: Tensor) -> Tensor:
        return (x * 8).round() * least

    small = changed(given, g=lambda g: -g.abs(), **dict.fromkeys(("v", "S"), tiny))
    found, expected = on_kernels(program, sizes, small, dtype), on_reference(program, sizes, small, dtype)
    lost = least if dtype == torch.float16 else finfo.smallest_normal
    for key in ("o", "final S", "d q", "d g"):
        assert (found[key].value.double() - expected[key].value).abs().max() <= 20 * lost, key
    assert expected["o"].value.abs().max() > 50 * least


@all_dtypes
@pytest.mark.parametrize("name", ["gru", "mlstm"])
def test_nan_stays_in_its_sequence(name: str, dtype: torch.dtype) -> None:
    """The other sequences have the same bits, and so have the steps before, whether or not programs share sequences."""
    program = zoo(name)
    sizes = sizes_of(program, 16, 20)
    given = arguments(program, sizes, batch=3, steps=5)
    at = 2

    def spoil(x: Tensor) -> Tensor:
        x = x.detach().clone()
        x[1, at] = math.nan
        return x

    good = on_kernels(program, sizes, given, dtype)
    spoilt = on_kernels(program, sizes, changed(given, **dict.fromkeys(given.inputs, spoil)), dtype)
    others = torch.tensor([0, 2])
    for key, q in good.items():
        if key.removeprefix("d ") not in given.params:
            assert torch.equal(q.value[others], spoilt[key].value[others]), key
    (output,) = (spoilt[o.name].value for o in program.outputs)
    (before,) = (good[o.name].value for o in program.outputs)
    assert torch.equal(output[1, :at], before[1, :at]) and output[1, at:].isnan().all()


# ---------------------------------------------------------------- conversions

SCALED = """recurrence scaled
dims D
state h[D]
input x[D]
param w
transition h' = w * x
output o[D] = h'
"""


def every_number(dtype: torch.dtype, size: int) -> Tensor:
    """All 65536 of them [16, 4096 / size, 1, size]."""
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(16, -1, 1, size)


@pytest.mark.parametrize("size", [16, 1])
@pytest.mark.parametrize("scale", [1.0, 1 + 2.0**-8, 1 + 2.0**-11, 0.75, 3.0, 2.0**-20, 2.0**12])
@halves
def test_every_number_is_read_and_rounded_as_torch_does(dtype: torch.dtype, scale: float, size: int) -> None:
    """Times a scale, by vectors and alone; scales make ties, infinities and numbers near zero.

    Arithmetic takes numbers below the normal ones of float32, which bfloat16 has too, for zero.
    """
    x, w = every_number(dtype, size), torch.tensor([scale])
    (found,), _ = cpu_backend.run(
        spec(SCALED), {"D": size}, {"x": x}, {"w": w}, {}, steps=x.shape[1], options=Options(checkpoint=64)
    )
    exact = x.float() * w
    normal = torch.finfo(torch.float32).smallest_normal
    exact = torch.where((exact.abs() < normal) | (x.float().abs() < normal), exact * 0, exact)
    expected = exact.to(dtype)
    assert torch.equal(found.isnan(), expected.isnan())
    known = ~expected.isnan()
    assert torch.equal(found[known].view(torch.int16), expected[known].view(torch.int16))
