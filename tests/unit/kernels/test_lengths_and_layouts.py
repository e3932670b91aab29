"""Lengths, sizes, strides, groups, directions and start states against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from unit.kernels.against_reference import WAYS, arguments, changed, check, only, runner, sizes_of, spec, zoo

from recurra.compiler.ir.program import Program
from recurra.compiler.options import KernelOptions
from recurra.runtime import reference
from recurra.runtime.ops import launch
from recurra.runtime.verify.data import Arguments

CHUNK = 3
OPTIONS = KernelOptions(chunk=CHUNK)

TWO = """recurrence two
dims K, V
state S[K, V], n[K], m
input q[K], k[K], v[V], g
param A, W[V, V]
let f = exp(-exp(A) * softplus(g))
transition m' = max(m + 0.1 * g, g)
transition S' = f * S + outer(k, v)
transition n' = f * n + k
output o[V] = q @ S' / (1 + abs(m'))
output s = q @ n' + m
output S_out[K, V] = S @ W
"""
"""States of three shapes that read each other; a vector, a scalar and a matrix put out."""


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("steps", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1])
def test_lengths(steps: int, strategy: str) -> None:
    program = spec(TWO)
    sizes = sizes_of(program, 5, 3)
    check(program, sizes, arguments(program, sizes, steps=steps, heads=1), strategy, options=OPTIONS)


@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize("strategy", WAYS)
def test_batches(batch: int, strategy: str) -> None:
    program = spec(TWO)
    sizes = sizes_of(program, 5, 3)
    check(program, sizes, arguments(program, sizes, batch=batch, steps=2, heads=1), strategy, options=OPTIONS)


@pytest.mark.parametrize("segment", [1, CHUNK, 2 * CHUNK])
@pytest.mark.parametrize("name", ["gated_delta_net", "lstm"])
def test_segments(name: str, segment: int) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 5, 3)
    given = arguments(program, sizes, steps=8, heads=1)
    check(program, sizes, given, options=OPTIONS, segment=segment, reverse=segment == CHUNK)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (20, 1), (60, 20), (17, 33)])
@pytest.mark.parametrize("name", ["gated_delta_net", "m2rnn"])
def test_sizes(name: str, shape: tuple[int, int], strategy: str) -> None:
    program = zoo(name)
    least = 2 if name == "gated_delta_net" else 1  # a norm of one number has no gradient but rounding
    sizes = sizes_of(program, *(max(least, size) for size in shape))
    check(program, sizes, arguments(program, sizes, steps=2, heads=1), strategy, options=OPTIONS)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize("name", ["elman", "gru", "lstm"])
def test_sequences_that_share_a_program(name: str, batch: int, strategy: str) -> None:
    program = zoo(name)
    size = {1: 1, 3: 20, 17: 16}[batch]
    check(
        program,
        {"D": size},
        arguments(program, {"D": size}, batch=batch, steps=2, heads=2 if batch == 3 else 1),
        strategy,
    )


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("heads", [1, 3, 4])
def test_grouped_heads(heads: int, strategy: str) -> None:
    """Every input has fewer heads than the state in its own way; gradients are sums over the group."""
    program = zoo("gated_delta_net")
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, steps=2, heads=heads)
    half = heads // 2 if heads % 2 == 0 else 1
    grouped = changed(given, q=lambda x: x[:, :, :1], k=lambda x: x[:, :, :half], a=lambda x: x[:, :, :1])
    check(program, sizes, grouped, strategy, options=OPTIONS)


def odd_strides(x: Tensor, kind: str) -> Tensor:
    """The same numbers in a tensor that lies otherwise in memory."""
    match kind:
        case "transposed":
            return x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
        case "gaps":
            return torch.stack([x, x + 1, x + 2], -1)[..., 0]
        case "last axis outermost":
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        case "shared over time":
            return x[:, :1].expand_as(x) if x.dim() > 1 else x
        case "one number":
            return x.flatten()[0].expand_as(x)
    raise AssertionError(kind)


KINDS = ["transposed", "gaps", "last axis outermost", "shared over time", "one number"]


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_strides(kind: str, strategy: str) -> None:
    """Some inputs, params and start states are strided, the others contiguous."""
    program = spec(TWO)
    sizes = sizes_of(program, 5, 3)
    given = arguments(program, sizes, batch=2, steps=2)
    strided = changed(given, **{name: lambda x: odd_strides(x, kind) for name in ("q", "v", "g", "W", "A", "S", "m")})
    check(program, sizes, strided, strategy)


def test_entries_that_lie_far_apart_are_brought_together() -> None:
    far = torch.empty_strided((1, 4, 1, 3), (1, 1, 1, 1 << 30), device="meta")
    assert launch.near(far).is_contiguous()
    close = torch.empty_strided((1, 4, 1, 3), (1 << 40, 1 << 35, 1 << 33, 1 << 29), device="meta")
    assert launch.near(close) is close


@pytest.mark.parametrize("kind", KINDS[:3])
def test_strides_of_matrices_and_slices(kind: str) -> None:
    program = zoo("gated_delta_product")
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, steps=2)
    check(program, sizes, changed(given, **dict.fromkeys(given.inputs, lambda x: odd_strides(x, kind))))


@pytest.mark.parametrize("strategy", WAYS)
def test_incoming_gradients_that_are_not_contiguous(strategy: str) -> None:
    """A sum's gradient has stride 0, a transposed output's is transposed."""
    program = spec(TWO)
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, steps=2)
    found, expected = (
        _gradients_of_sums(program, sizes, given, backend) for backend in ("kernels " + strategy, "reference")
    )
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.double(), expected[name], rtol=1e-4, atol=1e-5)


def _gradients_of_sums(program: Program, sizes: dict[str, int], given: Arguments, which: str) -> dict[str, Tensor]:
    dtype = torch.float64 if which == "reference" else torch.float32
    groups = [
        {name: x.detach().to(dtype).requires_grad_() for name, x in group.items()}
        for group in (given.inputs, given.params, given.initial)
    ]
    if which == "reference":
        (o, s, out), final = reference.run(program, sizes, *groups, steps=given.steps)
    else:
        (o, s, out), final = runner(which.removeprefix("kernels "))(program, sizes, *groups, steps=given.steps)
    loss = o.sum() + s.expand(3, *s.shape).mean() + out.permute(4, 3, 2, 1, 0).flatten().cumsum(0).sum()
    loss = loss + sum(f.transpose(0, -1).pow(2).sum() for f in final)
    leaves = {name: x for group in groups for name, x in group.items()}
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("used", [("o",), ("S_out",), ("final S",), ("final m", "s"), ()])
def test_gradients_from_one_place_only(used: tuple[str, ...], strategy: str) -> None:
    program = spec(TWO)
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, steps=3, heads=1)
    weights = only(program, sizes, given, *used)
    check(program, sizes, given, strategy, options=OPTIONS, weights=weights)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_start_states_and_direction(start: bool, reverse: bool, strategy: str) -> None:
    program = spec(TWO)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=4, heads=1, start=start)
    check(program, sizes, given, strategy, options=OPTIONS, reverse=reverse)
