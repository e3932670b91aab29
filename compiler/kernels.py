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
from .lower.layout import Layout
from .lower.native import Native, lower_native
from .lower.passes import Pass
from .lower.recurrent import Recurrent, lower_recurrent
from .lower.scan import Scan, lower_scan
from .lower.split import Split, split
from .lower.stepwise import Stepwise, cut_program, lower_stepwise
from .lower.two_pass import TwoPassKernels, factor_passes, lower_two_pass
from .options import KernelOptions
from .strategies import chunk, recurrent, recurrent_cpu, scan, two_pass
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
    lowered: Chain | Recurrent | Scan | Stepwise | Native | TwoPassKernels
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
    way = two_pass.backward(parts.core, sizes, options, apart=backend == "triton")
    if backend == "cpu":
        parts = replace(parts, core=factor_program(parts.core, sizes))
    step = adjoint_step(parts.core)
    make = _for_triton if backend == "triton" else _for_cpu
    verdicts, lowered = make(parts, step, way, sizes, options, strategy)
    module = triton_module if backend == "triton" else cpp_module
    return Compiled(parts, step, verdicts, lowered, module(program, lowered.kernels))


def applicable(program: Program, sizes: Mapping[str, int], options: KernelOptions | None = None) -> tuple[str, ...]:
    """The names of the strategies that can run a recurrence on a GPU at bound sizes."""
    core, options = split(program).core, options or KernelOptions()
    way = two_pass.backward(core, sizes, options, apart=True)
    found = _judged(core, adjoint_step(core), way, sizes, options)
    return tuple(verdict.strategy for verdict in found.verdicts if verdict.applies)


@dataclass(frozen=True)
class _Judged:
    """What the strategies for a GPU found out about a recurrence, and their verdicts."""

    walked: Program
    layout: Layout
    groups: tuple[Group, ...] | Reason
    planned: tuple[PassPlan, ...] | Reason
    verdicts: tuple[Verdict, ...]


def _judged(
    core: Program, step: AdjointStep, way: two_pass.Backward, sizes: Mapping[str, int], options: KernelOptions
) -> _Judged:
    walked = core if way.passes is None else way.passes.infer
    layout = recurrent.layout(walked, sizes, dict(options.tiles))
    groups, planned = scan.groups(core, step), chunk.plan_passes(core)
    verdicts = gpu_verdicts(core, way, layout, groups, planned, sizes, options, options.chunk or CHUNK)
    return _Judged(walked, layout, groups, planned, verdicts)


def _for_triton(
    parts: Split,
    step: AdjointStep,
    way: two_pass.Backward,
    sizes: Mapping[str, int],
    options: KernelOptions,
    strategy: str,
) -> tuple[tuple[Verdict, ...], Chain | Recurrent | Scan | Stepwise | TwoPassKernels]:
    core = parts.core
    found = _judged(core, step, way, sizes, options)
    verdicts, groups, planned = found.verdicts, found.groups, found.planned
    if strategy == "auto" and options.few and any(v.strategy == RECURRENT and v.applies for v in verdicts):
        strategy = RECURRENT
    match choose(verdicts, strategy):
        case "stepwise":
            cut = recurrent.layout(cut_program(core), sizes, dict(options.tiles))
            return verdicts, lower_stepwise(core, step, cut, options.strided)
        case "scan" if not isinstance(groups, Reason):
            return verdicts, _scan(core, step, groups, sizes, options, ())
        case "scan" | "chunk" if not isinstance(planned, Reason):
            return verdicts, _chain(planned, sizes, options)
    return verdicts, _walked(core, step, way, found, options)


def _walked(
    core: Program, step: AdjointStep, way: two_pass.Backward, found: _Judged, options: KernelOptions
) -> Recurrent | TwoPassKernels:
    """Kernels that walk step by step."""
    precision, strided, packed = options.precision, options.strided, options.packed
    if way.passes is not None:
        layouts = two_pass.for_triton(found.walked, found.layout)
        return lower_two_pass(way.passes, layouts, precision=precision, strided=strided, packed=packed)
    kept = options.chunk or CHUNK
    return lower_recurrent(
        core, plan(step), found.layout, precision=precision, chunk=kept, strided=strided, packed=packed
    )


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
            own = {axis.name for state in program.states for axis in state.axes}  # other passes have other axes
            tiles = tuple((name, block) for name, block in options.tiles if name in own)
            parts.append((p.part, _scan(program, p.step, p.groups, sizes, replace(options, tiles=tiles), wide)))
            continue
        layout = chunk.layout(program, p.form, sizes, dict(options.tiles), options.chunk, options.rows)
        how = ChunkOptions(options.operand, options.precision, options.strided, started, options.packed)
        parts.append((p.part, lower_chunk(program, p.form, layout, how, wide, chunk.narrow(layout, program, p.form))))
    return Chain(tuple(parts), started)


def _starts_at_zero(program: Program) -> bool:
    return all(program.body[s.start].op == "const" and program.body[s.start].attrs == (0.0,) for s in program.states)


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
    kept = options.chunk or recurrent_cpu.chunk(core, layout)
    adjoint = plan(factor_adjoint(step, sizes), keep_dear=True)
    return verdicts, lower_native(core, adjoint, layout, kept, wide, options.packed)
