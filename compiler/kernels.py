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
from .lower.two_pass import TwoPassKernels, factor_passes, lower_two_pass
from .options import KernelOptions
from .strategies import recurrent, recurrent_cpu, stepwise, two_pass
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
    lowered: Recurrent | Stepwise | Native | TwoPassKernels
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
    way = two_pass.backward(parts.core, sizes, options, apart=backend == "triton")
    if backend == "cpu":
        parts = replace(parts, core=factor_program(parts.core, sizes))
    step = adjoint_step(parts.core)
    make = _for_triton if backend == "triton" else _for_cpu
    verdicts, lowered = make(parts, step, way, sizes, options, strategy)
    module = triton_module if backend == "triton" else cpp_module
    return Compiled(parts, step, verdicts, lowered, module(program, lowered.kernels))


def _for_triton(
    parts: Split,
    step: AdjointStep,
    way: two_pass.Backward,
    sizes: Mapping[str, int],
    options: KernelOptions,
    strategy: str,
) -> tuple[tuple[Verdict, ...], Recurrent | Stepwise | TwoPassKernels]:
    core = parts.core if way.passes is None else way.passes.infer
    layout = recurrent.layout(core, sizes, dict(options.tiles))
    verdicts = (recurrent.verdict(core, layout).and_(way.reason), stepwise.verdict(parts.core))
    if choose(verdicts, strategy) == STEPWISE:
        cut = recurrent.layout(cut_program(parts.core), sizes, dict(options.tiles))
        return verdicts, lower_stepwise(parts.core, step, cut, options.strided)
    if way.passes is not None:
        layouts = two_pass.for_triton(core, layout)
        lowered_passes = lower_two_pass(
            way.passes, layouts, precision=options.precision, strided=options.strided, packed=options.packed
        )
        return verdicts, lowered_passes
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
    parts: Split,
    step: AdjointStep,
    way: two_pass.Backward,
    sizes: Mapping[str, int],
    options: KernelOptions,
    strategy: str,
) -> tuple[tuple[Verdict, ...], Native | TwoPassKernels]:
    passes = None if way.passes is None else factor_passes(way.passes, sizes)
    core = parts.core if passes is None else passes.infer
    layout = recurrent_cpu.layout(core, sizes, dict(options.tiles))
    verdicts = (recurrent_cpu.verdict(core, layout).and_(way.reason), recurrent_cpu.stepwise_verdict())
    choose(verdicts, strategy)
    wide = {name for name, _ in (*parts.before, *parts.taps)}  # computed beside the kernels: not to be rounded
    if passes is not None:
        layouts = two_pass.for_cpu(passes, layout)
        return verdicts, lower_two_pass(passes, layouts, precision=None, strided=True, wide=wide, packed=options.packed)
    chunk = options.chunk or recurrent_cpu.chunk(core, layout)
    adjoint = plan(factor_adjoint(step, sizes), keep_dear=True)
    return verdicts, lower_native(core, adjoint, layout, chunk, wide, options.packed)
