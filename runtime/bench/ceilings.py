"""What the machine can do at most, measured: bytes copied and operations of matrix products, per second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import torch

COPIED = 2**28
"""Bytes of the buffer that is copied: more than most caches hold."""

MATRICES = (512, 1024, 2048)
"""Sides of the square matrices that are multiplied."""


@dataclass(frozen=True)
class Ceilings:
    """Bytes per second that a copy reads and writes, and operations per second of a matrix product (in float32 unless
    another type was asked for)."""

    bytes_per_second: float
    operations_per_second: float

    def or_better(self, other: Ceilings) -> Ceilings:
        """The higher of each: what else the machine did can only have lowered them."""
        return Ceilings(
            max(self.bytes_per_second, other.bytes_per_second),
            max(self.operations_per_second, other.operations_per_second),
        )

    def as_data(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"copies {self.bytes_per_second / 1e9:.1f} GB/s, "
            f"float32 products {self.operations_per_second / 1e9:.0f} GFLOP/s"
        )


def measure_ceilings(
    device: torch.device,
    copied: int = COPIED,
    repeats: int = 8,
    sides: Sequence[int] = MATRICES,
    dtype: torch.dtype = torch.float32,
) -> Ceilings:
    """The best of several copies into a buffer that has been touched, and of several ``torch.mm`` in ``dtype``.

    Runs with as many threads as torch does; takes about a second.
    """
    wait = synchroniser(device)
    source = torch.ones(copied // 4, device=device)
    target = torch.zeros_like(source)
    seconds = _least(lambda: target.copy_(source), repeats, wait)
    rates = []
    for side in sides:
        left, right = torch.rand(2, side, side, device=device).to(dtype)
        product = torch.empty_like(left)

        def multiply() -> object:
            return torch.mm(left, right, out=product)  # noqa: B023

        rates.append(2 * side**3 / _least(multiply, repeats, wait))
    return Ceilings(2 * copied / seconds, max(rates))


def synchroniser(device: torch.device) -> Callable[[], None]:
    """What waits until a device has finished; nothing on a CPU."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def _least(work: Callable[[], object], repeats: int, wait: Callable[[], None]) -> float:
    taken = []
    for _ in range(repeats + 1):
        start = perf_counter()
        work()
        wait()
        taken.append(perf_counter() - start)
    return min(taken[1:])
