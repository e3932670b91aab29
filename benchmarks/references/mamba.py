"""Mamba's selective scan in plain PyTorch, step by step.

Takes x, dt ``[B, T, H, D]``, B, C ``[B, T, H, N]``, A_log ``[H, D, N]``, dt_bias and D_skip ``[H, D]``, and gives
``[B, T, H, D]``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def loop(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A_log: Tensor, dt_bias: Tensor, D_skip: Tensor) -> Tensor:
    """One step after the other, with the decay computed where it is used."""
    step = softplus(dt + dt_bias)
    rate = -torch.exp(A_log)
    rows = zip(
        step.unsqueeze(-1).unbind(1),
        (step * x).unsqueeze(-1).unbind(1),
        B.unsqueeze(-2).unbind(1),
        C.unsqueeze(-1).unbind(1),
        strict=True,
    )
    h, outputs = x.new_zeros(x.shape[0], *A_log.shape), []
    for size, write, key, reads in rows:
        h = torch.addcmul(torch.exp(size * rate) * h, write, key)
        outputs.append((h @ reads).squeeze(-1))
    return torch.stack(outputs, 1) + D_skip * x


def loop_on_decays(
    x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A_log: Tensor, dt_bias: Tensor, D_skip: Tensor
) -> Tensor:
    """The same with decays and writes of all steps computed at once, as the paper's reference does it."""
    step = softplus(dt + dt_bias).unsqueeze(-1)
    decays = torch.exp(-torch.exp(A_log) * step)
    writes = step * x.unsqueeze(-1) * B.unsqueeze(-2)
    h, outputs = torch.zeros_like(decays[:, 0]), []
    for decay, write, reads in zip(decays.unbind(1), writes.unbind(1), C.unsqueeze(-1).unbind(1), strict=True):
        h = torch.addcmul(write, decay, h)
        outputs.append((h @ reads).squeeze(-1))
    return torch.stack(outputs, 1) + D_skip * x
