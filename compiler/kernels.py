"""From a typed recurrence and bound sizes to generated kernels: the back half of the compiler on one page."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .analysis.elementwise import Group
from .analysis.linear import Reason
from .autodiff.plan import plan
from .autodiff.reverse import AdjointStep, adjoint_step
from .codegen.module import Generated, cpp_module, triton_module
from .ir.program import Program
from .ir.verify import check_program
from .lower.chain import Chain
from .lower.chunk import ChunkOptions
from .lower.chunk_kernels import Chunked, lower_chunk
from .lower.factor import factor_adjoint, factor_program
from .lower.kernel_ir import Kernel
from .lower.native import Native, lower_native
from .lower.passes import Pass
from .lower.recurrent import Recurrent, lower_recurrent
from .lower.scan import Scan, lower_scan
from .lower.split import Split, split
from .lower.stepwise import Stepwise, cut_program, lower_stepwise
from .options import KernelOptions
from .strategies import chunk, recurrent, recurrent_cpu, scan
from .strategies.chunk import NAME as CHUNKED
from .strategies.chunk import PassPlan
from .strategies.gpu import gpu_verdicts
from .strategies.recurrent import NAME as RECURRENT
from .strategies.scan import NAME as SCAN
from .strategies.stepwise import NAME as STEPWISE
from .strategies.verdict import Verdict, choose

Backend = Literal["triton", "cpu"]
"""The backends that kernels are generated for."""

CHUNK = 16
"""Steps between checkpoints on a GPU, where nothing else is asked for."""


@dataclass(frozen=True)
class Compiled:
    """Everything between a typed recurrence and its source text.

    ``verdicts`` are those of all strategies; ``lowered`` is what the one that was taken made of the recurrence.
    """

    split: Split
    adjoint: AdjointStep
    verdicts: tuple[Verdict, ...]
    lowered: Chain | Recurrent | Scan | Stepwise | Native
    generated: Generated

    @property
    def strategy(self) -> str:
        """The name of the strategy that was taken."""
        match self.lowered:
            case Stepwise():
                return STEPWISE
            case Scan():
                return SCAN
            case Chain(parts=parts):
                return CHUNKED if any(isinstance(lowered, Chunked) for _, lowered in parts) else SCAN
        return RECURRENT

    @property
    def started(self) -> bool:
        """Whether kernels read start states; those that do not begin with zeros."""
        return self.lowered.started if isinstance(self.lowered, Chain) else True

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
) -> tuple[tuple[Verdict, ...], Chain | Recurrent | Scan | Stepwise]:
    core, tiles = parts.core, dict(options.tiles)
    layout, groups, planned = recurrent.layout(core, sizes, tiles), scan.groups(core, step), chunk.plan_passes(core)
    verdicts = gpu_verdicts(core, layout, groups, planned, sizes, options, options.chunk or CHUNK)
    match choose(verdicts, strategy):
        case "stepwise":
            cut = recurrent.layout(cut_program(core), sizes, tiles)
            return verdicts, lower_stepwise(core, step, cut, options.strided)
        case "scan" if not isinstance(groups, Reason):
            return verdicts, _scan(core, step, groups, sizes, options, ())
        case "scan" | "chunk" if not isinstance(planned, Reason):
            return verdicts, _chain(planned, sizes, options)
    lowered = lower_recurrent(
        core,
        plan(step),
        layout,
        precision=options.precision,
        chunk=options.chunk or CHUNK,
        strided=options.strided,
        packed=options.packed,
    )
    return verdicts, lowered


def _scan(
    program: Program,
    step: AdjointStep,
    groups: tuple[Group, ...],
    sizes: Mapping[str, int],
    options: KernelOptions,
    wide: Container[str],
) -> Scan:
    blocks = scan.layout(program, groups, sizes, dict(options.tiles), options.chunk)
    kept = plan(step, keep_products=False)
    return lower_scan(
        program,
        kept,
        blocks,
        precision=options.precision,
        strided=options.strided,
        wide=wide,
        packed=options.packed,
    )


def _chain(planned: tuple[PassPlan, ...], sizes: Mapping[str, int], options: KernelOptions) -> Chain:
    """The kernels of every pass; what passes hand on is not rounded."""
    wide = {name for p in planned for name in p.part.handed}
    plain = all(p.form is not None and _starts_at_zero(p.part.program) for p in planned)
    started = options.started or not plain
    parts: list[tuple[Pass, Chunked | Scan]] = []
    for p in planned:
        program = p.part.program
        if p.form is None:
            assert p.groups is not None
            parts.append((p.part, _scan(program, p.step, p.groups, sizes, options, wide)))
            continue
        layout = chunk.layout(program, p.form, sizes, dict(options.tiles), options.chunk)
        how = ChunkOptions(options.operand, options.precision, options.strided, started, options.packed)
        parts.append((p.part, lower_chunk(program, p.form, layout, how, wide, chunk.narrow(layout, program, p.form))))
    return Chain(tuple(parts), started)


def _starts_at_zero(program: Program) -> bool:
    return all(program.body[s.start].op == "const" and program.body[s.start].attrs == (0.0,) for s in program.states)


def _for_cpu(
    parts: Split, step: AdjointStep, sizes: Mapping[str, int], options: KernelOptions, strategy: str
) -> tuple[tuple[Verdict, ...], Native]:
    core = parts.core
    layout = recurrent_cpu.layout(core, sizes, dict(options.tiles))
    verdicts = (recurrent_cpu.verdict(core, layout), recurrent_cpu.stepwise_verdict())
    choose(verdicts, strategy)
    kept = options.chunk or recurrent_cpu.chunk(core, layout)
    adjoint = plan(factor_adjoint(step, sizes), keep_dear=True)
    wide = {name for name, _ in (*parts.before, *parts.taps)}  # computed beside the kernels: not to be rounded
    return verdicts, lower_native(core, adjoint, layout, kept, wide, options.packed)
