"""Interleaving and medians, on a clock that the jobs move themselves."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from recurra.runtime.bench.timing import Samples, interleaved


class Clock:
    """A clock that only work moves; ``ran`` is what worked, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def job(self, name: str, *seconds: float):
        """Work that takes these seconds in turn, the last for ever."""
        left = list(seconds)

        def work() -> None:
            self.ran.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work

    def __call__(self) -> float:
        return self.now


def test_samples_are_what_the_clock_says_without_the_first_run():
    clock = Clock()
    jobs = {"a": clock.job("a", 100.0, 3.0, 1.0, 8.0, 2.0), "b": clock.job("b", 50.0, 5.0)}
    samples = interleaved(jobs, 4, clock=clock)
    assert samples["a"].seconds == pytest.approx((3.0, 1.0, 8.0, 2.0))
    assert samples["b"].seconds == pytest.approx((5.0,) * 4)
    assert list(samples) == ["a", "b"]


def test_every_round_runs_everything_once_in_changing_order():
    clock = Clock()
    names = "abcd"
    interleaved({name: clock.job(name, 1.0) for name in names}, 12, clock=clock)
    first, rounds = clock.ran[:4], [tuple(clock.ran[i : i + 4]) for i in range(4, 52, 4)]
    assert first == list(names)
    assert all(sorted(order) == list(names) for order in rounds) and len(rounds) == 12
    assert len(set(rounds)) > 4


def test_the_order_is_the_same_for_the_same_seed():
    orders = []
    for seed in (1, 1, 2):
        clock = Clock()
        interleaved({name: clock.job(name, 1.0) for name in "abcdef"}, 5, clock=clock, seed=seed)
        orders.append(clock.ran)
    assert orders[0] == orders[1] != orders[2]


def test_waiting_for_the_device_is_part_of_a_sample_and_announcing_is_not():
    clock = Clock()
    seen: Counter[str] = Counter()

    def wait() -> None:
        clock.now += 10.0

    def announce(name: str) -> None:
        seen[name] += 1
        clock.now += 1000.0

    samples = interleaved({"a": clock.job("a", 1.0)}, 3, clock=clock, synchronise=wait, before=announce)
    assert samples["a"].seconds == pytest.approx((11.0,) * 3)
    assert seen == {"a": 4}


def test_the_collector_rests_while_jobs_run_and_comes_back_after_a_mistake():
    states = []
    interleaved({"a": lambda: states.append(gc.isenabled())}, 2)
    assert states == [True, False, False] and gc.isenabled()
    runs = iter([None])
    with pytest.raises(StopIteration):
        interleaved({"a": lambda: next(runs)}, 1)
    assert gc.isenabled()


def test_medians_and_minima():
    assert Samples((3.0, 1.0, 2.0)).median == 2.0
    assert Samples((4.0, 1.0, 2.0, 3.0)).median == 2.5
    assert Samples((4.0, 1.0, 2.0)).minimum == 1.0
    with pytest.raises(ValueError, match="repeats"):
        interleaved({"a": lambda: None}, 0)
