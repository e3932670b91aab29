"""The backward pass of a recurrence in affine normal form, as recurrences of their own (algorithms.md section 5).

Forward keeps, per step, what erasing reads have read: vectors, no states. Then the *reverse* pass carries the cotangents
of the states from the end to the start and yields those of the values that were written; the pass *again* carries
the states from the start and is read with these; *finish* puts both together and goes through the prologue.
Writes and reads are on an equal footing: read r has a vector ``R_r`` and a cotangent ``w_r``, write i a key ``K_i`` and a
value ``n_i``, and everything that a step needs of the carried matrices are the rows ``D n_i`` and ``S w_r``.

The gradient of a log decay needs no state: scaling a row of the state by any number leaves what is read of it unchanged
if the later keys are scaled back. The *flow* ``rowsum(D * S)`` from a step to all later ones is carried instead:

    flow' = flow - sum_r R_r * (S w_r) + sum_i K_i * (D n_i)

with S before the step and D after it, so that what a step writes and reads itself never enters and cannot cancel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...dsl.source import Span
from ..analysis.affine import AffineForm, Decay, Pair
from ..analysis.linear import Reason
from ..analysis.ranges import promises, ranges
from ..analysis.readout import Read
from ..ir.builder import Builder
from ..ir.program import Body, Instr, Output, Program, depends_on, live
from ..ir.types import Axes, Axis
from .low_rank import LowRank, dot
from .reverse import Named, reverse

FLOW = "flow"
"""The name of the flow among kept leaves."""

SMALLEST = 2.0**-4
"""A decay whose logarithm has to be taken is divided by in the end: below this, more than four bits would be lost."""


@dataclass(frozen=True)
class Row:
    """A value per step that one pass writes for others: leaf ("saved", ``name``) where it is read."""

    name: str
    value: int
    axes: Axes


@dataclass(frozen=True)
class Sweep:
    """One pass: a body, new values of what it carries by state, what it writes per step, gradients and the new flow."""

    body: Body
    carried: tuple[tuple[str, int], ...] = ()
    rows: tuple[Row, ...] = ()
    inputs: Named = ()
    params: Named = ()
    flow: int | None = None

    def roots(self) -> tuple[int, ...]:
        found = [v for _, v in (*self.carried, *self.inputs, *self.params) if v is not None]
        return (*found, *(row.value for row in self.rows), *(() if self.flow is None else (self.flow,)))


@dataclass(frozen=True)
class TwoPass:
    """All passes. ``infer`` is the program in normal form, ``forward`` the same with ``kept`` among its outputs.

    ``finish`` is None where the pass ``again`` does its work. ``flow`` are the axes of the flow, None if no gradient needs
    it; ``restart`` is its value in terms of states and of cotangents kept at a step. ``mix`` is the mixed axis.
    """

    mix: Axis
    infer: Program
    forward: Program
    kept: tuple[str, ...]
    reverse: Sweep
    again: Sweep
    finish: Sweep | None
    flow: Axes | None
    restart: Sweep | None


class NotTwoPass(Exception):
    """Why a recurrence keeps states for its backward pass."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


# ---------------------------------------------------------------- one step as events


@dataclass(frozen=True)
class _Read:
    """Something is read: by a pair for its erasing write, or by an output."""

    name: str
    pair: Pair | None = None
    out: Read | None = None


@dataclass(frozen=True)
class _Decay:
    decay: Decay


@dataclass(frozen=True)
class _Write:
    name: str
    pair: Pair


_Event = _Read | _Decay | _Write


def _events(form: AffineForm) -> tuple[_Event, ...]:
    """What happens in a step, in order."""
    events: list[_Event] = [_Read(r.name, out=r) for r in form.reads if r.before]
    number = 0
    for link in form.links:
        named = [(f"{number + n}", pair) for n, pair in enumerate(link.pairs)]
        number += len(named)
        events += [_Read(f"pair_{n}", p) for n, p in named if p.read is not None and not p.post]
        events += [_Decay(link.decay)] if link.decay is not None else []
        events += [_Read(f"pair_{n}", p) for n, p in named if p.read is not None and p.post]
        events += [_Write(f"pair_{n}", p) for n, p in named]
    return (*events, *(_Read(r.name, out=r) for r in form.reads if not r.before))


# ---------------------------------------------------------------- writing bodies


class _Writer:
    """A body in terms of the normal form: values of the prologue are copied on demand, rows are leaves."""

    def __init__(self, form: AffineForm, events: Sequence[_Event], span: Span | None) -> None:
        self.form, self.events, self.span = form, events, span
        self.builder = Builder()
        self._known: dict[int, int] = {}
        self.reads: dict[str, int] = {}

    def value(self, position: int) -> int:
        """A value of the normal form's body; results of reads are in ``reads``, else rows that were kept."""
        body, span = self.form.body, self.builder.span
        for p in sorted(live(body, (position,)) - self._known.keys()):
            instr = body[p]
            self.builder.span = instr.span
            if instr.op == "leaf" and instr.attrs[0] == "read":
                name = instr.attrs[1]
                self._known[p] = self.reads.get(name) or self.row(name, instr.axes)
                continue
            self._known[p] = self.builder.emit(
                instr.op, tuple(self._known[a] for a in instr.args), instr.attrs, instr.axes
            )
            if instr.name is not None:
                self.builder.label(self._known[p], instr.name)
        self.builder.span = span
        return self._known[position]

    def at(self, event: _Event) -> None:
        """What is computed from now on comes from where an event was written."""
        self.builder.span = self.span
        if isinstance(event, _Read) and event.out is not None:
            leaves = self._leaf(event.out)
            self.builder.span = self.form.body[leaves[0]].span if leaves else self.span

    def row(self, name: str, axes: Axes) -> int:
        return self.builder.leaf("saved", name, axes)

    def column(self, member: int) -> Axes:
        column = self.form.members[member].column
        return () if column is None else (column,)

    def members(self, event: _Read | _Write) -> list[int]:
        """The members that an event is about."""
        out = event.out if isinstance(event, _Read) else None
        return [i for i, m in enumerate(self.form.members) if out is None or m.state == out.state]

    def total(self, parts: Iterable[int]) -> int | None:
        found: int | None = None
        for part in parts:
            found = part if found is None else self.builder.add(found, part)
        return found

    # ------------------------------------------------------------ vectors of an event

    def query(self, read: Read) -> int:
        """What an output reads a state with."""
        if read.query is not None:
            return self.value(read.query)
        member = next(m for m in self.form.members if m.state == read.state)
        axis = member.mix if read.over == "mix" else member.column
        assert axis is not None
        return self.builder.spread(self.builder.const(1.0), (axis,))

    def heard(self, event: _Read, member: int) -> int:
        """The row of what a pair has read."""
        return self.row(f"{event.name}_{member}", self.column(member))

    def written(self, event: _Write, member: int, read: int | None) -> int | None:
        """What a pair writes, given what it has read."""
        pair = event.pair
        found = None if pair.values[member] is None else self.value(pair.values[member])  # type: ignore[arg-type]
        if read is None:
            return found
        scaled = read if pair.scale is None else self.builder.mul(read, self.value(pair.scale))
        return scaled if found is None else self.builder.add(found, scaled)

    def values(self, event: _Write) -> dict[int, int]:
        """What a pair writes to each member, from the rows that were kept."""
        found = {}
        for m in self.members(event):
            read = None if event.pair.read is None else self.row(f"{event.name}_{m}", self.column(m))
            value = self.written(event, m, read)
            if value is not None:
                found[m] = value
        return found

    def cotangents(self) -> dict[str, int]:
        """The cotangents of what outputs read, from those of the outputs."""
        body, builder = self.form.body, self.builder
        seeds: dict[int, int] = {}
        for name, position in self.form.outputs:
            value, given = self.value(position), builder.leaf("cotangent", name, body[position].axes)
            seeds[value] = builder.add(seeds[value], given) if value in seeds else given
        leaves = {r.name: self.value(p) for r in self.form.reads for p in self._leaf(r)}
        found = reverse(builder, seeds, list(leaves.values()))
        return {name: found[leaf] for name, leaf in leaves.items() if found[leaf] is not None}  # type: ignore[misc]

    def _leaf(self, read: Read) -> list[int]:
        leaves = (("read", read.name),)
        return [p for p, i in enumerate(self.form.body) if i.op == "leaf" and i.attrs in leaves]

    def flowing(self, event: _Read, given: dict[str, int], back: dict[tuple[str, int], int]) -> dict[int, int] | None:
        """``w_r`` by member: what the carried states are multiplied with for a read's gradient. None if there is none."""
        if event.out is not None:
            if event.name not in given:
                return None
            value = given[event.name] if event.out.over == "mix" else self.query(event.out)
            return dict.fromkeys(self.members(event), value)
        assert event.pair is not None
        found = {}
        for m in self.members(event):
            if (event.name, m) in back:
                value = back[event.name, m]
                scale = event.pair.scale
                found[m] = value if scale is None else self.builder.mul(value, self.value(scale))
        return found or None

    def key(self, event: _Read | _Write, given: dict[str, int]) -> int:
        """The vector along the mixed axis of a read or a write; that of a read along columns is its cotangent."""
        if isinstance(event, _Write):
            return self.value(event.pair.key)
        if event.out is not None:
            return self.query(event.out) if event.out.over == "mix" else given[event.name]
        assert event.pair is not None and event.pair.read is not None
        return self.value(event.pair.read)


# ---------------------------------------------------------------- forward


def _forward(program: Program, form: AffineForm, events: Sequence[_Event]) -> tuple[Program, list[Output]]:
    """The program in normal form, and all rows that it could keep."""
    span = _span(program)
    writer = _Writer(form, events, span)
    builder = writer.builder
    states = [LowRank(builder, m, builder.leaf("state", m.state, m.axes)) for m in form.members]
    rows: list[Output] = []
    heard: dict[tuple[str, int], int] = {}
    nexts: dict[int, int] = {}
    for event in events:
        writer.at(event)
        match event:
            case _Read(out=None):
                for m, state in enumerate(states):
                    heard[event.name, m] = found = state.under(writer.key(event, {}))
                    rows.append(Output(f"{event.name}_{m}", builder.axes(found), found, span))
            case _Read(out=Read() as read):
                (m,) = writer.members(event)
                state = states[m]
                if not read.before:  # of the new state, which the same loop writes
                    nexts[m] = nexts.get(m) or state.whole()
                    state = LowRank(builder, form.members[m], nexts[m])
                vector = writer.query(read)
                found = state.under(vector) if read.over == "mix" else state.along(vector)
                rows.append(Output(event.name, builder.axes(found), found, span))
                writer.reads[event.name] = found
            case _Decay():
                for state in states:
                    state.decay(writer.value(event.decay.value))
            case _Write():
                for m, state in enumerate(states):
                    value = writer.written(event, m, heard.get((event.name, m)))
                    if value is not None:
                        state.write(writer.value(event.pair.key), value)
    builder.span = span
    new = {member.state: nexts.get(m) or states[m].whole() for m, member in enumerate(form.members)}
    values = dict(form.outputs)
    program = replace(
        program,
        states=tuple(replace(s, start=writer.value(s.start), next=new[s.name]) for s in program.states),
        outputs=tuple(replace(o, value=writer.value(values[o.name])) for o in program.outputs),
        gates=(),
        body=tuple(builder.body),
    )
    return program, rows


# ---------------------------------------------------------------- backward


def _reverse(form: AffineForm, events: Sequence[_Event], span: Span | None) -> Sweep:
    """The cotangents of states walk to the start; rows are cotangents of what was written, and what finish needs."""
    writer = _Writer(form, events, span)
    builder = writer.builder
    given = writer.cotangents()
    carried = [LowRank(builder, m, builder.leaf("cotangent", f"{m.state}'", m.axes)) for m in form.members]
    rows: list[tuple[str, int]] = []
    back: dict[tuple[str, int], int] = {}
    later: list[tuple[str, dict[int, int]]] = []
    for event in reversed(events):
        writer.at(event)
        match event:
            case _Read():
                flowing = writer.flowing(event, given, back)
                if flowing is None:
                    continue
                key = writer.key(event, given)
                for m, value in flowing.items():
                    carried[m].write(key, value)
                later.append((event.name, flowing))
            case _Decay():
                for state in carried:
                    state.decay(writer.value(event.decay.value))
            case _Write():
                values = writer.values(event)
                for m in values:
                    back[event.name, m] = carried[m].under(writer.value(event.pair.key))
                    rows.append((f"back_{event.name}_{m}", back[event.name, m]))
                rows += _along(writer, f"write_{event.name}", carried, values)
                for name, flowing in later:
                    overlap = writer.total(dot(builder, flowing[m], values[m]) for m in flowing if m in values)
                    rows += [] if overlap is None else [(f"overlap_{name}_{event.name}", overlap)]
                if event.pair.scale is not None:
                    read = {m: writer.row(f"{event.name}_{m}", writer.column(m)) for m in values}
                    slope = writer.total(dot(builder, read[m], back[event.name, m]) for m in values)
                    rows += [] if slope is None else [(f"slope_{event.name}", slope)]
    builder.span = span
    nexts = tuple((m.state, state.whole()) for m, state in zip(form.members, carried, strict=True))
    return Sweep(tuple(builder.body), nexts, tuple(Row(name, v, builder.axes(v)) for name, v in rows))


def _along(writer: _Writer, name: str, carried: Sequence[LowRank], values: dict[int, int]) -> list[tuple[str, int]]:
    found = writer.total(carried[m].along(value) for m, value in values.items())
    return [] if found is None else [(name, found)]


def _back(writer: _Writer) -> dict[tuple[str, int], int]:
    """The rows of the reverse pass: cotangents of what was written."""
    found = {}
    for event in writer.events:
        if isinstance(event, _Write):
            for m in writer.values(event):
                found[event.name, m] = writer.row(f"back_{event.name}_{m}", writer.column(m))
    return found


def _again(
    form: AffineForm, events: Sequence[_Event], span: Span | None
) -> tuple[_Writer, tuple[tuple[str, int], ...], list[Row]]:
    """States walk from the start again and are read with the cotangents of what was read of them."""
    writer = _Writer(form, events, span)
    builder = writer.builder
    given, back = writer.cotangents(), _back(writer)
    states = [LowRank(builder, m, builder.leaf("state", m.state, m.axes)) for m in form.members]
    rows: list[tuple[str, int]] = []
    for event in events:
        writer.at(event)
        match event:
            case _Read():
                flowing = writer.flowing(event, given, back)
                if flowing is None:
                    continue
                rows += _along(writer, f"read_{event.name}", states, flowing)
                if event.out is not None and event.out.over == "column":
                    (m,) = flowing
                    rows.append((f"column_{event.name}", states[m].under(given[event.name])))
            case _Decay():
                for state in states:
                    state.decay(writer.value(event.decay.value))
            case _Write():
                for m, value in writer.values(event).items():
                    states[m].write(writer.value(event.pair.key), value)
    builder.span = span
    nexts = tuple((m.state, state.whole()) for m, state in zip(form.members, states, strict=True))
    return writer, nexts, [Row(name, v, builder.axes(v)) for name, v in rows]


class _Finish:
    """From the rows of both passes to gradients of inputs and params, and the next flow."""

    def __init__(self, program: Program, writer: _Writer, rows: Sequence[Row], here: bool) -> None:
        self.program, self.writer, self.builder = program, writer, writer.builder
        self.given, self.back = writer.cotangents(), _back(writer)
        self.rows = {row.name: row.value if here else writer.row(row.name, row.axes) for row in rows}
        self.seeds: dict[int, int] = {}
        form = writer.form
        self.flow_axes: Axes = (form.mix,) if form.per_channel else ()
        self.reads = [e for e in writer.events if isinstance(e, _Read) and f"read_{e.name}" in self.rows]
        self.writes = [e for e in writer.events if isinstance(e, _Write) and f"write_{e.name}" in self.rows]

    def sweep(self) -> Sweep:
        self._outputs()
        self._vectors()
        flow = self._decays()
        leaves = {instr.attrs: p for p, instr in enumerate(self.builder.body) if instr.op == "leaf"}
        program = self.program
        asked = [("input", i.name) for i in program.inputs]
        asked += [("param", p.name) for p in program.params if not p.frozen]
        found = reverse(self.builder, self.seeds, [leaves[leaf] for leaf in asked if leaf in leaves])
        inputs, params = (
            tuple((name, found.get(leaves.get((k, name), -1))) for k, name in asked if k == kind)
            for kind in ("input", "param")
        )
        return Sweep(tuple(self.builder.body), (), (), inputs, params, flow)

    def _seed(self, position: int | None, cotangent: int | None) -> None:
        if position is None or cotangent is None:
            return
        value = self.writer.value(position)
        cotangent = self.builder.spread(cotangent, self.builder.axes(value))
        known = self.seeds.get(value)
        self.seeds[value] = cotangent if known is None else self.builder.add(known, cotangent)

    def _outputs(self) -> None:
        for name, position in self.writer.form.outputs:
            axes = self.writer.form.body[position].axes
            self._seed(position, self.builder.leaf("cotangent", name, axes))

    # ------------------------------------------------------------ keys, reads, values, scales

    def _between(self, start: _Event | None, end: _Event | None) -> int | None:
        """The product of the decays between two events; None is the start or the end of the step, or no decay."""
        events = self.writer.events
        first = 0 if start is None else events.index(start) + 1
        last = len(events) if end is None else events.index(end)
        found: int | None = None
        for event in events[first:last]:
            if isinstance(event, _Decay):
                value = self.writer.value(event.decay.value)
                found = value if found is None else self.builder.mul(found, value)
        return found

    def _times(self, value: int, decay: int | None) -> int:
        return value if decay is None else self.builder.mul(value, decay)

    def _key(self, event: _Read | _Write) -> int:
        return self.writer.key(event, self.given)

    def _overlaps(self) -> Iterable[tuple[_Write, _Read, int]]:
        """Writes and reads of one step that see each other, with how much."""
        for write in self.writes:
            for read in self.reads:
                name = f"overlap_{read.name}_{write.name}"
                if name in self.rows:
                    yield write, read, self.rows[name]

    def _vectors(self) -> None:
        builder, writer = self.builder, self.writer
        keys = {w: self._times(self.rows[f"write_{w.name}"], self._between(w, None)) for w in self.writes}
        reads = {r: self._times(self.rows[f"read_{r.name}"], self._between(None, r)) for r in self.reads}
        for write, read, overlap in self._overlaps():
            between = self._between(write, read)
            keys[write] = builder.add(keys[write], self._times(builder.mul(self._key(read), overlap), between))
            reads[read] = builder.add(reads[read], self._times(builder.mul(self._key(write), overlap), between))
        for write, cotangent in keys.items():
            self._seed(write.pair.key, cotangent)
            self._seed(write.pair.scale, self.rows.get(f"slope_{write.name}"))
            for m in writer.values(write):
                self._seed(write.pair.values[m], self.back[write.name, m])
        for read, cotangent in reads.items():
            if read.pair is not None:
                self._seed(read.pair.read, cotangent)
            elif read.out is not None:
                column = read.out.over == "column"
                self._seed(read.out.query, self.rows[f"column_{read.name}"] if column else cotangent)

    # ------------------------------------------------------------ decays

    def _flowing(self, value: int) -> int:
        """A row's part of the flow: all of it where all decays are numbers."""
        return value if self.flow_axes else self.builder.sum(value, 0)

    def _decays(self) -> int:
        """Seeds of the log decays; the new flow."""
        builder, events = self.builder, self.writer.events
        flow = builder.leaf("saved", FLOW, self.flow_axes)
        seen = {r: self._times(self._key(r), self._between(None, r)) for r in self.reads}
        gone = {r: self._flowing(builder.mul(seen[r], self.rows[f"read_{r.name}"])) for r in self.reads}
        left = {w: self._times(self._key(w), self._between(w, None)) for w in self.writes}
        come = {w: self._flowing(builder.mul(left[w], self.rows[f"write_{w.name}"])) for w in self.writes}
        core = flow
        for read in self.reads:
            core = builder.sub(core, gone[read])
        for event in events:
            if isinstance(event, _Decay):
                core = self._none_past_zero(event, core)
        for event in events:
            if not isinstance(event, _Decay):
                continue
            at = events.index(event)
            passing = core
            for read in self.reads:
                passing = builder.add(passing, gone[read]) if events.index(read) > at else passing
            for write in self.writes:
                passing = builder.add(passing, come[write]) if events.index(write) < at else passing
            for write, read, overlap in self._overlaps():
                if events.index(write) < at < events.index(read):
                    both = builder.mul(self._times(self._key(write), self._between(write, read)), self._key(read))
                    passing = builder.add(passing, self._flowing(builder.mul(both, overlap)))
            passing = self._none_past_zero(event, passing)
            log = self.writer.value(event.decay.log)
            if self.flow_axes and not builder.axes(log):
                passing = builder.sum(passing, 0)
            self._seed(event.decay.log, passing)
        return self.writer.total((core, *come.values()))  # type: ignore[return-value]

    def _none_past_zero(self, event: _Decay, value: int) -> int:
        """Nothing flows through a decay of zero; what rounding has left ends there."""
        builder = self.builder
        axes = builder.axes(value)
        decay = builder.spread(self.writer.value(event.decay.value), axes)
        if builder.axes(decay) != axes:  # a flow over all channels: each has a decay of its own
            return value
        zero = builder.spread(builder.const(0.0), axes)
        return builder.emit("where", (builder.emit("eq", (decay, zero), (), axes), zero, value), (), axes)


# ---------------------------------------------------------------- everything


def absorbed(form: AffineForm) -> AffineForm:
    """The same normal form with numbers that multiply a result of a read in what it is read with.

    Their gradients then come with that of the vector, so that the results need not be kept for them.
    """
    builder = Builder(form.body)
    links = tuple(
        replace(link, pairs=tuple(
            pair if pair.read is None or pair.scale is None
            else replace(pair, read=builder.mul(pair.read, pair.scale), scale=None)
            for pair in link.pairs
        ))
        for link in form.links
    )  # fmt: skip
    outputs, reads = dict(form.outputs), []
    for read in form.reads:
        leaf = next((p for p, i in enumerate(builder.body) if i.attrs == ("read", read.name)), None)
        factor = None if leaf is None else _factor(builder.body, leaf, outputs.values())
        while leaf is not None and factor is not None:
            product, scalar = factor
            query = builder.spread(builder.const(1.0), _over(form, read)) if read.query is None else read.query
            read = replace(read, query=builder.mul(query, scalar))
            outputs = {name: _replaced(builder, value, product, leaf) for name, value in outputs.items()}
            factor = _factor(builder.body, leaf, outputs.values())
        reads.append(read)
    return replace(form, body=tuple(builder.body), links=links, reads=tuple(reads), outputs=tuple(outputs.items()))


def _over(form: AffineForm, read: Read) -> Axes:
    """The axis that a read contracts."""
    member = next(m for m in form.members if m.state == read.state)
    axis = member.mix if read.over == "mix" else member.column
    assert axis is not None
    return (axis,)


def _factor(body: Sequence[Instr], leaf: int, roots: Iterable[int]) -> tuple[int, int] | None:
    """The product that alone uses a read's result, and its other factor, if that is a number that reads nothing."""
    needed = live(tuple(body), roots)
    users = [p for p in sorted(needed) if leaf in body[p].args]
    if len(users) != 1 or body[users[0]].op != "mul" or leaf in roots:
        return None
    (other,) = [arg for arg in body[users[0]].args if arg != leaf] or [leaf]
    if other != leaf and body[other].op == "broadcast":
        (other,) = body[other].args
    depends = depends_on(tuple(body), ("read",))
    return None if body[other].axes or depends[other] else (users[0], other)


def _replaced(builder: Builder, value: int, old: int, new: int) -> int:
    """A value in which another takes the place of one of its operands, near or far."""
    known = {old: new}
    for p in sorted(live(tuple(builder.body), (value,))):
        instr = builder.body[p]
        if p not in known:
            args = tuple(known[arg] for arg in instr.args)
            known[p] = p if args == instr.args else builder.emit(instr.op, args, instr.attrs, instr.axes)
    return known[value]


def two_pass(program: Program, form: AffineForm, *, apart: bool) -> TwoPass:
    """The passes of a recurrence; ``apart``: finishing is a pass of its own (NotTwoPass with the reason if it cannot be)."""
    form = absorbed(form)
    events = _events(form)
    infer, outputs = _forward(program, form, events)
    span = _span(program)
    back = _reverse(form, events, span)
    writer, nexts, seen = _again(form, events, span)
    rows = [*back.rows, *seen]
    if apart:
        finish = _Finish(program, _Writer(form, events, span), rows, here=False).sweep()
        again = Sweep(tuple(writer.builder.body), nexts, tuple(seen))
    else:
        known = {row.name: row.value for row in seen}
        given = [replace(r, value=known.get(r.name) or writer.row(r.name, r.axes)) for r in rows]
        finish = _Finish(program, writer, given, here=True).sweep()
        again = replace(finish, carried=nexts)
    needs_flow = _reads(finish, without_flow=True, name=FLOW)
    if needs_flow:
        _check_logs(program, form)
    else:
        finish, again = replace(finish, flow=None), replace(again, flow=None)
    last = finish if apart else again
    used = _saved(last) | _saved(again) if apart else _saved(last)
    back = replace(back, rows=tuple(row for row in back.rows if row.name in used))
    again = replace(again, rows=tuple(row for row in again.rows if row.name in used))
    used |= _saved(back) | _saved(again)
    kept = [output for output in outputs if output.name in used]
    forward = replace(infer, outputs=(*infer.outputs, *kept))
    axes: Axes | None = ((form.mix,) if form.per_channel else ()) if needs_flow else None
    return TwoPass(
        form.mix, infer, forward, tuple(o.name for o in kept), back, again, finish if apart else None,
        axes, _restart(form) if needs_flow else None,
    )  # fmt: skip


def _span(program: Program) -> Span:
    """Where the transition was written."""
    return program.body[program.states[0].next].span or program.states[0].span


def _saved(sweep: Sweep) -> set[str]:
    """The rows that a pass reads."""
    body = sweep.body
    return {body[p].attrs[1] for p in live(body, sweep.roots()) if body[p].op == "leaf" and body[p].attrs[0] == "saved"}


def _reads(sweep: Sweep, *, without_flow: bool, name: str) -> bool:
    return name in _saved(replace(sweep, flow=None) if without_flow else sweep)


def _restart(form: AffineForm) -> Sweep:
    """The flow at a step whose state and cotangent are both at hand."""
    builder = Builder()
    total: int | None = None
    for member in form.members:
        state = builder.leaf("state", member.state, member.axes)
        back = builder.leaf("cotangent", f"{member.state}'", member.axes)
        labels = tuple(range(len(member.axes)))
        part = builder.contract(state, back, labels, labels, (member.position,) if form.per_channel else ())
        total = part if total is None else builder.add(total, part)
    return Sweep(tuple(builder.body), flow=total)


def _check_logs(program: Program, form: AffineForm) -> None:
    """NotTwoPass where a gradient would be divided by a decay that can be small."""
    body, own = form.body, len(program.body)
    learned = {("param", p.name) for p in program.params if not p.frozen}
    varies = depends_on(body, ("input",))
    bounds = ranges(body, promises(program))
    for link in form.links:
        if link.decay is None:
            continue
        for p in sorted(live(body, (link.decay.log,))):
            (arg,) = body[p].args if p >= own and body[p].op == "log" else (None,)
            if arg is None or bounds[arg].low >= SMALLEST:
                continue
            if varies[arg] or any(body[q].attrs in learned for q in live(body, (arg,)) if body[q].op == "leaf"):
                named = next((body[q].name or body[q].attrs[-1] for q in (arg, *body[arg].args)
                              if body[q].name or body[q].op == "leaf"), "it")  # fmt: skip
                raise NotTwoPass(
                    Reason(f"the gradient of its decay `{named}` would be divided by it, and it can be near 0",
                           body[arg].span or program.states[0].span)
                )  # fmt: skip
