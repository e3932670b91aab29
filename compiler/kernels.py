"""From a typed recurrence and bound sizes to generated kernels: the back half of the compiler on one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .autodiff.plan import Plan, plan
from .autodiff.reverse import AdjointStep, adjoint_step
from .codegen.module import Generated, triton_module
from .ir.program import Program
from .ir.verify import check_program
from .lower.layout import Layout
from .lower.recurrent import Lowered, lower_recurrent
from .lower.split import Split, split
from .strategies import recurrent


@dataclass(frozen=True)
class KernelOptions:
    """What can be chosen of kernels: see :class:`compiler.options.Options` for the user's side.

    ``precision`` is the form of float32 matrix products, ``chunk`` the steps between checkpoints,
    ``strided`` whether inputs come with strides instead of being contiguous, ``tiles`` overrides the
    block of an axis by name.
    """

    precision: str = "ieee"
    chunk: int = 16
    strided: bool = False
    tiles: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Compiled:
    """Everything between a typed recurrence and its source text, stage by stage."""

    split: Split
    adjoint: AdjointStep
    plan: Plan
    layout: Layout
    kernels: Lowered
    generated: Generated


def compile_recurrent(program: Program, sizes: Mapping[str, int], options: KernelOptions) -> Compiled:
    """The fused kernels of a recurrence for Triton."""
    parts = split(program)
    check_program(parts.core)
    step = adjoint_step(parts.core)
    plan_ = plan(step)
    layout = recurrent.layout(parts.core, sizes, dict(options.tiles))
    kernels = lower_recurrent(
        parts.core, plan_, layout, precision=options.precision, chunk=options.chunk, strided=options.strided
    )
    listed = (kernels.infer, kernels.forward, kernels.trajectory, kernels.adjoint)
    return Compiled(parts, step, plan_, layout, kernels, triton_module(program, listed))
