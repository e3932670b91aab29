"""The chunk-parallel kernels of a recurrence in affine normal form (algorithms.md sections 2 to 4).

A program walks one head of one sequence, a chunk of steps at a time, with the state on chip. The template holds the
algorithm on tiles; what is printed here is what depends on the spec: the *prologue* (decays, keys, values, queries of
a chunk's steps from the inputs), the *epilogue* (outputs from what was read) and the adjoints of both.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..analysis.affine import AffineForm, Member
from ..analysis.readout import Read
from ..autodiff.plan import Plan
from ..autodiff.reverse import reverse
from ..ir.builder import Builder
from ..ir.program import Program, live
from ..ir.size import Size
from ..ir.types import Axes, Axis
from .kernel_ir import Kernel, Ref, Statement, Tensor
from .layout import ROWS, Label, Layout, identifier, labels_of
from .recurrent import Maker, read, store
from .tiles import TileWriter

INVERSE = (Axis("row of a chunk", Size(0)), Axis("column of a chunk", Size(0)))
"""The axes of a chunk's triangular inverse; no axis of a spec has such a name."""


@dataclass(frozen=True)
class Role:
    """A value of the prologue under the name that the template gives it; ``axes`` beside the chunk's steps.

    ``gradient`` is whether the template computes the cotangent ``d_NAME``.
    """

    name: str
    value: int
    axes: Axes
    gradient: bool = True

    @property
    def kind(self) -> str:
        """The name without its numbers."""
        return self.name.split("_")[0]


PHASES = {
    "keys": ("log", "sign", "key", "erase", "scale", "write"),
    "values": ("value", "given"),
    "queries": ("query",),
}
"""Kinds of roles by the part of the algorithm that needs them first."""


@dataclass(frozen=True)
class Memory:
    """A state of the group in kernels: its variable, whether it has no columns, and which rows of a step are given
    something to write to it."""

    state: str
    vector: bool
    rows: tuple[bool, ...]


@dataclass(frozen=True)
class Given:
    """A write of what was given, and to which states."""

    values: tuple[bool, ...]


@dataclass(frozen=True)
class Query:
    """A query, over the mixed axis or a column, before or after the step."""

    name: str
    before: bool
    over: str


@dataclass(frozen=True)
class ReadOut:
    """What a query reads of a member."""

    name: str
    member: int
    query: str
    over: str
    before: bool


@dataclass(frozen=True)
class ChunkFacts:
    """What of the algorithm a recurrence needs, for the printer.

    ``decay`` is none, scalar or channel; ``logs`` and ``signs`` are per link. A step has ``substeps`` rows that read
    the state (a power of two; 0: none does), row i in link ``links[i]``, of which ``reader``, ``scale`` and ``post``
    say whether it reads, with a scale, after the link's decay. ``operand`` is the type of operands of matrix
    products and ``precision`` the form of float32 ones. ``asked`` are the reads that the backward computes again.
    """

    chunk: int
    operand: str
    precision: str
    decay: str
    logs: tuple[str | None, ...]
    signs: tuple[str | None, ...]
    links: tuple[int, ...]
    substeps: int
    reader: tuple[bool, ...]
    scale: tuple[bool, ...]
    post: tuple[bool, ...]
    members: tuple[Memory, ...]
    given: tuple[Given, ...]
    queries: tuple[Query, ...]
    reads: tuple[ReadOut, ...]
    asked: tuple[str, ...] = ()

    @property
    def signed(self) -> bool:
        return any(sign is not None for sign in self.signs)

    @property
    def scaled(self) -> bool:
        return any(self.scale)


@dataclass(frozen=True)
class Chunked:
    """The kernels of one recurrence at one layout; ``chunk`` is the number of steps of a chunk."""

    form: AffineForm
    layout: Layout
    chunk: int
    infer: tuple[Kernel, ...]
    forward: tuple[Kernel, ...]
    backward: tuple[Kernel, ...]

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, in order of use."""
        return (*self.infer, *self.forward, *self.backward)


@dataclass(frozen=True)
class ChunkOptions:
    """How kernels compute: ``operand`` is the element type of matrix products (``tl.float32``, ``tl.bfloat16``,
    ``tl.float16``), ``precision`` the form of float32 ones; ``started`` whether start states are given."""

    operand: str
    precision: str
    strided: bool
    started: bool = True


def roles_and_facts(
    form: AffineForm, states: Mapping[str, str], chunk: int, options: ChunkOptions
) -> tuple[tuple[Role, ...], ChunkFacts]:
    """The values of the prologue by name and the parts of the algorithm that a normal form needs."""
    mix = (form.mix,)
    roles: list[Role] = []
    logs: list[str | None] = []
    signs: list[str | None] = []
    wide = mix if form.per_channel else ()
    for number, link in enumerate(form.links):
        logs.append(None if link.decay is None else f"log_{number}")
        signs.append(None if link.decay is None or link.decay.sign is None else f"sign_{number}")
        if link.decay is not None:
            roles.append(Role(f"log_{number}", link.decay.log, wide))
            if link.decay.sign is not None:
                roles.append(Role(f"sign_{number}", link.decay.sign, wide, gradient=False))
    pairs = [(number, pair) for number, link in enumerate(form.links) for pair in link.pairs]
    several = len(form.links) > 1
    rows = [(n, pair) for n, pair in pairs if pair.read is not None or several]
    given = [pair for _, pair in pairs if pair.read is None and not several]
    for i, (_, pair) in enumerate(rows):
        roles.append(Role(f"key_{i}", pair.key, mix))
        if pair.read is not None:
            roles.append(Role(f"erase_{i}", pair.read, mix))
            if pair.scale is not None:
                roles.append(Role(f"scale_{i}", pair.scale, ()))
        roles += _values(form, f"value_{i}", pair.values)
    for j, pair in enumerate(given):
        roles.append(Role(f"write_{j}", pair.key, mix))
        roles += _values(form, f"given_{j}", pair.values)
    queries, reads = _queries(form, roles)
    members = tuple(
        Memory(states[m.state], m.column is None, tuple(pair.values[i] is not None for _, pair in rows))
        for i, m in enumerate(form.members)
    )
    return tuple(roles), ChunkFacts(
        chunk=chunk,
        operand=options.operand,
        precision=options.precision,
        decay="channel" if form.per_channel else "scalar" if form.decays else "none",
        logs=tuple(logs),
        signs=tuple(signs),
        links=tuple(n for n, _ in rows),
        substeps=1 << (len(rows) - 1).bit_length() if rows else 0,
        reader=tuple(pair.read is not None for _, pair in rows),
        scale=tuple(pair.scale is not None for _, pair in rows),
        post=tuple(pair.post for _, pair in rows),
        members=members,
        given=tuple(Given(tuple(v is not None for v in pair.values)) for pair in given),
        queries=queries,
        reads=reads,
    )


def _values(form: AffineForm, name: str, values: Sequence[int | None]) -> list[Role]:
    found = []
    for i, (member, value) in enumerate(zip(form.members, values, strict=True)):
        if value is not None:
            found.append(Role(f"{name}_{i}", value, () if member.column is None else (member.column,)))
    return found


def _queries(form: AffineForm, roles: list[Role]) -> tuple[tuple[Query, ...], tuple[ReadOut, ...]]:
    """Distinct queries, and what each reads."""
    index = {member.state: i for i, member in enumerate(form.members)}
    queries: dict[tuple[Any, ...], Query] = {}
    reads = []
    for item in form.reads:
        member = index[item.state]
        column = form.members[member].column
        axes = (form.mix,) if item.over == "mix" else (column,) if column is not None else ()
        key = (item.query, item.over, item.before, member if item.over == "column" else None)
        if key not in queries:
            queries[key] = Query(f"query_{len(queries)}", item.before, item.over)
            roles.append(Role(queries[key].name, item.query, axes))
        reads.append(ReadOut(item.name, member, queries[key].name, item.over, item.before))
    return tuple(queries.values()), tuple(reads)


@dataclass(frozen=True)
class _Adjoint:
    """Prologue and epilogue with their adjoints in one body."""

    body: Any
    inputs: tuple[tuple[str, int | None], ...]
    params: tuple[tuple[str, int | None], ...]
    reads: tuple[tuple[str, int | None], ...]


def _adjoint(program: Program, form: AffineForm, roles: Sequence[Role]) -> _Adjoint:
    """Cotangents of reads from those of outputs; of inputs and params from those of outputs and of all roles."""
    builder = Builder(form.body)
    seeds: dict[int, int] = {}

    def seed(value: int, name: str) -> None:
        leaf = builder.leaf("cotangent", name, builder.axes(value))
        seeds[value] = builder.add(seeds[value], leaf) if value in seeds else leaf

    for (name, value), output in zip(form.outputs, program.outputs, strict=True):
        assert name == output.name
        seed(value, name)
    outside = dict(seeds)
    for role in roles:
        if role.gradient and builder.body[role.value].op not in ("const", "size"):
            narrow = builder.axes(role.value)
            if narrow == role.axes:
                seed(role.value, f"role {role.name}")
            else:  # the role spreads a scalar over its axes
                leaf = builder.leaf("cotangent", f"role {role.name}", role.axes)
                total = builder.sum(leaf, 0)
                seeds[role.value] = builder.add(seeds[role.value], total) if role.value in seeds else total
    positions = {i.attrs: p for p, i in enumerate(form.body) if i.op == "leaf"}
    asked = [("input", i.name) for i in program.inputs]
    asked += [("param", p.name) for p in program.params if not p.frozen]
    wrt = [positions[leaf] for leaf in asked if leaf in positions]
    reads = [positions["read", r.name] for r in form.reads if ("read", r.name) in positions]
    of_reads = reverse(builder, outside, reads)
    found = reverse(builder, seeds, wrt)

    def named(kind: str) -> tuple[tuple[str, int | None], ...]:
        return tuple((name, found.get(positions.get((k, name), -1))) for k, name in asked if k == kind)

    return _Adjoint(
        tuple(builder.body),
        named("input"),
        named("param"),
        tuple((r.name, of_reads.get(positions.get(("read", r.name), -1))) for r in form.reads),
    )


def lower_chunk(
    program: Program, form: AffineForm, layout: Layout, options: ChunkOptions, wide: Container[str] = ()
) -> Chunked:
    """All kernels of a recurrence in affine normal form; ``layout.rows`` is the number of steps of a chunk."""
    maker = _ChunkMaker(program, form, layout, options, wide)
    forward, backward = maker.forward(train=True), maker.backward()
    return Chunked(form, maker.layout, layout.rows, (maker.forward(train=False),), (forward,), (backward,))


class _ChunkMaker(Maker):
    """Adds to the maker of kernels what a chunk needs: roles as variables, the tensors kept per chunk."""

    def __init__(
        self, program: Program, form: AffineForm, layout: Layout, options: ChunkOptions, wide: Container[str]
    ) -> None:
        self.form, self.options = form, options
        names = {state.name: state.name for state in program.states}
        roles, facts = roles_and_facts(form, names, layout.rows, options)
        rows = layout.rows * max(1, facts.substeps)
        sides = {axis.name: rows for axis in INVERSE}
        order = {**layout.order, **{name: len(layout.order) + i for i, name in enumerate(sides)}}
        layout = replace(layout, sizes={**layout.sizes, **sides}, blocks={**layout.blocks, **sides}, order=order)
        adjoint = _adjoint(program, form, roles)
        self.cotangents = adjoint.reads
        plan = Plan(adjoint.body, (), adjoint.inputs, adjoint.params, (), ())
        super().__init__(program, plan, layout, options.precision, layout.rows, options.strided, wide)
        self.roles, self.facts = roles_and_facts(form, self.state, layout.rows, options)
        named = [role.name for role in self.roles] + [read.name for read in self.facts.reads]
        self.reserved |= {word for name in named for word in (name, f"d_{name}")}

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

    def prologue(self, writer: TileWriter) -> dict[str, tuple[Statement, ...]]:
        """The roles in the order in which the algorithm needs them, so that tiles are loaded late."""
        found = {}
        for section, kinds in PHASES.items():
            roles = [role for role in self.roles if role.kind in kinds]
            writer.lower(live(writer.body, [role.value for role in roles]))
            named = [s for role in roles for s in self.whole(writer, role.name, role.value, role.axes)]
            found[f"prologue_{section}"] = (*_taken(writer), *named)
        return found

    def gradients(self, writer: TileWriter, stores: dict[str, Statement]) -> dict[str, tuple[Statement, ...]]:
        """Cotangents of inputs as soon as those of the roles that they need are there, so that tiles live short."""
        body = writer.body
        done: set[str] = set()
        sections = {}
        for section in ("queries", "values"):
            done |= {f"role {role.name}" for role in self.roles if role.kind in PHASES[section]}
            ready = [value for _, value in self.plan.inputs if value is not None and self.needs(value) <= done]
            writer.lower(live(body, ready))
            names = [n for n, v in self.plan.inputs if v in ready and n not in stores]
            statements = _taken(writer)
            for name in names:
                stores[name] = self.gradient_store(writer, name)
                statements.append(stores[name])
            sections[f"gradients_{section}"] = tuple(statements)
        return sections

    def needs(self, value: int) -> set[str]:
        """The roles whose cotangents a value reads."""
        body = self.plan.body
        leaves = {body[p].attrs for p in live(body, (value,)) if body[p].op == "leaf"}
        return {name for kind, name in leaves if kind == "cotangent" and name.startswith("role ")}

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

    def forward(self, *, train: bool) -> Kernel:
        program = self.program
        starts = {s.name: Tensor(f"{s.name}_start", "sequence", s.axes) for s in program.states}
        ends = {s.name: self.once(f"{s.name}_end", "sequence", s.axes) for s in program.states}
        outputs = {o.name: self.once(o.name, "step", o.axes, compute=o.name in self.wide) for o in program.outputs}
        writer = self.writer(self.form.body, self.sources())
        prologue = self.prologue(writer)
        values = dict(self.form.outputs)
        writer.lower(live(writer.body, values.values()))
        stores = [store(outputs[name], writer.ref(value)) for name, value in values.items()]
        epilogue = [*_taken(writer), *stores]
        states = self.states()
        kept = self.kept() if train else []
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": tuple(self.start(starts[s.name], s.name, s.axes) for s in program.states),
            **prologue,
            "epilogue": tuple(epilogue),
            "final": tuple(store(ends[name], ref) for name, ref in states.items()),
            "checkpoint": tuple(store(t, states[s.name]) for t, s in zip(kept, program.states, strict=False)),
        }
        used = starts.values() if self.options.started else ()
        tensors = self.used(writer, used, outputs.values(), ends.values(), kept)
        walked = tuple(t.name for t in tensors if t.place in ("step", "checkpoint"))
        name = f"{program.name}_{'chunk_forward' if train else 'chunk_infer'}"
        return Kernel(
            name, "chunk_forward", self.layout, tensors, sections, walked, self.chunk_facts(train=train), "right"
        )

    def start(self, tensor: Tensor, state: str, axes: Axes) -> Statement:
        name, labels = self.state[state], self.full(axes)
        if self.options.started:
            return read(tensor, name, labels)
        return Statement(name, "zeros", (), (), labels)

    def backward(self) -> Kernel:
        program = self.program
        states = self.states()
        sources = self.sources()
        for output in program.outputs:
            wide = output.name in self.wide
            sources["cotangent", output.name] = self.once(f"d_{output.name}", "step", output.axes, compute=wide)
        for role in self.roles:
            sources["cotangent", f"role {role.name}"] = Ref(f"d_{role.name}", self.labels(role.axes))
        writer = self.writer(self.plan.body, sources)
        prologue = self.prologue(writer)
        of_reads = {name: value for name, value in self.cotangents}
        writer.lower(live(writer.body, [v for v in of_reads.values() if v is not None]))
        cotangents = []
        for item in self.form.reads:
            value, axes = of_reads[item.name], self.read_axes(item)
            if value is None:
                cotangents.append(Statement(f"d_{item.name}", "zeros", (), (), self.labels(axes)))
            else:
                cotangents += self.whole(writer, f"d_{item.name}", value, axes)
        before = [*_taken(writer), *cotangents]
        stored: dict[str, Statement] = {}
        early = self.gradients(writer, stored)
        writer.lower(live(writer.body, self.plan.wanted()))
        late = _taken(writer)
        for name, value in self.plan.inputs:
            if value is not None and name not in stored:
                stored[name] = self.gradient_store(writer, name)
                late.append(stored[name])
        outs = [statement.attrs[0] for statement in stored.values()]
        sums, accumulators, partials = self.param_gradients(writer)
        kept = [replace(t, first_tile=()) for t in self.kept()]
        starts = [self.each(f"d_{s.name}_end", "sequence", s.axes) for s in program.states]
        ends = [self.each(f"d_{s.name}_start", "sequence", s.axes) for s in program.states]
        carried = [Ref(f"d_{s.name}", self.full(s.axes)) for s in program.states]
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": (
                *(read(t, ref.name, ref.labels) for t, ref in zip(starts, carried, strict=True)),
                *(Statement(a.name, "zeros", (), (), a.labels) for a in accumulators),
            ),
            "before": tuple(
                read(t, ref.name, ref.labels)
                for t, ref in zip(kept[: len(program.states)], states.values(), strict=True)
            ),
            **prologue,
            **early,
            "cotangents": tuple(before),
            "gradients": (*late, *_taken(writer), *sums),
            "final": (
                *(store(t, ref) for t, ref in zip(ends, carried, strict=True)),
                *self.reduced(accumulators, partials),
            ),
        }
        loaded = [t for t in writer.loaded.values() if t.name not in self.inputs and t.name not in self.params]
        tensors = self.used(writer, loaded, starts, outs, ends, partials, kept)
        walked = tuple(t.name for t in tensors if t.place in ("step", "checkpoint"))
        name = f"{program.name}_chunk_backward"
        facts = self.chunk_facts(train=True, asked=self.asked())
        return Kernel(name, "chunk_backward", self.layout, tensors, sections, walked, facts, "left")

    def asked(self) -> list[str]:
        """The reads whose values the adjoint of the epilogue needs."""
        wanted = [v for _, v in (*self.plan.inputs, *self.plan.params, *self.cotangents) if v is not None]
        needed = live(self.plan.body, wanted)
        leaves = {self.plan.body[p].attrs for p in needed if self.plan.body[p].op == "leaf"}
        decays = self.facts.decay != "none"  # what is read over a column has a part in the decays' cotangents
        return [r.name for r in self.form.reads if ("read", r.name) in leaves or (decays and r.over == "column")]

    def chunk_facts(self, *, train: bool, asked: Sequence[str] = ()) -> dict[str, Any]:
        """For the template and the printer."""
        first = " & ".join(f"(i_{identifier(name)} == 0)" for name in self.layout.tiles)
        facts = replace(self.facts, asked=tuple(asked))
        constants = ("exact",) if facts.substeps else ()
        return {"train": train, "chunk": self.layout.rows, "algorithm": facts, "first": first, "constants": constants}


def _taken(writer: TileWriter) -> list[Statement]:
    """What the writer has written since it was last asked."""
    found = list(writer.sections["step"])
    writer.sections["step"].clear()
    return found


def _mixed_first(member: Member) -> Axes:
    return (member.mix,) if member.column is None else (member.mix, member.column)
