"""The backward pass of a recurrence in affine normal form, as recurrences of their own (algorithms.md section 5).

Forward keeps, per step, what erasing reads have read: vectors, no states. Then the *reverse* pass carries the
cotangents of the states from the end to the start and yields those of the values that were written; the pass *again*
carries the states from the start and is read with these; *finish* puts both together and goes through the prologue.
Writes and reads are on an equal footing: read r has a vector ``R_r`` and a cotangent ``w_r``, write i a key ``K_i`` and
a value ``n_i``, and everything that a step needs of the carried matrices are the rows ``D n_i`` and ``S w_r``.

The gradient of a log decay needs no state: scaling a row of the state by any number leaves what is read of it unchanged
if the later keys are scaled back. The *flow* ``rowsum(D * S)`` from a step to all later ones is carried instead:

    flow' = flow - sum_r R_r * (S w_r) + sum_i K_i * (D n_i)

with S before the step and D after it, so that what a step writes and reads itself never enters and cannot cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...dsl.source import Span
from ..analysis.absorb import absorbed
from ..analysis.affine import AffineForm
from ..analysis.linear import Reason
from ..analysis.ranges import promises, ranges
from ..analysis.readout import Read
from ..ir.builder import Builder
from ..ir.program import Output, Program, depends_on, live
from ..ir.types import Axes, Axis
from .finish import Finish
from .low_rank import LowRank, dot
from .step import Decayed, Event, ReadOut, StepWriter, Written, back_rows, step_events
from .sweep import FLOW, Row, Sweep, saved_rows

SMALLEST = 2.0**-4
"""A decay whose logarithm has to be taken is divided by in the end: below this, more than four bits would be lost."""


@dataclass(frozen=True)
class TwoPass:
    """All passes. ``infer`` is the program in normal form, ``forward`` the same with ``kept`` among its outputs.

    ``finish`` is None where the pass ``again`` does its work. ``flow`` are the axes of the flow, None if no gradient
    needs it; ``restart`` is its value in terms of states and of cotangents kept at a step. ``mix`` is the mixed axis.
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


def two_pass(program: Program, form: AffineForm, *, apart: bool) -> TwoPass:
    """The passes of a recurrence; ``apart``: finishing is a pass of its own.

    NotTwoPass with the reason where states have to be kept.
    """
    form = absorbed(form)
    events = step_events(form)
    infer, outputs = _forward(program, form, events)
    span = _span(program)
    back = _reverse(form, events, span)
    writer, nexts, seen = _again(form, events, span)
    rows = [*back.rows, *seen]
    if apart:
        finish = Finish(program, StepWriter(form, events, span), rows, here=False).sweep()
        again = Sweep(tuple(writer.builder.body), nexts, tuple(seen))
    else:
        known = {row.name: row.value for row in seen}
        given = [replace(r, value=known.get(r.name) or writer.row(r.name, r.axes)) for r in rows]
        finish = Finish(program, writer, given, here=True).sweep()
        again = replace(finish, carried=nexts)
    needs_flow = FLOW in saved_rows(replace(finish, flow=None))
    if needs_flow:
        _check_logs(program, form)
    else:
        finish, again = replace(finish, flow=None), replace(again, flow=None)
    last = finish if apart else again
    used = saved_rows(last) | saved_rows(again) if apart else saved_rows(last)
    back = replace(back, rows=tuple(row for row in back.rows if row.name in used))
    again = replace(again, rows=tuple(row for row in again.rows if row.name in used))
    used |= saved_rows(back) | saved_rows(again)
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


# ---------------------------------------------------------------- the passes


def _forward(program: Program, form: AffineForm, events: Sequence[Event]) -> tuple[Program, list[Output]]:
    """The program in normal form, and all rows that it could keep."""
    span = _span(program)
    writer = StepWriter(form, events, span)
    builder = writer.builder
    states = [LowRank(builder, m, builder.leaf("state", m.state, m.axes)) for m in form.members]
    rows: list[Output] = []
    heard: dict[tuple[str, int], int] = {}
    nexts: dict[int, int] = {}
    for event in events:
        writer.at(event)
        match event:
            case ReadOut(out=None):
                for m, state in enumerate(states):
                    heard[event.name, m] = found = state.under(writer.key(event, {}))
                    rows.append(Output(f"{event.name}_{m}", builder.axes(found), found, span))
            case ReadOut(out=Read() as read):
                (m,) = writer.members(event)
                state = states[m]
                if not read.before:  # of the new state, which the same loop writes
                    nexts[m] = nexts.get(m) or state.whole()
                    state = LowRank(builder, form.members[m], nexts[m])
                vector = writer.query(read)
                found = state.under(vector) if read.over == "mix" else state.along(vector)
                rows.append(Output(event.name, builder.axes(found), found, span))
                writer.reads[event.name] = found
            case Decayed():
                for state in states:
                    state.decay(writer.value(event.decay.value))
            case Written():
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


def _reverse(form: AffineForm, events: Sequence[Event], span: Span | None) -> Sweep:
    """The cotangents of states walk to the start; rows are cotangents of what was written, and what finish needs."""
    writer = StepWriter(form, events, span)
    builder = writer.builder
    given = writer.cotangents()
    carried = [LowRank(builder, m, builder.leaf("cotangent", f"{m.state}'", m.axes)) for m in form.members]
    rows: list[tuple[str, int]] = []
    back: dict[tuple[str, int], int] = {}
    later: list[tuple[str, dict[int, int]]] = []
    for event in reversed(events):
        writer.at(event)
        match event:
            case ReadOut():
                flowing = writer.flowing(event, given, back)
                if flowing is None:
                    continue
                key = writer.key(event, given)
                for m, value in flowing.items():
                    carried[m].write(key, value)
                later.append((event.name, flowing))
            case Decayed():
                for state in carried:
                    state.decay(writer.value(event.decay.value))
            case Written():
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


def _along(writer: StepWriter, name: str, carried: Sequence[LowRank], values: dict[int, int]) -> list[tuple[str, int]]:
    found = writer.total(carried[m].along(value) for m, value in values.items())
    return [] if found is None else [(name, found)]


def _again(
    form: AffineForm, events: Sequence[Event], span: Span | None
) -> tuple[StepWriter, tuple[tuple[str, int], ...], list[Row]]:
    """States walk from the start again and are read with the cotangents of what was read of them."""
    writer = StepWriter(form, events, span)
    builder = writer.builder
    given, back = writer.cotangents(), back_rows(writer)
    states = [LowRank(builder, m, builder.leaf("state", m.state, m.axes)) for m in form.members]
    rows: list[tuple[str, int]] = []
    for event in events:
        writer.at(event)
        match event:
            case ReadOut():
                flowing = writer.flowing(event, given, back)
                if flowing is None:
                    continue
                rows += _along(writer, f"read_{event.name}", states, flowing)
                if event.out is not None and event.out.over == "column":
                    (m,) = flowing
                    rows.append((f"column_{event.name}", states[m].under(given[event.name])))
            case Decayed():
                for state in states:
                    state.decay(writer.value(event.decay.value))
            case Written():
                for m, value in writer.values(event).items():
                    states[m].write(writer.value(event.pair.key), value)
    builder.span = span
    nexts = tuple((m.state, state.whole()) for m, state in zip(form.members, states, strict=True))
    return writer, nexts, [Row(name, v, builder.axes(v)) for name, v in rows]


# ---------------------------------------------------------------- the flow


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
