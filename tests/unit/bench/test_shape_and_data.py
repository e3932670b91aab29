"""Shapes from what the user gives, and arguments that keep a spec's promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import recurra
from recurra.runtime.bench.data import draw_arguments
from recurra.runtime.bench.shape import Shape, check_names, shape_of
from recurra.runtime.errors import CallError

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
CPU = torch.device("cpu")
DELTA = recurra.load(ZOO / "delta_net.rec")
PROMISES = """recurrence r
dims D
state h[D]
input a[D] in [0, 1], b[D] in (0, inf), c[D] in (-inf, -2), d[D] unit, e[D] in (-3, -1), x[D]
param W[D] init uniform(2, 3), F[D] frozen
transition h' = a * h + b + c + d + e + W * F * x
output o[D] = h'
"""


def test_defaults_and_what_is_given():
    assert shape_of(DELTA, {}) == Shape(2, 1024, 4, {"K": 64, "V": 64})
    shape = shape_of(DELTA, {"T": 9, "V": 16, "D": 3})
    assert shape == Shape(2, 9, 4, {"K": 64, "V": 16})
    assert str(shape) == "B=2 T=9 H=4 K=64 V=16" and shape.lead == (2, 9, 4)


def test_aliases_slices_and_no_inputs():
    aliased = recurra.load(
        "recurrence r\ndims D, E = D\nstate h[D, E]\ninput x[D]\ntransition h' = h\noutput o[D] = x\n"
    )
    assert shape_of(aliased, {"E": 5}).sizes == {"D": 5, "E": 5}
    doubled = recurra.load(
        "recurrence r\ndims M, N = 2 * M\nstate h[N]\ninput x[N]\ntransition h' = h\noutput o = h'[70]\n"
    )
    assert shape_of(doubled, {}).sizes == {"M": 64, "N": 128}
    assert shape_of(doubled, {"N": 72}).sizes == {"M": 36, "N": 72}
    with pytest.raises(CallError, match="N = 73 is not 2 times a whole M"):
        shape_of(doubled, {"N": 73})
    with pytest.raises(CallError, match="70"):
        shape_of(doubled, {"N": 8})
    sliced = recurra.load("recurrence r\ndims D\nstate h[D]\ninput x\ntransition h' = h + x\noutput o = h'[70]\n")
    assert shape_of(sliced, {}).sizes == {"D": 71}
    with pytest.raises(CallError, match="70"):
        shape_of(sliced, {"D": 8})
    alone = recurra.load("recurrence r\nstate h\nparam a\ntransition h' = h + a\noutput o = h'\n")
    assert shape_of(alone, {"B": 7, "T": 3}).lead == (1, 3, 4)


def test_mistakes_in_sizes():
    with pytest.raises(CallError, match="`T` must be a whole number >= 1"):
        shape_of(DELTA, {"T": 0})
    with pytest.raises(CallError, match="`K` must be a whole number >= 1"):
        shape_of(DELTA, {"K": -1})
    with pytest.raises(ValueError, match=r"no size k; did you mean K\?"):
        check_names(["B", "k"], [DELTA])
    with pytest.raises(ValueError, match="no size width; there are B, T, H, K, V"):
        check_names(["width"], [DELTA])
    check_names(["B", "D"], [DELTA, recurra.load(ZOO / "hgrn.rec")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_arguments_keep_promises(dtype):
    rec = recurra.load(PROMISES)
    shape = shape_of(rec, {"T": 50, "D": 9})
    arguments = draw_arguments(rec.program, shape, dtype, CPU)
    rec({**arguments.inputs, **arguments.params}, backend="reference", check=True)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert {x.dtype for x in arguments.inputs.values()} == {dtype}
    assert {x.dtype for x in arguments.params.values()} == {wide}
    assert all(x.requires_grad and x.is_leaf for x in arguments.inputs.values())
    assert arguments.params["W"].requires_grad and not arguments.params["F"].requires_grad
    assert arguments.params["W"].min() >= 2 and arguments.params["W"].max() <= 3
    assert arguments.inputs["a"].std() > 0.2 and arguments.inputs["x"].std() > 0.9
    assert arguments.steps == 50 and not arguments.initial


def test_arguments_are_the_same_for_the_same_seed():
    shape = shape_of(DELTA, {"T": 4})
    first, second, third = (draw_arguments(DELTA.program, shape, torch.float32, CPU, seed) for seed in (0, 0, 1))
    assert torch.equal(first.inputs["q"], second.inputs["q"])
    assert not torch.equal(first.inputs["q"], third.inputs["q"])
    assert not torch.equal(first.inputs["q"], first.inputs["k"])
