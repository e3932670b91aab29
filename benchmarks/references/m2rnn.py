"""M2RNN in plain PyTorch, step by step.

Takes q, k ``[B, T, H, K]``, v ``[B, T, H, V]``, x ``[B, T, H]``, W ``[H, V, V]``, A_log and dt_bias ``[H]``, and gives
``[B, T, H, V]``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def loop(q: Tensor, k: Tensor, v: Tensor, x: Tensor, W: Tensor, A_log: Tensor, dt_bias: Tensor) -> Tensor:
    """One step after the other; sequences are rows of one product per head, so that W is read once for all."""
    batch, steps, heads, width = v.shape
    forget = torch.exp(-torch.exp(A_log) * softplus(x + dt_bias))
    rows = zip(
        by_head(q).unsqueeze(2).unbind(),
        by_head(k).unsqueeze(3).unbind(),
        by_head(v).unsqueeze(2).unbind(),
        by_head(forget)[..., None, None].unbind(),
        strict=True,
    )
    state = v.new_zeros(heads * batch, k.shape[-1], width)
    outputs = []
    for asks, key, value, keep in rows:
        moved = torch.bmm(state.view(heads, -1, width), W).view_as(state)
        state = torch.lerp(torch.tanh(torch.baddbmm(moved, key, value)), state, keep)
        outputs.append(torch.bmm(asks, state))
    return torch.stack(outputs).view(steps, heads, batch, width).permute(2, 0, 1, 3)


def by_head(x: Tensor) -> Tensor:
    """``[B, T, H, *]`` as ``[T, H * B, *]``."""
    return x.movedim(0, 2).flatten(1, 2)
