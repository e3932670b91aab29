"""Times of several pieces of work, taken in turns so that what else the machine does falls on all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from statistics import median
from time import perf_counter
from typing import TypeVar

Key = TypeVar("Key")


@dataclass(frozen=True)
class Samples:
    """Seconds of every repeat, in the order in which they were taken."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median in seconds, the mean of the middle two if their number is even."""
        return median(self.seconds)

    @property
    def minimum(self) -> float:
        """The least in seconds."""
        return min(self.seconds)


def interleaved(
    jobs: Mapping[Key, Callable[[], object]],
    repeats: int,
    *,
    clock: Callable[[], float] = perf_counter,
    synchronise: Callable[[], None] = lambda: None,
    before: Callable[[Key], None] = lambda key: None,
    seed: int = 0,
) -> dict[Key, Samples]:
    """Samples of every job: ``repeats`` rounds, each of which runs every job once, in a random order.

    Jobs run once beforehand, in the order given, so that nothing is compiled or loaded while it is timed.
    ``synchronise`` waits for a device and ends every sample; ``before`` is called with the key of a job
    each time before it runs. Garbage is collected between samples only.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be a whole number >= 1, not {repeats}")
    for key, job in jobs.items():
        before(key)
        job()
        synchronise()
    taken: dict[Key, list[float]] = {key: [] for key in jobs}
    with _without_collector():
        for key in _rounds(list(jobs), repeats, Random(seed)):
            before(key)
            gc.collect(0)
            start = clock()
            jobs[key]()
            synchronise()
            taken[key].append(clock() - start)
    return {key: Samples(tuple(seconds)) for key, seconds in taken.items()}


def _rounds(keys: Sequence[Key], repeats: int, chance: Random) -> Iterator[Key]:
    for _ in range(repeats):
        yield from chance.sample(keys, len(keys))


@contextmanager
def _without_collector() -> Iterator[None]:
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
