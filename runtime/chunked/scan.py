"""``h_t = a_t h_(t-1) + c_t`` for all t at once, and the same with other operations than product and sum.

The steps are cut into blocks of C. All blocks at once take C steps one after another, which gives each block's states
from a start of nothing and what its coefficients come to; then the state goes from block to block and reaches
every step of it. No step is taken twice, and C + T / C of them follow one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Two = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Algebra:
    """What coefficients do to a state, how two of them in a row are one, and how states are joined."""

    act: Two
    compose: Two
    join: Two


AFFINE = Algebra(torch.mul, torch.mul, torch.add)
"""One state, scaled entry by entry."""

COUPLED = Algebra(
    act=lambda a, h: (a * h.unsqueeze(-2)).sum(-1),
    compose=lambda later, earlier: (later.unsqueeze(-1) * earlier.unsqueeze(-3)).sum(-2),
    join=torch.add,
)
"""States ``[..., s]`` that read each other, coefficients ``[..., s, s]``."""

MAX = Algebra(torch.add, torch.add, torch.maximum)
MIN = Algebra(torch.add, torch.add, torch.minimum)


def scan(algebra: Algebra, coefficients: Tensor, constants: Tensor, start: Tensor, size: int) -> Tensor:
    """The state after every step, ``[B, T, ...]``, from ``start`` ``[B, ...]``, in blocks of ``size`` steps.

    Coefficients and constants are ``[B, T, ...]``.
    """
    steps = constants.shape[1]
    own: list[Tensor] = []  # each block's states, had nothing been there before: [B, N, ...]
    reach: list[Tensor] = []  # what becomes of what had been there
    for a, c in zip(_by_step(coefficients, size), _by_step(constants, size), strict=True):
        own.append(algebra.join(algebra.act(a, own[-1]), c) if own else c)
        reach.append(algebra.compose(a, reach[-1]) if reach else a)
    state, entering = start, []
    for a, c in zip(reach[-1].unbind(1), own[-1].unbind(1), strict=True):
        entering.append(state)
        state = algebra.join(algebra.act(a, state), c)
    before = torch.stack(entering, 1)
    states = [algebra.join(algebra.act(a, before), c) for a, c in zip(reach, own, strict=True)]
    return torch.stack(states, 2).flatten(1, 2)[:, :steps]


def _by_step(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """``[B, T, ...]`` as ``size`` tensors ``[B, N, ...]``: the steps with one place in their blocks."""
    blocks = max(1, -(-values.shape[1] // size))
    missing = blocks * size - values.shape[1]
    padded = F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing)) if missing else values
    return padded.unflatten(1, (blocks, size)).unbind(2)
