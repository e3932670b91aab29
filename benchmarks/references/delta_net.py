"""DeltaNet in plain PyTorch: step by step, and in chunks by the WY representation.

All take q, k ``[B, T, H, K]``, v ``[B, T, H, V]`` and beta ``[B, T, H]``, and give ``[B, T, H, V]``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def loop(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """One step after the other, each as three batched products."""
    batch, _, heads, width = v.shape
    key, query = l2norm(k), l2norm(q) * q.shape[-1] ** -0.5
    rows = zip(
        steps_of(key).unsqueeze(2).unbind(),
        steps_of(key * beta.unsqueeze(-1)).unsqueeze(3).unbind(),
        steps_of(v).unsqueeze(2).unbind(),
        steps_of(query).unsqueeze(2).unbind(),
        strict=True,
    )
    state = v.new_zeros(batch * heads, k.shape[-1], width)
    outputs = []
    for reads, writes, value, asks in rows:
        change = torch.baddbmm(value, reads, state, alpha=-1)  # v - k S
        state = torch.baddbmm(state, writes, change)  # S + beta k^T (v - k S)
        outputs.append(torch.bmm(asks, state))
    return torch.stack(outputs).view(-1, batch, heads, width).transpose(0, 1)


def loop_on_heads(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """One step after the other, as the formula reads."""
    key, query = l2norm(k), l2norm(q) * q.shape[-1] ** -0.5
    state = v.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1])
    outputs = []
    for kt, qt, vt, bt in zip(key.unbind(1), query.unbind(1), v.unbind(1), beta[..., None].unbind(1), strict=True):
        change = bt * (vt - (kt.unsqueeze(-2) @ state).squeeze(-2))
        state = state + kt.unsqueeze(-1) * change.unsqueeze(-2)
        outputs.append((qt.unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(outputs, 1)


def chunked(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, chunk: int = 64, squaring: bool = False) -> Tensor:
    """Chunks of steps as matrix products (Yang et al. 2024, section 3.2); ``chunk`` divides the number of steps.

    The triangular system of a chunk is solved by substitution, or by ``squaring`` its nilpotent part.
    """
    key, query = l2norm(k), l2norm(q) * q.shape[-1] ** -0.5
    query, key, value, strength = (cut(x, chunk) for x in (query, key, v, beta.unsqueeze(-1)))
    write, value = key * strength, value * strength
    lower = torch.tril(write @ key.mT, -1)
    if squaring:
        inverse = inverse_by_squaring(lower)
        erase, new = inverse @ write, inverse @ value
    else:
        both = torch.linalg.solve_triangular(lower, torch.cat([write, value], -1), upper=False, unitriangular=True)
        erase, new = both.split([key.shape[-1], value.shape[-1]], -1)
    seen = torch.tril(query @ key.mT)
    state = v.new_zeros(v.shape[0], v.shape[2], key.shape[-1], value.shape[-1])
    outputs = []
    columns = (x.unbind(2) for x in (query, key.mT, erase, new, seen))
    for asks, keys, erases, news, sees in zip(*columns, strict=True):
        change = news - erases @ state
        outputs.append(asks @ state + sees @ change)
        state = state + keys @ change
    return torch.stack(outputs, 2).flatten(2, 3).transpose(1, 2)


def inverse_by_squaring(lower: Tensor) -> Tensor:
    """The inverse of ``1 + lower`` for a strictly lower triangle: the product of ``1 + (-lower)^(2^j)``."""
    side, power = lower.shape[-1], -lower
    inverse = torch.eye(side, dtype=lower.dtype) + power
    for _ in range(1, (side - 1).bit_length()):
        power = power @ power
        inverse = inverse + inverse @ power
    return inverse


def cut(x: Tensor, chunk: int) -> Tensor:
    """``[B, T, H, *]`` as ``[B, H, chunks, chunk, *]``."""
    return x.transpose(1, 2).contiguous().unflatten(2, (-1, chunk))


def steps_of(x: Tensor) -> Tensor:
    """``[B, T, H, *]`` as ``[T, B * H, *]``."""
    return x.transpose(0, 1).flatten(1, 2)


def l2norm(x: Tensor) -> Tensor:
    """Vectors of length one."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
