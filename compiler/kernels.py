"""From a typed recurrence and bound sizes to generated kernels: the back half of the compiler on one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .autodiff.plan import plan
from .autodiff.reverse import AdjointStep, adjoint_step
from .codegen.module import Generated, cpp_module, triton_module
from .ir.program import Program
from .ir.verify import check_program
from .lower.factor import factor_adjoint, factor_program
from .lower.kernel_ir import Kernel
from .lower.native import Native, lower_native
from .lower.recurrent import Recurrent, lower_recurrent
from .lower.split import Split, split
from .lower.stepwise import Stepwise, cut_program, lower_stepwise
from .options import KernelOptions
from .strategies import recurrent, recurrent_cpu, stepwise
from .strategies.recurrent import NAME as RECURRENT
from .strategies.stepwise import NAME as STEPWISE
from .strategies.verdict import Verdict, choose

Backend = Literal["triton", "cpu"]
"""The backends that kernels are generated for."""

CHUNK = 16
"""Steps between checkpoints on a GPU, where nothing else is asked for."""


@dataclass(frozen=True)
class Compiled:
    """Everything between a typed recurrence and its source text.

    ``verdicts`` are those of all strategies in order of preference; ``lowered`` is what the first
    that applies made of the recurrence.
    """

    split: Split
    adjoint: AdjointStep
    verdicts: tuple[Verdict, ...]
    lowered: Recurrent | Stepwise | Native
    generated: Generated

    @property
    def strategy(self) -> str:
        """The name of the strategy that was taken."""
        return STEPWISE if isinstance(self.lowered, Stepwise) else RECURRENT

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels, in the order in which they stand in the source text."""
        return self.lowered.kernels


def compile_kernels(
    program: Program,
    sizes: Mapping[str, int],
    options: KernelOptions,
    strategy: str = "auto",
    backend: Backend = "triton",
) -> Compiled:
    """The kernels of a recurrence for a backend, by the named strategy or the first that applies.

    ValueError for a strategy that does not exist or does not apply, with its reason.
    """
    parts = split(program)
    check_program(parts.core)
    if backend == "cpu":
        parts = replace(parts, core=factor_program(parts.core, sizes))
    step = adjoint_step(parts.core)
    make = _for_triton if backend == "triton" else _for_cpu
    verdicts, lowered = make(parts, step, sizes, options, strategy)
    module = triton_module if backend == "triton" else cpp_module
    return Compiled(parts, step, verdicts, lowered, module(program, lowered.kernels))


def _for_triton(
    parts: Split, step: AdjointStep, sizes: Mapping[str, int], options: KernelOptions, strategy: str
) -> tuple[tuple[Verdict, ...], Recurrent | Stepwise]:
    core = parts.core
    layout = recurrent.layout(core, sizes, dict(options.tiles))
    verdicts = (recurrent.verdict(core, layout), stepwise.verdict(core))
    if choose(verdicts, strategy) == STEPWISE:
        cut = recurrent.layout(cut_program(core), sizes, dict(options.tiles))
        return verdicts, lower_stepwise(core, step, cut, options.strided)
    chunk = options.chunk or CHUNK
    lowered = lower_recurrent(
        core,
        plan(step),
        layout,
        precision=options.precision,
        chunk=chunk,
        strided=options.strided,
        packed=options.packed,
    )
    return verdicts, lowered


def _for_cpu(
    parts: Split, step: AdjointStep, sizes: Mapping[str, int], options: KernelOptions, strategy: str
) -> tuple[tuple[Verdict, ...], Native]:
    core = parts.core
    layout = recurrent_cpu.layout(core, sizes, dict(options.tiles))
    verdicts = (recurrent_cpu.verdict(core, layout), recurrent_cpu.stepwise_verdict())
    choose(verdicts, strategy)
    chunk = options.chunk or recurrent_cpu.chunk(core, layout)
    adjoint = plan(factor_adjoint(step, sizes), keep_dear=True)
    wide = {name for name, _ in (*parts.before, *parts.taps)}  # computed beside the kernels: not to be rounded
    return verdicts, lower_native(core, adjoint, layout, chunk, wide, options.packed)
