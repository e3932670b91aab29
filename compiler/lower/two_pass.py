"""The kernels of the recurrent strategy with a backward in two passes (``autodiff/two_pass.py``).

``forward`` walks the steps and writes what erasing reads have read. ``reverse`` carries the states' cotangents from
the last step to the first, ``again`` the states from the first to the last; what one tile of them contributes to a
vector is summed over tiles in between. Where ``again`` is cut into tiles, ``finish`` goes through the prologue, all
chunks at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from ..autodiff.plan import Plan
from ..autodiff.sweep import FLOW, Sweep
from ..autodiff.two_pass import TwoPass
from ..ir.program import Program, live
from ..ir.types import Axes
from .factor import factor_program, rewrite
from .kernel_ir import Kernel, Ref, Statement, Tensor, Walk
from .layout import Layout
from .recurrent import Maker, read, store
from .tiles import TileWriter

FLOW_CHUNK = 64
"""Steps after which the flow starts again from states and cotangents, so that rounding errors do not add up, and of
which a program that finishes has as many."""

LONG_FLOW_CHUNK = 256
"""The same on processors, where one program finishes all steps: there these states are read across their rows."""


@dataclass(frozen=True)
class Layouts:
    """The shapes of the kernels: of those that walk as forward does, of ``again``, and of ``finish`` if it is apart."""

    forward: Layout
    again: Layout
    finish: Layout | None = None


@dataclass(frozen=True)
class TwoPassKernels:
    """All kernels; ``kept`` are the tensors that forward writes for backward, ``chunk`` the steps between restarts."""

    layout: Layout
    chunk: int
    kept: tuple[str, ...]
    step: Kernel | None
    infer: Kernel
    forward: Kernel
    reverse: Kernel
    again: Kernel
    finish: Kernel | None

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, in order of use."""
        found = (self.step, self.infer, self.forward, self.reverse, self.again, self.finish)
        return tuple(kernel for kernel in found if kernel is not None)


def lower_two_pass(
    passes: TwoPass,
    layouts: Layouts,
    *,
    precision: str | None,
    strided: bool,
    wide: Container[str] = (),
    packed: bool = False,
) -> TwoPassKernels:
    """The kernels of a recurrence; ``wide`` are inputs and outputs of the compute type."""
    kept = tuple(row(name) for name in passes.kept)
    outputs = tuple(
        replace(o, name=row(o.name)) if n >= len(passes.infer.outputs) else o
        for n, o in enumerate(passes.forward.outputs)
    )
    full = {o.name for o in outputs if o.name in wide} | {i.name for i in passes.infer.inputs if i.name in wide}

    def maker(program: Program, layout: Layout) -> _Maker:
        return _Maker(program, passes, layout, precision, strided, full | set(kept), packed)

    forward = maker(replace(passes.forward, outputs=outputs), layouts.forward).forward(train=False)
    single = None
    if layouts.forward.lanes and not packed:
        step = maker(passes.infer, replace(layouts.forward, in_place=True)).forward(train=False)
        single = replace(step, name=f"{passes.infer.name}_step")
    finish = None if layouts.finish is None else maker(passes.infer, layouts.finish).finish()
    infer = maker(passes.infer, layouts.forward)
    return TwoPassKernels(
        layouts.forward,
        infer.chunk,
        kept,
        single,
        infer.forward(train=False),
        replace(forward, name=f"{passes.infer.name}_forward"),
        maker(passes.infer, layouts.forward).reverse(),
        maker(passes.infer, layouts.again).again(),
        finish,
    )


def row(name: str) -> str:
    """What a row is called among tensors; no name of a user's looks so."""
    return f"row_{name}"


def factor_passes(passes: TwoPass, sizes: Mapping[str, int]) -> TwoPass:
    """The same passes with products in the cheapest order."""

    def factored(sweep: Sweep) -> Sweep:
        body, written = rewrite(sweep.body, sweep.roots(), sizes)

        def moved(named: Iterable[tuple[str, int | None]]) -> tuple[tuple[str, int | None], ...]:
            return tuple((name, None if value is None else written[value]) for name, value in named)

        return Sweep(
            body,
            tuple((name, written[value]) for name, value in sweep.carried),
            tuple(replace(r, value=written[r.value]) for r in sweep.rows),
            moved(sweep.inputs),
            moved(sweep.params),
            None if sweep.flow is None else written[sweep.flow],
        )

    forward = factor_program(passes.forward, sizes)
    return replace(
        passes,
        infer=replace(forward, outputs=forward.outputs[: len(passes.infer.outputs)]),  # products in the same order
        forward=forward,
        reverse=factored(passes.reverse),
        again=factored(passes.again),
        finish=None if passes.finish is None else factored(passes.finish),
    )


class _Maker(Maker):
    """Makes kernels of passes; vectors to which every tile of the states contributes are told by their axes."""

    def __init__(
        self,
        program: Program,
        passes: TwoPass,
        layout: Layout,
        precision: str | None,
        strided: bool,
        wide: Container[str],
        packed: bool,
    ) -> None:
        chunk = LONG_FLOW_CHUNK if layout.lanes else FLOW_CHUNK
        super().__init__(program, Plan((), (), (), (), (), ()), layout, precision, chunk, strided, wide, packed)
        self.passes = passes
        self.flow = self.variable(FLOW)
        self.reserved.add(self.flow)

    # ------------------------------------------------------------ what sweeps read and write

    def sweep_writer(self, sweep: Sweep) -> TileWriter:
        """A writer of a sweep's body, in which everything that it needs is written."""
        body = sweep.body
        sources: dict[tuple[str, str], Tensor | Ref] = dict(self.carried())
        for state in self.program.states:
            sources["cotangent", f"{state.name}'"] = Ref(f"d_{state.name}", self.full(state.axes))
        for output in self.passes.infer.outputs:
            wide = output.name in self.wide
            sources["cotangent", output.name] = self.once(f"d_{output.name}", "step", output.axes, compute=wide)
        for instr in body:
            if instr.op == "leaf" and instr.attrs[0] == "saved":
                name = instr.attrs[1]
                plain = Tensor(row(name), "step", instr.axes)
                # tile 0 stands for all where parts are summed afterwards
                sources[instr.attrs] = plain if name in self.passes.kept else self.once(row(name), "step", instr.axes)
        if self.passes.flow is not None:
            sources["saved", FLOW] = Ref(self.flow, self.full(self.passes.flow))
        writer = self.writer(body, sources)
        writer.lower(live(body, sweep.roots()))
        return writer

    def written(self, sweep: Sweep, writer: TileWriter) -> tuple[list[Tensor], list[Statement]]:
        """The tensors that a sweep writes per step, and the statements: rows and gradients of inputs."""
        tensors, statements = [], []
        for found in sweep.rows:
            tensors.append(self.each(row(found.name), "step", found.axes))
            statements.append(store(tensors[-1], writer.ref(found.value)))
        axes = {i.name: i.axes for i in self.program.inputs}
        for name, value in sweep.inputs:
            if value is not None:
                tensors.append(self.each(f"d_{name}", "step", axes[name], compute=name in self.wide))
                statements.append(store(tensors[-1], writer.ref(value)))
        return tensors, statements

    def sums(self, sweep: Sweep, writer: TileWriter) -> list[tuple[str, Axes, Ref, Statement]]:
        """Gradients of params, summed over the steps."""
        axes = {p.name: p.axes for p in self.program.params}
        found = []
        for name, value in sweep.params:
            if value is not None:
                ref = writer.ref(value)
                total = Ref(f"sum_{name}", ref.labels)
                found.append((name, axes[name], total, Statement(total.name, "accumulate", (ref,), (), ref.labels)))
        return found

    def loaded(self, writer: TileWriter) -> list[Tensor]:
        """What a writer reads besides inputs and params."""
        return [t for t in writer.loaded.values() if t.name not in self.inputs and t.name not in self.params]

    def checkpoints(self, kept: bool) -> list[Tensor]:
        """Cotangents of the states at the beginning of every chunk, as they are written or read."""
        make = self.each if kept else self.once
        return [make(f"d_{s.name}_checkpoint", "checkpoint", s.axes) for s in self.program.states]

    # ------------------------------------------------------------ kernels

    def reverse(self) -> Kernel:
        """From the cotangents of the end states to those of the start states."""
        states, sweep = self.program.states, self.passes.reverse
        writer = self.sweep_writer(sweep)
        tensors, statements = self.written(sweep, writer)
        nexts = dict(sweep.carried)
        updates = [(f"d_{s.name}", s.axes, writer.ref(nexts[s.name])) for s in states]
        carried = [Ref(f"d_{s.name}", self.full(s.axes)) for s in states]
        starts = [self.each(f"d_{s.name}_end", "sequence", s.axes) for s in states]
        ends = [self.each(f"d_{s.name}_start", "sequence", s.axes) for s in states]
        kept = self.checkpoints(True) if self.passes.flow is not None else []
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": tuple(read(t, ref.name, ref.labels) for t, ref in zip(starts, carried, strict=True)),
            "step": (*writer.sections["step"], *statements, *self.advance(writer, updates)),
            "checkpoint": tuple(store(t, ref) for t, ref in zip(kept, carried, strict=bool(kept))),
            "final": tuple(store(t, ref) for t, ref in zip(ends, carried, strict=True)),
        }
        used = self.used(writer, self.loaded(writer), starts, tensors, ends, kept)
        return self._kernel("reverse", "reverse", "left", used, sections, self.chunk if kept else None)

    def again(self) -> Kernel:
        """From the start states to the end; the last pass where ``finish`` is not apart."""
        passes, sweep = self.passes, self.passes.again
        writer = self.sweep_writer(sweep)
        tensors, statements = self.written(sweep, writer)
        sums = self.sums(sweep, writer)
        partials = [self.each(f"d_{name}", "partial", axes) for name, axes, _, _ in sums]
        nexts = dict(sweep.carried)
        updates = [(self.state[s.name], s.axes, writer.ref(nexts[s.name])) for s in self.program.states]
        if sweep.flow is not None and passes.flow is not None:
            updates.append((self.flow, passes.flow, writer.ref(sweep.flow)))
        starts = [Tensor(f"{s.name}_start", "sequence", s.axes) for s in self.program.states]
        begin = [
            read(t, self.state[s.name], self.full(s.axes)) for t, s in zip(starts, self.program.states, strict=True)
        ]
        step = (*writer.sections["step"], *statements, *(s for *_, s in sums), *self.advance(writer, updates))
        taken = {s.target for part in writer.sections.values() for s in part} | {s.target for s in step}
        restart, more = self.restart(taken)
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": (*begin, *self._zeros(sums, sweep.flow is not None)),
            "checkpoint": tuple(restart),
            "step": step,
            "final": tuple(store(t, total) for t, (_, _, total, _) in zip(partials, sums, strict=True)),
        }
        used = self.used(writer, self.loaded(writer), starts, tensors, partials, more)
        return self._kernel("again", "forward", "right", used, sections, self.chunk if restart else None)

    def restart(self, taken: set[str]) -> tuple[list[Statement], list[Tensor]]:
        """The flow from state and cotangents at the beginning of a chunk: carried on, or written for ``finish``."""
        restart, axes = self.passes.restart, self.passes.flow
        if restart is None or axes is None:
            return [], []
        assert restart.flow is not None
        sources: dict[tuple[str, str], Tensor | Ref] = dict(self.carried())
        kept = self.checkpoints(False)
        sources |= {("cotangent", f"{s.name}'"): t for s, t in zip(self.program.states, kept, strict=True)}
        writer = TileWriter(restart.body, self.layout, sources, self.precision, self.reserved | taken)
        writer.lower(live(restart.body, restart.roots()))
        value = writer.ref(restart.flow)
        if self.passes.finish is None:
            last = Statement(self.flow, "assign", (value,), (), self.full(axes))
            return [*writer.sections["step"], last], kept
        written = self.each(f"{FLOW}_checkpoint", "checkpoint", axes)
        return [*writer.sections["step"], store(written, value)], [*kept, written]

    def finish(self) -> Kernel:
        """Through the prologue to inputs and params, chunk by chunk; gradients of params are sums of each chunk."""
        passes, sweep = self.passes, self.passes.finish
        assert sweep is not None
        writer = self.sweep_writer(sweep)
        tensors, statements = self.written(sweep, writer)
        sums = self.sums(sweep, writer)
        partials = [Tensor(f"d_{name}", "checkpoint", axes) for name, axes, _, _ in sums]
        begin, more, updates = [], [], []
        if sweep.flow is not None and passes.flow is not None:
            more = [Tensor(f"{FLOW}_checkpoint", "checkpoint", passes.flow)]
            begin = [read(more[0], self.flow, self.full(passes.flow))]
            updates = [(self.flow, passes.flow, writer.ref(sweep.flow))]
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": (*begin, *self._zeros(sums, False)),
            "step": (
                *writer.sections["step"], *statements, *(s for *_, s in sums), *self.advance(writer, updates),
            ),
            "final": tuple(store(t, total) for t, (_, _, total, _) in zip(partials, sums, strict=True)),
        }  # fmt: skip
        used = self.used(writer, self.loaded(writer), more, tensors, partials)
        return self._kernel("finish", "trajectory", "apart", used, sections, self.chunk)

    def _zeros(self, sums: Iterable[tuple[str, Axes, Ref, Statement]], flow: bool) -> list[Statement]:
        """What starts at zero: sums over the steps, and the flow until the first chunk begins."""
        found = [Statement(total.name, "zeros", (), (), total.labels) for _, _, total, _ in sums]
        if flow and self.passes.flow is not None:
            found.append(Statement(self.flow, "zeros", (), (), self.full(self.passes.flow)))
        return found

    def _kernel(
        self,
        name: str,
        template: str,
        walk: Walk,
        tensors: tuple[Tensor, ...],
        sections: dict[str, tuple[Statement, ...]],
        chunk: int | None,
    ) -> Kernel:
        walked = tuple(t.name for t in tensors if t.place == "step")
        full, facts = f"{self.program.name}_{name}", {"chunk": chunk}
        return Kernel(full, template, self.layout, tensors, sections, walked, facts, walk, self.packed)
