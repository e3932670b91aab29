"""Floors against numbers counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import recurra
from recurra.compiler.autodiff.reverse import adjoint_step
from recurra.compiler.ir.program import live
from recurra.runtime.bench.ceilings import Ceilings
from recurra.runtime.bench.floors import Floor, count, forward_floor, training_floor
from recurra.runtime.bench.shape import Shape

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
B, T, H, D, K, V = 2, 7, 3, 5, 6, 4
STEPS = B * T * H


def loaded(name: str) -> recurra.Recurrence:
    return recurra.load(ZOO / f"{name}.rec")


def test_hgrn():
    program, shape = loaded("hgrn").program, Shape(B, T, H, {"D": D})
    # Read i, f; write o and the last h. Then again i, f; read do; write di, df.
    forward = 4 * D * (3 * STEPS + B * H)
    # sigmoid (10), a h, 1 - a, (1 - a) i, +
    assert forward_floor(program, shape, torch.float32) == Floor(forward, 14 * D * STEPS)
    # dh + do; times i, 1 - a, h, a; minus, plus; a (1 - a) and its product
    assert training_floor(program, shape, torch.float32) == Floor(forward + 4 * D * 5 * STEPS, (14 + 9) * D * STEPS)


def test_bytes_of_delta_net():
    program, shape = loaded("delta_net").program, Shape(B, T, H, {"K": K, "V": V})
    entries, states = (2 * K + V + 1) * STEPS, K * V * B * H
    for dtype, size, wide in ((torch.float32, 4, 4), (torch.bfloat16, 2, 4), (torch.float64, 8, 8)):
        forward = size * (entries + V * STEPS) + wide * states
        assert forward_floor(program, shape, dtype).bytes == forward
        assert training_floor(program, shape, dtype).bytes == forward + size * (2 * entries + V * STEPS)


def test_operations_of_delta_net_as_written():
    program, shape = loaded("delta_net").program, Shape(B, T, H, {"K": K, "V": V})
    # Two norms (square, sum, + 1e-6, rsqrt, scale), k S, k (k S), * beta, S -, k v, * beta, +, scaled q, q S
    step = 10 * K * V + 7 * K + 4
    assert count(program.body, live(program.body, program.roots()), shape) == step * STEPS
    adjoint = adjoint_step(program)
    positions = [p for p in live(adjoint.body, adjoint.roots()) if p >= adjoint.own]
    # Six contractions over K and V, eleven operations on matrices, sixteen on vectors of K, eight on numbers
    assert count(adjoint.body, positions, shape) == (23 * K * V + 16 * K + 8) * STEPS


def test_products_in_the_cheapest_order():
    """k (beta v - beta k S) costs six operations per entry of the state, not ten."""
    program, shape = loaded("delta_net").program, Shape(B, T, H, {"K": 64, "V": 64})
    forward = forward_floor(program, shape, torch.float32).operations / STEPS
    assert 6 * 64 * 64 < forward < 6 * 64 * 64 + 20 * 64
    assert forward < training_floor(program, shape, torch.float32).operations / STEPS < 23 * 64 * 64


def test_what_reads_only_params_counts_once_per_head():
    program = recurra.load(
        "recurrence r\ndims D\nstate h[D]\ninput x[D]\nparam A[D]\ntransition h' = exp(A) * h + x\noutput o[D] = h'\n"
    ).program
    floor = forward_floor(program, Shape(B, T, H, {"D": D}), torch.float32)
    assert floor == Floor(4 * D * (2 * STEPS + H + B * H), 10 * D * H + 2 * D * STEPS)


def test_frozen_params_have_no_gradient():
    text = "recurrence r\nstate h\ninput x\nparam A{}\ntransition h' = A * h + x\noutput o = h'\n"
    learned, frozen = (recurra.load(text.format(word)).program for word in ("", " frozen"))
    shape = Shape(B, T, H, {})
    assert forward_floor(learned, shape, torch.float32) == forward_floor(frozen, shape, torch.float32)
    saved = training_floor(learned, shape, torch.float32).bytes - training_floor(frozen, shape, torch.float32).bytes
    assert saved == 4 * H


def test_contractions_and_outer_products():
    """2 per multiply-add of the whole iteration space, 1 where nothing is summed."""
    text = "recurrence r\ndims K, V\nstate S[K, V]\ninput k[K], v[V]\n"
    program = recurra.load(text + "transition S' = S + outer(k, v)\noutput o[V] = k @ S'\n").program
    floor = forward_floor(program, Shape(1, 1, 1, {"K": K, "V": V}), torch.float32)
    assert floor.operations == K * V + K * V + 2 * K * V


def test_seconds():
    assert Floor(100, 30).seconds(Ceilings(50.0, 10.0)) == pytest.approx((2.0, 3.0))
    assert Ceilings(5.0, 1.0).or_better(Ceilings(4.0, 2.0)) == Ceilings(5.0, 2.0)
