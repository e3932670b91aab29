"""From a typed recurrence and bound sizes to generated kernels: the back half of the compiler on one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .autodiff.plan import plan
from .autodiff.reverse import AdjointStep, adjoint_step
from .codegen.module import Generated, triton_module
from .ir.program import Program
from .ir.verify import check_program
from .lower.kernel_ir import Kernel
from .lower.recurrent import Recurrent, lower_recurrent
from .lower.split import Split, split
from .lower.stepwise import Stepwise, cut_program, lower_stepwise
from .options import KernelOptions
from .strategies import recurrent, stepwise
from .strategies.recurrent import NAME as RECURRENT
from .strategies.stepwise import NAME as STEPWISE
from .strategies.verdict import Verdict, choose


@dataclass(frozen=True)
class Compiled:
    """Everything between a typed recurrence and its source text.

    ``verdicts`` are those of all strategies in order of preference; ``lowered`` is what the first
    that applies made of the recurrence.
    """

    split: Split
    adjoint: AdjointStep
    verdicts: tuple[Verdict, ...]
    lowered: Recurrent | Stepwise
    generated: Generated

    @property
    def strategy(self) -> str:
        """The name of the strategy that was taken."""
        return RECURRENT if isinstance(self.lowered, Recurrent) else STEPWISE

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels, in the order in which they stand in the source text."""
        return self.lowered.kernels


def compile_kernels(
    program: Program, sizes: Mapping[str, int], options: KernelOptions, strategy: str = "auto"
) -> Compiled:
    """The kernels of a recurrence for Triton, by the named strategy or the first that applies.

    ValueError for a strategy that does not exist or does not apply, with its reason.
    """
    parts = split(program)
    check_program(parts.core)
    step = adjoint_step(parts.core)
    fused = recurrent.layout(parts.core, sizes, dict(options.tiles))
    verdicts = (recurrent.verdict(parts.core, fused), stepwise.verdict(parts.core))
    chosen = choose(verdicts, strategy)
    lowered: Recurrent | Stepwise
    if chosen == RECURRENT:
        lowered = lower_recurrent(
            parts.core, plan(step), fused, precision=options.precision, chunk=options.chunk, strided=options.strided
        )
    else:
        cut = recurrent.layout(cut_program(parts.core), sizes, dict(options.tiles))
        lowered = lower_stepwise(parts.core, step, cut, options.strided)
    return Compiled(parts, step, verdicts, lowered, triton_module(program, lowered.kernels))
