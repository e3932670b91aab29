"""Running decays and what is made of them, against the definition written out pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recurra.runtime.chunked.decay import Decay, gathered, products
from recurra.runtime.chunked.scan import AFFINE, COUPLED, MAX, MIN, Algebra, scan

C, X, P, K = 8, 2, 3, 4


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decays(kind: str) -> Decay | None:
    """A decay of every kind, with a step that forgets everything and one that keeps it."""
    if kind == "none":
        return None
    rows = -random(2, C, 1 if "scalar" in kind else K, seed=5).abs()
    rows[:, 3, 0], rows[:, 5] = -math.inf, 0.0
    if "log" in kind:
        return Decay(rows, True)
    return Decay(rows.exp() * random(2, C, rows.shape[-1], seed=6).sign(), False)


KINDS = ("none", "scalar log", "scalar value", "vector log", "vector value")


def left(decay: Decay | None, start: int, end: int) -> Tensor:
    """What rows from ``start`` to before ``end`` leave of one, ``[2, K or 1]``."""
    total = torch.ones(2, 1, dtype=torch.float64)
    for row in range(start, end):
        if decay is not None:
            total = total * (decay.rows[:, row].exp() if decay.logs else decay.rows[:, row])
    return total


@pytest.mark.parametrize("kind", KINDS[1:])
def test_running_products(kind: str) -> None:
    decay = decays(kind)
    assert decay is not None
    close = {"rtol": 1e-12, "atol": 0.0}
    for row in range(C):
        torch.testing.assert_close(decay.upto()[:, row], left(decay, 0, row + 1).expand_as(decay.rows[:, 0]), **close)
        torch.testing.assert_close(decay.before()[:, row], left(decay, 0, row).expand_as(decay.rows[:, 0]), **close)
        torch.testing.assert_close(decay.beyond()[:, row], left(decay, row + 1, C).expand_as(decay.rows[:, 0]), **close)
    torch.testing.assert_close(decay.whole(), left(decay, 0, C), **close)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_products_and_what_is_gathered(kind: str, strict: bool) -> None:
    decay = decays(kind)
    x, k, weights = random(2, C, X, K, seed=1), random(2, C, P, K, seed=2), random(2, C, C, P, seed=3)
    expected, sums = torch.zeros(2, C, X, C, P, dtype=torch.float64), torch.zeros(2, C, K, dtype=torch.float64)
    for i in range(C):
        for j in range(i if strict else i + 1):
            seen = left(decay, j + 1, i if strict else i + 1)[:, None]
            expected[:, i, :, j] = (x[:, i] * seen) @ k[:, j].mT
            sums[:, i] += (weights[:, i, j, :, None] * k[:, j] * seen).sum(1)
    found = products(x, k, decay, strict=strict)
    torch.testing.assert_close(found, expected.reshape(2, C * X, C * P), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gathered(weights, k, decay, strict=strict), sums, rtol=1e-12, atol=1e-14)


def test_a_chunk_of_one_row() -> None:
    x, k = random(1, X, K, seed=1), random(1, P, K, seed=2)
    decay = Decay(torch.full((1, K), -math.inf, dtype=torch.float64), True)
    torch.testing.assert_close(products(x, k, decay, strict=False), x[0] @ k[0].mT)
    assert not products(x, k, decay, strict=True).any()


@pytest.mark.parametrize("steps", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("algebra", [AFFINE, COUPLED, MAX, MIN])
def test_scans_are_loops(algebra: Algebra, steps: int) -> None:
    wide = algebra is COUPLED
    a = random(3, steps, 5, *((2, 2) if wide else ()), seed=1)
    c, start = (random(*shape, *((2,) if wide else ()), seed=2) for shape in ((3, steps, 5), (3, 5)))
    found = scan(algebra, a, c, start, 4)
    assert found.shape == c.shape
    state = start
    for step in range(steps):
        state = algebra.join(algebra.act(a[:, step], state), c[:, step])
        torch.testing.assert_close(found[:, step], state, rtol=1e-12, atol=1e-12)
