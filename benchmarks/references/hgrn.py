"""HGRN in plain PyTorch: step by step, and in chunks.

All take i and f ``[B, T, H, D]`` and give ``[B, T, H, D]``; a chunk divides the number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def loop(i: Tensor, f: Tensor) -> Tensor:
    """One step after the other, each a single operation."""
    h, outputs = torch.zeros_like(i[:, 0]), []
    for now, keep in zip(i.unbind(1), torch.sigmoid(f).unbind(1), strict=True):
        h = torch.lerp(now, h, keep)
        outputs.append(h)
    return torch.stack(outputs, 1)


def two_passes(i: Tensor, f: Tensor, chunk: int = 16) -> Tensor:
    """All chunks side by side, twice: from zero to find what each hands on, then from what it is handed."""
    columns = (x.unflatten(1, (-1, chunk)).unbind(2) for x in (i, torch.sigmoid(f)))
    rows = list(zip(*columns, strict=True))
    end = torch.zeros_like(rows[0][0])
    decay = torch.ones_like(end)
    for now, keep in rows:
        end, decay = torch.lerp(now, end, keep), decay * keep
    h, outputs = _handed_on(end, decay), []
    for now, keep in rows:
        h = torch.lerp(now, h, keep)
        outputs.append(h)
    return torch.stack(outputs, 2).flatten(1, 2)


def in_log_space(i: Tensor, f: Tensor, chunk: int = 16) -> Tensor:
    """Sums inside of chunks as products with a triangle of ones, under the decay's logarithm.

    Gates that close (a chunk's decays below e^-88) overflow float32; those of the benchmark do not.
    """
    triangle = torch.ones(chunk, chunk, dtype=i.dtype).tril()
    decay = (triangle @ logsigmoid(f).flatten(2).unflatten(1, (-1, chunk))).exp()
    write = ((1 - torch.sigmoid(f)) * i).flatten(2).unflatten(1, (-1, chunk))
    inside = triangle @ (write / decay) * decay
    handed = _handed_on(inside[:, :, -1], decay[:, :, -1])
    return torch.addcmul(inside, decay, handed.unsqueeze(2)).flatten(1, 2).view_as(i)


def _handed_on(ends: Tensor, decays: Tensor) -> Tensor:
    """The state before each chunk, from every chunk's end and decay ``[B, chunks, ...]``."""
    carry, starts = torch.zeros_like(ends[:, 0]), []
    for end, decay in zip(ends.unbind(1), decays.unbind(1), strict=True):
        starts.append(carry)
        carry = torch.addcmul(end, decay, carry)
    return torch.stack(starts, 1)
