"""Times on a GPU: events around each run, caches flushed before it, and the same runs replayed from graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TypeVar

import torch

from .timing import Samples

Key = TypeVar("Key")

FLUSHED = 2**28
"""Bytes that are overwritten before each run: more than second-level caches hold."""


def interleaved_on_device(
    jobs: Mapping[Key, Callable[[], object]], repeats: int, device: torch.device, seed: int = 0
) -> dict[Key, Samples]:
    """Samples of every job as the device sees them: ``repeats`` rounds in random order, each after a flush.

    Jobs must have run before. The device is still flushing while a job's first kernel is launched, so that what is
    timed does not begin with the launch.
    """
    flushed = torch.empty(FLUSHED, dtype=torch.int8, device=device)
    chance = Random(seed)
    taken: dict[Key, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {key: [] for key in jobs}
    torch.cuda.synchronize(device)
    for _ in range(repeats):
        for key in chance.sample(list(jobs), len(jobs)):
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            flushed.zero_()
            events[0].record()
            jobs[key]()
            events[1].record()
            taken[key].append(events)
            torch.cuda.synchronize(device)  # results are freed, and no job waits behind another
    return {
        key: Samples(tuple(start.elapsed_time(end) / 1e3 for start, end in events)) for key, events in taken.items()
    }


def graphed(job: Callable[[], object]) -> Callable[[], object]:
    """A job as a CUDA graph that replays it; whatever capturing raises if it cannot be one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        job()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = job()

    def replay() -> object:
        graph.replay()
        return kept

    return replay
