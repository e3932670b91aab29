"""How steps can be walked, by name: the strategies, and the schedules of the one that has two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.options import KernelOptions, Options

ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"
WAYS = {
    "fused": ("chunk", "fused"),
    "split": ("chunk", "split"),
    "scan": ("scan", "auto"),
    "recurrent": ("recurrent", "auto"),
}
"""Strategy and schedule."""


def zoo() -> list[str]:
    """The names of all recurrences of the zoo."""
    return sorted(path.stem for path in ZOO.glob("*.rec"))


def applicable(program: Program, sizes: Mapping[str, int]) -> list[str]:
    """The ways that a recurrence can go at bound sizes; where the compiler fails, all: each then says so itself."""
    try:
        verdicts = compile_kernels(program, sizes, KernelOptions()).verdicts
    except Exception:
        return list(WAYS)
    strategies = {verdict.strategy for verdict in verdicts if verdict.applies}
    return [way for way, (strategy, _) in WAYS.items() if strategy in strategies]


def refusal(program: Program, sizes: Mapping[str, int], way: str) -> str | None:
    """Why a recurrence cannot go one way at bound sizes, or None."""
    try:
        compile_kernels(program, sizes, KernelOptions(), WAYS[way][0])
    except ValueError as error:
        return str(error)
    return None


def runner(way: str) -> Callable[..., Any]:
    """What runs a recurrence on Triton's kernels one way, with the arguments of :func:`runtime.reference.run`."""
    from recurra.runtime.ops import triton_backend

    strategy, schedule = WAYS[way]

    def run(program: Program, sizes: Any, inputs: Any, params: Any, initial: Any, **lengths: Any) -> Any:
        options = replace(triton_backend.kernel_options(Options(), inputs), schedule=schedule)
        return triton_backend.run(
            program, sizes, inputs, params, initial, strategy=strategy, options=options, **lengths
        )

    return run
