"""The end of the two-pass backward: from what both passes say of a step to gradients of inputs and params."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..ir.program import Program
from ..ir.types import Axes
from .reverse import reverse
from .step import Decayed, Event, ReadOut, StepWriter, Written, back_rows
from .sweep import FLOW, Row, Sweep


class Finish:
    """From the rows of both passes to gradients of inputs and params, and the next flow."""

    def __init__(self, program: Program, writer: StepWriter, rows: Sequence[Row], here: bool) -> None:
        self.program, self.writer, self.builder = program, writer, writer.builder
        self.given, self.back = writer.cotangents(), back_rows(writer)
        self.rows = {row.name: row.value if here else writer.row(row.name, row.axes) for row in rows}
        self.seeds: dict[int, int] = {}
        form = writer.form
        self.flow_axes: Axes = (form.mix,) if form.per_channel else ()
        self.reads = [e for e in writer.events if isinstance(e, ReadOut) and f"read_{e.name}" in self.rows]
        self.writes = [e for e in writer.events if isinstance(e, Written) and f"write_{e.name}" in self.rows]

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

    def _between(self, start: Event | None, end: Event | None) -> int | None:
        """The product of the decays between two events; None is the start or the end of the step, or no decay."""
        events = self.writer.events
        first = 0 if start is None else events.index(start) + 1
        last = len(events) if end is None else events.index(end)
        found: int | None = None
        for event in events[first:last]:
            if isinstance(event, Decayed):
                value = self.writer.value(event.decay.value)
                found = value if found is None else self.builder.mul(found, value)
        return found

    def _times(self, value: int, decay: int | None) -> int:
        return value if decay is None else self.builder.mul(value, decay)

    def _key(self, event: ReadOut | Written) -> int:
        return self.writer.key(event, self.given)

    def _overlaps(self) -> Iterable[tuple[Written, ReadOut, int]]:
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
            if isinstance(event, Decayed):
                core = self._none_past_zero(event, core)
        for event in events:
            if not isinstance(event, Decayed):
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

    def _none_past_zero(self, event: Decayed, value: int) -> int:
        """Nothing flows through a decay of zero; what rounding has left ends there."""
        builder = self.builder
        axes = builder.axes(value)
        decay = builder.spread(self.writer.value(event.decay.value), axes)
        if builder.axes(decay) != axes:  # a flow over all channels: each has a decay of its own
            return value
        zero = builder.spread(builder.const(0.0), axes)
        return builder.emit("where", (builder.emit("eq", (decay, zero), (), axes), zero, value), (), axes)
