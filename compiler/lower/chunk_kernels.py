"""The kernels of the chunk strategy: which parts of the algorithm each has, and what it reads and writes.

Fused: one kernel walks the chunks with the state on chip, forward; another one backward. Split: what needs no state
(the inverses) for all chunks at once, then a walk that only carries the state, then everything else for all chunks at
once; backward likewise. Both keep the same for the backward: the state before each chunk, and the inverses.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from ..analysis.affine import AffineForm, Member
from ..analysis.readout import Read
from ..autodiff.plan import Plan
from ..ir.program import Program, live
from ..ir.size import Size
from ..ir.types import Axes, Axis
from .chunk import PHASES, ChunkOptions, chunk_adjoint, is_free, roles_and_facts
from .chunk_blocks import AGAIN, BLOCKS
from .ends import both
from .kernel_ir import Kernel, Ref, Statement, Tensor, Walk
from .layout import ROWS, Label, Layout, identifier, labels_of
from .recurrent import Maker, read, store
from .tiles import TileWriter

INVERSE = (Axis("row of a chunk", Size(0)), Axis("column of a chunk", Size(0)))
"""The axes of a chunk's triangular inverse; no axis of a spec has such a name."""


@dataclass(frozen=True)
class Schedule:
    """The kernels of each direction, in order of launch; ``ended`` is backward with cotangents of end states."""

    infer: tuple[Kernel, ...]
    forward: tuple[Kernel, ...]
    backward: tuple[Kernel, ...]
    ended: tuple[Kernel, ...]


@dataclass(frozen=True)
class Chunked:
    """The kernels of one recurrence at one layout; ``chunk`` is the number of steps of a chunk."""

    form: AffineForm
    layout: Layout
    chunk: int
    fused: Schedule
    split: Schedule

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, each once."""
        schedules = (self.fused, self.split)
        found = [k for s in schedules for group in (s.infer, s.forward, s.backward, s.ended) for k in group]
        return tuple({kernel.name: kernel for kernel in found}.values())


def lower_chunk(
    program: Program,
    form: AffineForm,
    layout: Layout,
    options: ChunkOptions,
    wide: Container[str] = (),
    narrow: Layout | None = None,
) -> Chunked:
    """All kernels of a recurrence in affine normal form; ``layout.rows`` is the number of steps of a chunk, ``narrow``
    the layout of kernels that walk the state and sum nothing over its columns, if that is another one."""
    maker = ChunkMaker(program, form, layout, options, wide)
    walker = maker if narrow in (None, layout) else ChunkMaker(program, form, narrow or layout, options, wide)
    prepare = (maker.forwards("prepare"),) if maker.facts.substeps else ()
    split = (*prepare, walker.forwards("states"), maker.forwards("outputs"))
    back = both([maker.backwards("backward")])
    fused = Schedule((walker.forwards("infer"),), (walker.forwards("forward"),), *back)
    costates = walker.backwards("costates")
    if any(tensor.copies for tensor in costates.tensors):  # a state without columns has a part in every tile
        costates = maker.backwards("costates")
    back = both([costates, maker.backwards("gradients")])
    return Chunked(form, maker.layout, layout.rows, fused, Schedule(split, split, *back))


class ChunkMaker(Maker):
    """Adds to the maker of kernels what a chunk needs: roles as variables, the tensors kept per chunk."""

    free = staticmethod(is_free)

    def __init__(
        self, program: Program, form: AffineForm, layout: Layout, options: ChunkOptions, wide: Container[str]
    ) -> None:
        self.form, self.options = form, options
        names = {state.name: state.name for state in program.states}
        roles, facts = roles_and_facts(program, form, names, layout.rows, options)
        rows = layout.rows * max(1, facts.substeps)
        sides = {axis.name: rows for axis in INVERSE}
        order = {**layout.order, **{name: len(layout.order) + i for i, name in enumerate(sides)}}
        layout = replace(layout, sizes={**layout.sizes, **sides}, blocks={**layout.blocks, **sides}, order=order)
        adjoint = chunk_adjoint(program, form, roles)
        self.cotangents = adjoint.reads
        plan = Plan(adjoint.body, (), adjoint.inputs, adjoint.params, (), ())
        super().__init__(program, plan, layout, options.precision, layout.rows, options.strided, wide, options.packed)
        self.roles, self.facts = roles_and_facts(program, form, self.state, layout.rows, options)
        named = [role.name for role in self.roles] + [read.name for read in self.facts.reads]
        self.reserved |= {word for name in named for word in (name, f"d_{name}", f"late_{name}")}
        self.reserved |= {f"{word}_{name}" for name in self.state.values() for word in ("after", "d")}

    # ------------------------------------------------------------ tensors

    def kept(self) -> list[Tensor]:
        """What forward keeps for backward: the state before each chunk, and the inverse of each chunk's solve."""
        members = {m.state: m for m in self.form.members}
        found = [
            self.once(f"{s.name}_checkpoint", "checkpoint", _mixed_first(members[s.name]), compute=False)
            for s in self.program.states
        ]
        if self.facts.substeps:
            found.append(self.once("inverse_checkpoint", "checkpoint", INVERSE, compute=False))
        return found

    def labels(self, axes: Axes, rows: bool = True) -> tuple[Label, ...]:
        return self.layout.sort((*((ROWS,) if rows else ()), *labels_of(axes)))

    # ------------------------------------------------------------ sections

    def whole(self, writer: TileWriter, name: str, value: int, axes: Axes) -> list[Statement]:
        """A value as a variable over the chunk's steps and all its axes, zero in lanes outside of them."""
        ref, labels = writer.ref(value), self.labels(axes)
        statements = []
        if ref.number is not None or ref.labels != labels:
            statements.append(Statement(f"{name}_all", "assign", (replace(ref, clean=frozenset()),), (), labels))
            ref = Ref(f"{name}_all", labels)
        padded = tuple(label for label in labels if self.layout.padded(label) and label not in ref.clean)
        op = "mask" if padded else "assign"
        statements.append(Statement(name, op, (ref,), padded, labels))
        return statements

    def prologue(self, writer: TileWriter, blocks: Container[str]) -> dict[str, tuple[Statement, ...]]:
        """The roles in the order in which the algorithm needs them, so that tiles are loaded late."""
        found = {}
        for section, kinds in PHASES.items():
            if f"prologue_{section}" not in blocks:
                continue
            if section == "queries" and "again" in blocks:
                found["again"] = self.again(writer, "reads")
            roles = [role for role in self.roles if role.kind in kinds]
            writer.lower(live(writer.body, [role.value for role in roles]))
            named = [s for role in roles for s in self.whole(writer, role.name, role.value, role.axes)]
            found[f"prologue_{section}"] = (*_taken(writer), *named)
        return found

    def gradients(self, writer: TileWriter, stores: dict[str, Statement]) -> dict[str, tuple[Statement, ...]]:
        """What follows from cotangents of roles as soon as those are there, so that tiles live short."""
        done: set[str] = set()
        sections = {}
        wanted = live(writer.body, self.plan.wanted())
        needs = self.needs()
        for section in ("queries", "values", "keys"):
            done |= {f"role {role.name}" for role in self.roles if role.kind in PHASES[section]}
            last = section == "keys"
            sections[f"again_{section}"] = self.again(writer, section)
            if last:
                sections["again_ends"] = self.again(writer, "ends")
            ready = [value for value in wanted if needs[value] <= done and (last or needs[value])]
            writer.lower_missing(ready)
            statements = _taken(writer)
            for name, value in self.plan.inputs:
                if value is not None and name not in stores and needs[value] <= done and (last or needs[value]):
                    stores[name] = self.gradient_store(writer, name)
                    statements += [*_taken(writer), stores[name]]
            sections["gradients" if last else f"gradients_{section}"] = tuple(statements)
        return sections

    def again(self, writer: TileWriter, section: str) -> tuple[Statement, ...]:
        """What was loaded long ago is loaded again rather than kept: as ``late_ROLE`` the rows that cotangents of
        scales and decays are sums of; where other pairs of rows are next, the decays."""
        kinds = AGAIN[section]
        if self.facts.decay == "none":
            kinds = ("erase",) if section == "keys" and self.facts.scaled else ()
        columns = {query.name for query in self.facts.queries if query.over == "column"}
        names = {role: f"late_{role.name}" for role in self.roles if role.kind in kinds and role.name not in columns}
        logs = [role for role in self.roles if section in ("reads", "keys") and role.kind == "log"]
        names |= {role: role.name for role in logs}
        writer.forget(live(writer.body, (role.value for role in logs)))
        writer.lower_missing(role.value for role in names)
        named = [s for role, name in names.items() for s in self.whole(writer, name, role.value, role.axes)]
        return (*_taken(writer), *named)

    def needs(self) -> list[set[str]]:
        """For every value of the adjoint the roles whose cotangents it reads."""
        found: list[set[str]] = []
        for instr in self.plan.body:
            own = instr.attrs[1] if instr.op == "leaf" and instr.attrs[0] == "cotangent" else ""
            found.append({own} if own.startswith("role ") else set().union(*(found[arg] for arg in instr.args)))
        return found

    def gradient_store(self, writer: TileWriter, name: str) -> Statement:
        """The store of an input's gradient."""
        axes = next(i.axes for i in self.program.inputs if i.name == name)
        value = dict(self.plan.inputs)[name]
        assert value is not None
        return store(self.each(f"d_{name}", "step", axes, compute=name in self.wide), writer.ref(value))

    def sources(self) -> dict[tuple[str, str], Tensor | Ref]:
        """The leaves of the epilogue: what was read."""
        found: dict[tuple[str, str], Tensor | Ref] = {}
        for item in self.form.reads:
            found["read", item.name] = Ref(item.name, self.labels(self.read_axes(item)))
        return found

    def read_axes(self, item: Read) -> Axes:
        """The axes of what is read."""
        member = next(m for m in self.form.members if m.state == item.state)
        return (member.mix,) if item.over == "column" else () if member.column is None else (member.column,)

    def states(self) -> dict[str, Ref]:
        return {s.name: Ref(self.state[s.name], self.full(s.axes)) for s in self.program.states}

    # ------------------------------------------------------------ kernels

    def forwards(self, kind: str) -> Kernel:
        """A kernel of the forward direction: ``infer``, ``forward``, ``prepare``, ``states`` or ``outputs``."""
        program, blocks = self.program, BLOCKS[kind]
        writer = self.writer(self.form.body, self.sources())
        sections = self.prologue(writer, blocks)
        states, kept = self.states(), self.kept()
        starts = {s.name: Tensor(f"{s.name}_start", "sequence", s.axes) for s in program.states}
        ends = {s.name: self.once(f"{s.name}_end", "sequence", s.axes) for s in program.states}
        tensors: list[Tensor] = []
        if "epilogue" in blocks:
            outputs = {o.name: self.once(o.name, "step", o.axes, compute=o.name in self.wide) for o in program.outputs}
            values = dict(self.form.outputs)
            writer.lower(live(writer.body, values.values()))
            sections["epilogue"] = (
                *_taken(writer),
                *(store(outputs[name], writer.ref(value)) for name, value in values.items()),
            )
            tensors += outputs.values()
        if "update" in blocks:
            sections["initial"] = tuple(self.start(starts[s.name], s.name, s.axes) for s in program.states)
            sections["final"] = tuple(store(ends[name], ref) for name, ref in states.items())
            tensors = [*(starts.values() if self.options.started else ()), *tensors, *ends.values()]
        if "checkpoint" in blocks:
            sections["checkpoint"] = tuple(store(t, states[s.name]) for t, s in zip(kept, program.states, strict=False))
        tensors += self.sections_of_kept(sections, blocks, kept)
        sections["invariant"] = tuple(writer.sections["invariant"])
        return self.kernel(kind, "right", sections, self.used(writer, tensors), ())

    def backwards(self, kind: str) -> Kernel:
        """A kernel of the backward direction: ``backward``, ``costates`` or ``gradients``."""
        program, asked = self.program, self.asked()
        blocks = BLOCKS[kind]
        if kind == "costates" and not asked:  # nothing of what was read is needed, nor then what was written
            blocks = tuple(b for b in blocks if b not in ("before", "state", "prologue_values", "solve", "reads"))
        sources = self.sources()
        for output in program.outputs:
            wide = output.name in self.wide
            sources["cotangent", output.name] = self.once(f"d_{output.name}", "step", output.axes, compute=wide)
        for role in self.roles:
            sources["cotangent", f"role {role.name}"] = Ref(f"d_{role.name}", self.labels(role.axes))
        writer = self.writer(self.plan.body, sources)
        sections = self.prologue(writer, blocks)
        sections["cotangents"] = self.cotangents_of_reads(writer)
        tensors: list[Tensor] = []
        if "gradients" in blocks:
            tensors += self.gradient_sections(writer, sections, apart="advance" not in blocks)
        tensors += self.sections_of_costates(sections, blocks)
        kept = [replace(t, first_tile=()) for t in self.kept()]
        tensors += self.sections_of_kept(sections, blocks, kept)
        sections["invariant"] = tuple(writer.sections["invariant"])
        loaded = [t for t in writer.loaded.values() if t.name not in self.inputs and t.name not in self.params]
        return self.kernel(kind, "left", sections, self.used(writer, loaded, tensors), asked, blocks)

    def kernel(
        self,
        kind: str,
        direction: Walk,
        sections: dict[str, tuple[Statement, ...]],
        tensors: tuple[Tensor, ...],
        asked: Sequence[str],
        blocks: Sequence[str] | None = None,
    ) -> Kernel:
        blocks = BLOCKS[kind] if blocks is None else blocks
        walk: Walk = direction if "advance" in blocks else "apart"
        moving = tuple(t.name for t in tensors if t.place in ("step", "checkpoint")) if walk != "apart" else ()
        first = " & ".join(f"(i_{identifier(name)} == 0)" for name in self.layout.tiles)
        facts = {
            "chunk": self.layout.rows,
            "algorithm": replace(self.facts, asked=tuple(asked)),
            "first": first,
            "blocks": list(blocks),
        }
        name = f"{self.program.name}_chunk_{kind}"
        return Kernel(name, f"chunk_{walk}", self.layout, tensors, sections, moving, facts, walk, self.packed)

    # ------------------------------------------------------------ parts of kernels

    def sections_of_kept(
        self, sections: dict[str, tuple[Statement, ...]], blocks: Sequence[str], kept: Sequence[Tensor]
    ) -> list[Tensor]:
        """What was kept per chunk, where a kernel reads or writes it."""
        states = self.states()
        used: list[Tensor] = []
        pairs = list(zip(kept, states.values(), strict=False))
        if "before" in blocks:
            sections["before"] = tuple(read(replace(t, first_tile=()), ref.name, ref.labels) for t, ref in pairs)
            used += [replace(t, first_tile=()) for t, _ in pairs]
        elif "checkpoint" in blocks and "checkpoint" in sections and "update" in blocks:
            used += [t for t, _ in pairs]
        if self.facts.substeps and ("keep" in blocks or "kept" in blocks):
            used.append(kept[-1])
        return used

    def sections_of_costates(self, sections: dict[str, tuple[Statement, ...]], blocks: Sequence[str]) -> list[Tensor]:
        """Cotangents of states: carried from chunk to chunk, kept per chunk, or read from there."""
        program = self.program
        members = {m.state: m for m in self.form.members}
        carried = [Ref(f"d_{self.state[s.name]}", self.full(s.axes)) for s in program.states]
        if "update_back" not in blocks or "checkpoint" in blocks:
            kept = [
                self.each(f"d_{s.name}_checkpoint", "checkpoint", _mixed_first(members[s.name]), compute=False)
                for s in program.states
            ]
        if "update_back" not in blocks:
            sections["before_back"] = tuple(read(t, ref.name, ref.labels) for t, ref in zip(kept, carried, strict=True))
            return kept
        starts = [self.each(f"d_{s.name}_end", "sequence", s.axes) for s in program.states]
        initial = tuple(read(t, ref.name, ref.labels) for t, ref in zip(starts, carried, strict=True))
        sections["initial"] = (*initial, *sections.get("initial", ()))
        given = program.states if self.options.started else ()
        ends = [self.each(f"d_{s.name}_start", "sequence", s.axes) for s in given]
        final = tuple(store(t, ref) for t, ref in zip(ends, carried, strict=False))
        sections["final"] = (*final, *sections.get("final", ()))
        if "checkpoint" not in blocks:
            return [*starts, *ends]
        sections["checkpoint"] = tuple(store(t, ref) for t, ref in zip(kept, carried, strict=True))
        return [*starts, *ends, *kept]

    def cotangents_of_reads(self, writer: TileWriter) -> tuple[Statement, ...]:
        """The adjoint of the epilogue: cotangents of what was read."""
        of_reads = dict(self.cotangents)
        writer.lower(live(writer.body, [v for v in of_reads.values() if v is not None]))
        named: list[Statement] = []
        for item in self.form.reads:
            value, axes = of_reads[item.name], self.read_axes(item)
            if value is None:
                named.append(Statement(f"d_{item.name}", "zeros", (), (), self.labels(axes)))
            else:
                named += self.whole(writer, f"d_{item.name}", value, axes)
        return (*_taken(writer), *named)

    def gradient_sections(
        self, writer: TileWriter, sections: dict[str, tuple[Statement, ...]], *, apart: bool
    ) -> list[Tensor]:
        """The adjoint of the prologue; gradients of params are summed over the chunks of a program."""
        stored: dict[str, Statement] = {}
        sections |= self.gradients(writer, stored)
        late = list(sections["gradients"])
        sums, accumulators, partials = self.param_gradients(writer)
        sums = [replace(s, op="total") if s.op == "sum" and not s.labels else s for s in sums]
        if apart:
            partials = [replace(t, place="checkpoint") for t in partials]
        zeros = tuple(Statement(a.name, "zeros", (), (), a.labels) for a in accumulators)
        totals = tuple(self.reduced(accumulators, partials))
        late += _taken(writer)
        if apart:
            sections["gradients"] = (*late, *zeros, *sums, *totals)
        else:
            sections["gradients"] = (*late, *sums)
            sections["initial"], sections["final"] = zeros, totals
        return [*(statement.attrs[0] for statement in stored.values()), *partials]

    def start(self, tensor: Tensor, state: str, axes: Axes) -> Statement:
        name, labels = self.state[state], self.full(axes)
        if self.options.started:
            return read(tensor, name, labels)
        return Statement(name, "zeros", (), (), labels)

    def asked(self) -> list[str]:
        """The reads whose values the adjoint of the epilogue needs."""
        wanted = [v for _, v in (*self.plan.inputs, *self.plan.params, *self.cotangents) if v is not None]
        needed = live(self.plan.body, wanted)
        leaves = {self.plan.body[p].attrs for p in needed if self.plan.body[p].op == "leaf"}
        decays = self.facts.decay != "none"  # what is read over a column has a part in the decays' cotangents
        return [r.name for r in self.form.reads if ("read", r.name) in leaves or (decays and r.over == "column")]


def _taken(writer: TileWriter) -> list[Statement]:
    """What the writer has written since it was last asked."""
    found = list(writer.sections["step"])
    writer.sections["step"].clear()
    return found


def _mixed_first(member: Member) -> Axes:
    return (member.mix,) if member.column is None else (member.mix, member.column)
