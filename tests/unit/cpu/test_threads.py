"""Native kernels on one thread and on two, and called from several threads of Python at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from unit.cpu.agreement import arguments, check, on_kernels
from unit.kernels.against_reference import sizes_of, spec, zoo

from recurra.compiler.ir.program import Program
from recurra.compiler.options import Options
from recurra.runtime.ops import cpu_backend
from recurra.runtime.verify.data import Arguments
from recurra.runtime.verify.measure import Quantity

Result = TypeVar("Result")

OPTIONS = {
    "gru": Options(checkpoint=4),
    "m2rnn": Options(checkpoint=4),
    "mamba": Options(checkpoint=4, tiles=(("D", 8),)),
}
"""Sequences that share a program, a matrix for each sequence, tiles that share gradients."""


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for torch, and so for kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def problem(name: str, seed: int = 0) -> tuple[Program, dict[str, int], Arguments]:
    """Five sequences of nine steps: shared out evenly over no number of threads."""
    program = zoo(name)
    sizes = sizes_of(program, 16, 5)
    return program, sizes, arguments(program, sizes, batch=5, steps=9, heads=1, seed=seed)


def measured(name: str, number: int, seed: int = 0) -> dict[str, Quantity]:
    with threads(number):
        return on_kernels(*problem(name, seed), torch.float32, options=OPTIONS[name])


def same_bits(found: Mapping[str, Quantity], expected: Mapping[str, Quantity]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.equal(q.value, expected[name].value) for name, q in found.items())


@pytest.mark.parametrize("name", OPTIONS)
def test_the_number_of_threads_does_not_show(name: str) -> None:
    """Bit for bit, except in gradients of params, whose sums over sequences are grouped by threads."""
    one, two = measured(name, 1), measured(name, 2)
    params = {f"d {param.name}" for param in zoo(name).params}
    assert params < one.keys()
    assert same_bits(*({key: q for key, q in run.items() if key not in params} for run in (one, two)))
    for key in params:
        torch.testing.assert_close(one[key].value, two[key].value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_two_runs_on_two_threads_have_the_same_bits(name: str) -> None:
    first = measured(name, 2)
    assert all(same_bits(measured(name, 2), first) for _ in range(5))


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of calls that all begin at the same time, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def begin(call: Callable[[], Result]) -> Result:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


@pytest.mark.parametrize("name", OPTIONS)
def test_calls_from_several_threads_do_not_disturb_each_other(name: str) -> None:
    program, sizes, _ = problem(name)

    def call(seed: int) -> dict[str, Quantity]:
        for _ in range(5):
            found = on_kernels(program, sizes, problem(name, seed)[2], torch.float32, options=OPTIONS[name])
        return found

    with threads(2):
        alone = [call(seed) for seed in range(4)]
        together = at_once([lambda seed=seed: call(seed) for seed in range(4)])  # type: ignore[misc]
    assert all(same_bits(found, expected) for found, expected in zip(together, alone, strict=True))


FIRST = """recurrence first
dims D
state h[D]
input x[D], g
param w[D]
transition h' = sigmoid(g) * h + w * x
output o[D] = tanh(h')
"""


def test_first_calls_from_several_threads_compile_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = cpu_backend.library.build

    def counting(*args: object, **named: object) -> Path:
        built.append(args)
        return build(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(cpu_backend.library, "build", counting)
    program = spec(FIRST)
    given = arguments(program, {"D": 5})
    first, *others = at_once([lambda: check(program, {"D": 5}, given, torch.float32)] * 3)
    assert len(built) == 1 and len(list(cache.glob("**/kernels.so"))) == 1
    assert all(same_bits(other, first) for other in others)


def test_two_recurrences_compile_at_once(cache: Path) -> None:
    texts = [FIRST.replace("tanh", function) for function in ("sin", "cos")]
    programs = [spec(text) for text in texts]
    given = [arguments(program, {"D": 5}) for program in programs]
    at_once([lambda n=n: check(programs[n], {"D": 5}, given[n], torch.float32) for n in range(2)])  # type: ignore[misc]
    assert len(list(cache.glob("**/kernels.so"))) == 2
