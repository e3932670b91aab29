"""Several ways to do the same work, forward and forward + backward, timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..verify.metric import distance
from .ceilings import synchroniser
from .timing import Samples, interleaved

Direction = Literal["forward", "forward + backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "forward + backward")
Key = tuple[str, Direction]


@dataclass(frozen=True)
class Contender:
    """One way to do the work: ``run()`` gives its outputs, ``leaves`` are what gradients are asked for."""

    name: str
    run: Callable[[], tuple[Tensor, ...]]
    leaves: tuple[Tensor, ...]


def timed(
    contenders: Sequence[Contender],
    cotangents: Sequence[Tensor],
    repeats: int,
    *,
    directions: Sequence[Direction] = DIRECTIONS,
    before: Callable[[Key], None] = lambda key: None,
) -> dict[Key, Samples]:
    """Samples of every contender, forward without gradients and forward + backward, interleaved.

    The gradients are those of all outputs with ``cotangents``, by all leaves; they are made and dropped.
    """
    jobs: dict[Key, Callable[[], object]] = {}
    for contender in contenders:
        for direction in directions:
            jobs[contender.name, direction] = _job(contender, cotangents, direction)
    device = cotangents[0].device
    return interleaved(jobs, repeats, synchronise=synchroniser(device), before=before)


def _job(contender: Contender, cotangents: Sequence[Tensor], direction: Direction) -> Callable[[], object]:
    def forward() -> object:
        with torch.no_grad():
            return contender.run()

    return forward if direction == "forward" else lambda: gradients(contender, cotangents)


def gradients(contender: Contender, cotangents: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of one run by its leaves; None where there is none."""
    pairs = [(o, w) for o, w in zip(contender.run(), cotangents, strict=True) if o.requires_grad]
    outputs, weights = [o for o, _ in pairs], [w for _, w in pairs]
    return torch.autograd.grad(outputs, contender.leaves, weights, allow_unused=True)


def differences(contenders: Sequence[Contender]) -> dict[str, float]:
    """How far the outputs ``[B, T, H, ...]`` of each are from those of the first, relative to their size.

    Infinite where shapes differ or there is a NaN (see :func:`recurra.runtime.verify.metric.distance`).
    """
    with torch.no_grad():
        first = contenders[0].run()
        found = {}
        for contender in contenders:
            outputs = contender.run()
            same = len(outputs) == len(first)
            pairs = zip(outputs, first, strict=False)
            found[contender.name] = max(distance(o, f, 3, 1) for o, f in pairs) if same else float("inf")
    return found


def ratios(samples: Mapping[Key, Samples], subject: str) -> dict[Key, float]:
    """Every median over the subject's in the same direction: how many times as long it takes."""
    return {key: taken.median / samples[subject, key[1]].median for key, taken in samples.items()}
