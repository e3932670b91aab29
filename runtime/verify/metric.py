"""How far two tensors are apart, and how far they may be."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["output", "gradient", "gate"]

CHUNK = 64
RELATIVE_FLOOR = 1e-2
ABSOLUTE_FLOOR = 1e-3

EXACT = 1e-12
"""What float64 may differ from exact numbers."""

TOLERANCES: dict[torch.dtype, dict[Kind, float]] = {
    torch.float64: {"output": 1e-11, "gradient": 1e-11, "gate": 1e-11},
    torch.float32: {"output": 1e-5, "gradient": 1e-4, "gate": 1e-4},
    torch.float16: {"output": 2e-3, "gradient": 4e-3, "gate": 1e-2},
    torch.bfloat16: {"output": 5e-3, "gradient": 8e-3, "gate": 2e-2},
}
"""By the inputs' dtype: outputs and final states, gradients, and gradients of what steers gates."""


def distance(found: Tensor, reference: Tensor, lead: int, time: int | None = None) -> float:
    """The largest ``rms(error of a row) / (rms(reference's row) + floor)``.

    A row is what shares a sequence, a chunk and a head: the entries at one index of the first ``lead``
    dimensions, of which ``time`` (if any) is taken in chunks of 64, so that one bad chunk cannot hide.
    The floor is a hundredth of the whole reference's rms, so that rows which nearly cancel are held to
    what arithmetic can give, plus 1e-3, as data are of order one and a zero has no digits. NaN on
    either side and an infinity that the other side has not are infinitely far.
    """
    if found.shape != reference.shape:
        return math.inf
    found, reference = found.detach().double().cpu(), reference.detach().double().cpu()
    same = found == reference  # also of infinities
    error = torch.where(same, 0.0, found - reference)
    reference = torch.where(same & reference.isinf(), 0.0, reference)
    if not (error.isfinite().all() and reference.isfinite().all()):
        return math.inf
    if not reference.numel():
        return 0.0
    floor = RELATIVE_FLOOR * reference.square().mean().sqrt() + ABSOLUTE_FLOOR
    ratio = _rms(error, lead, time) / (_rms(reference, lead, time) + floor)
    return float(ratio.max())


def _rms(x: Tensor, lead: int, time: int | None) -> Tensor:
    """The root mean square of every row."""
    square = x.square().reshape(*x.shape[:lead], -1).mean(-1)
    if time is None:
        return square.sqrt()
    return torch.cat([part.mean(time, keepdim=True) for part in square.split(CHUNK, time)], time).sqrt()
