"""One step of an affine normal form as a sequence of reads, decays and writes, and bodies written in terms of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...dsl.source import Span
from ..analysis.affine import AffineForm, Decay, Pair
from ..analysis.readout import Read
from ..ir.builder import Builder
from ..ir.program import live
from ..ir.types import Axes
from .reverse import reverse


@dataclass(frozen=True)
class ReadOut:
    """Something is read: by a pair for its erasing write, or by an output."""

    name: str
    pair: Pair | None = None
    out: Read | None = None


@dataclass(frozen=True)
class Decayed:
    decay: Decay


@dataclass(frozen=True)
class Written:
    name: str
    pair: Pair


Event = ReadOut | Decayed | Written


def step_events(form: AffineForm) -> tuple[Event, ...]:
    """What happens in a step, in order."""
    events: list[Event] = [ReadOut(r.name, out=r) for r in form.reads if r.before]
    number = 0
    for link in form.links:
        named = [(f"{number + n}", pair) for n, pair in enumerate(link.pairs)]
        number += len(named)
        events += [ReadOut(f"pair_{n}", p) for n, p in named if p.read is not None and not p.post]
        events += [Decayed(link.decay)] if link.decay is not None else []
        events += [ReadOut(f"pair_{n}", p) for n, p in named if p.read is not None and p.post]
        events += [Written(f"pair_{n}", p) for n, p in named]
    return (*events, *(ReadOut(r.name, out=r) for r in form.reads if not r.before))


# ---------------------------------------------------------------- writing bodies


class StepWriter:
    """A body in terms of the normal form: values of the prologue are copied on demand, rows are leaves."""

    def __init__(self, form: AffineForm, events: Sequence[Event], span: Span | None) -> None:
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

    def at(self, event: Event) -> None:
        """What is computed from now on comes from where an event was written."""
        self.builder.span = self.span
        if isinstance(event, ReadOut) and event.out is not None:
            leaves = self._leaf(event.out)
            self.builder.span = self.form.body[leaves[0]].span if leaves else self.span

    def row(self, name: str, axes: Axes) -> int:
        return self.builder.leaf("saved", name, axes)

    def column(self, member: int) -> Axes:
        column = self.form.members[member].column
        return () if column is None else (column,)

    def members(self, event: ReadOut | Written) -> list[int]:
        """The members that an event is about."""
        out = event.out if isinstance(event, ReadOut) else None
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

    def heard(self, event: ReadOut, member: int) -> int:
        """The row of what a pair has read."""
        return self.row(f"{event.name}_{member}", self.column(member))

    def written(self, event: Written, member: int, read: int | None) -> int | None:
        """What a pair writes, given what it has read."""
        pair = event.pair
        found = None if pair.values[member] is None else self.value(pair.values[member])  # type: ignore[arg-type]
        if read is None:
            return found
        scaled = read if pair.scale is None else self.builder.mul(read, self.value(pair.scale))
        return scaled if found is None else self.builder.add(found, scaled)

    def values(self, event: Written) -> dict[int, int]:
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

    def flowing(self, event: ReadOut, given: dict[str, int], back: dict[tuple[str, int], int]) -> dict[int, int] | None:
        """``w_r`` by member: what the carried states are multiplied with for a read's gradient, if it has one."""
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

    def key(self, event: ReadOut | Written, given: dict[str, int]) -> int:
        """The vector along the mixed axis of a read or a write; that of a read along columns is its cotangent."""
        if isinstance(event, Written):
            return self.value(event.pair.key)
        if event.out is not None:
            return self.query(event.out) if event.out.over == "mix" else given[event.name]
        assert event.pair is not None and event.pair.read is not None
        return self.value(event.pair.read)


def back_rows(writer: StepWriter) -> dict[tuple[str, int], int]:
    """The rows of the reverse pass: cotangents of what was written."""
    found = {}
    for event in writer.events:
        if isinstance(event, Written):
            for m in writer.values(event):
                found[event.name, m] = writer.row(f"back_{event.name}_{m}", writer.column(m))
    return found
