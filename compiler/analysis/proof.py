"""Proves for a spec at hand that its affine normal form is its step: the symbolic difference is zero, exactly.

Both sides are written as polynomials (canonical.py) in the entries of inputs, params and states and in what functions
make of them, at sizes small enough for SymPy: 2 along the mixed axis, 3 along others, or the least that the spec
allows. Equal polynomials are equal for all values of the leaves. A decay is taken as the normal form means it, the
exponential of its logarithm times its sign, and compared with its plain value, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..checks.sizes import fitting_sizes
from ..ir.program import Body, Program, live
from ..ir.types import Axis
from .affine import AffineForm, Link, Member, Pair
from .canonical import Canonical
from .ranges import promises, ranges
from .symbolic import Entry, Value, entries

MIXED, OTHER = 2, 3


class NotProved(AssertionError):
    """A normal form is not the step of its spec: a bug in the compiler, never the user's mistake."""


def prove(program: Program, form: AffineForm) -> None:
    """Check the normal form of a program, entry by entry (NotProved with the difference where there is one)."""
    _check_form(program, form)
    sizes = _sizes(program, form.mix)
    walk = Canonical(sizes)
    bounds = ranges(form.body, promises(program))
    leaves = _leaves(walk, form.body)
    new = {state.name: state.next for state in program.states}
    wanted = [*form.values(), *new.values(), *(x.decay.value for x in form.links if x.decay is not None)]
    values = walk.values(form.body, wanted, leaves, bounds)
    step = _Step(walk, form, values)
    for at, link in enumerate(form.links):
        if link.decay is not None:
            true = values[link.decay.value]
            _compare(program, f"the decay of sub-step {at}", {e: step.decay(link, e) for e in true}, true)
    for index, member in enumerate(form.members):
        leaves.setdefault(("state", member.state), walk.leaf(member.state, member.axes))
        found = step.after(leaves["state", member.state], index)
        _compare(program, f"{member.state}'", found, values[new[member.state]])
    _prove_outputs(program, form, walk, leaves)


def _prove_outputs(program: Program, form: AffineForm, walk: Canonical, leaves: dict[tuple[str, str], Value]) -> None:
    """The same for outputs, as functions of old and new states, whatever those are."""
    body = list(form.body)
    for state in program.states:
        if body[state.next].op != "leaf":
            body[state.next] = replace(body[state.next], op="leaf", args=(), attrs=("new", state.name))
            leaves["new", state.name] = walk.leaf(f"{state.name}'", state.axes)
    cut = tuple(body)
    bounds = ranges(form.body, promises(program))
    given = walk.values(
        cut, [*(read.query for read in form.reads), *(state.next for state in program.states)], leaves, bounds
    )
    after = {state.name: given[state.next] for state in program.states}
    for read in form.reads:
        seen = leaves["state", read.state] if read.before else after[read.state]
        member = next(m for m in form.members if m.state == read.state)
        axis = member.position if read.over == "mix" else 1 - member.position
        leaves["read", read.name] = _read(walk, seen, axis, given[read.query])
    wanted = [*(value for _, value in form.outputs), *(output.value for output in program.outputs)]
    outputs = walk.values(cut, wanted, leaves, bounds)
    for (name, value), output in zip(form.outputs, program.outputs, strict=True):
        _compare(program, name, outputs[value], outputs[output.value])


def prove_passes(program: Program, parts: Sequence[Program]) -> None:
    """Check that passes one after the other are the step of a program: all states and outputs (NotProved if not).

    ``parts`` are their programs, whose outputs that the program does not have are inputs of later ones.
    """
    walk = Canonical(_sizes(program, None))
    leaves = _leaves(walk, program.body)
    whole = walk.values(program.body, program.roots(), leaves, ranges(program.body, promises(program)))
    true = {f"{s.name}'": whole[s.next] for s in program.states} | {o.name: whole[o.value] for o in program.outputs}
    found: dict[str, Value] = {}
    for part in parts:
        values = walk.values(part.body, part.roots(), leaves, ranges(part.body, promises(part)))
        found |= {f"{s.name}'": values[s.next] for s in part.states}
        for output in part.outputs:
            if output.name in true:
                found[output.name] = values[output.value]
            else:
                leaves["input", output.name] = values[output.value]
    for name, value in true.items():
        if name not in found:
            raise NotProved(f"{program.name}: no pass makes {name}")
        _compare(program, name, found[name], value)


def _check_form(program: Program, form: AffineForm) -> None:
    """What no values show: that prologue and epilogue read nothing that is not there yet, or not kept."""
    if form.body[: len(program.body)] != program.body:
        raise NotProved(f"{program.name}: the normal form does not begin with the step itself")
    if [name for name, _ in form.outputs] != [output.name for output in program.outputs]:
        raise NotProved(f"{program.name}: the normal form has other outputs")
    prologue, epilogue = form.values(), [value for _, value in form.outputs]
    for roots, forbidden in ((prologue, ("state", "read")), (epilogue, ("state",))):
        for position in live(form.body, roots):
            instr = form.body[position]
            if instr.op == "leaf" and instr.attrs[0] in forbidden:
                raise NotProved(f"{program.name}: the normal form computes with {instr.attrs[0]} {instr.attrs[1]}")


def _leaves(walk: Canonical, body: Body) -> dict[tuple[str, str], Value]:
    return {i.attrs: walk.leaf(i.attrs[1], i.axes) for i in body if i.op == "leaf" and i.attrs[0] != "read"}


def _sizes(program: Program, mix: Axis | None) -> dict[str, int]:
    mixed = {name for name, _ in mix.size.terms} if mix is not None else set()
    mixed |= {dim.alias for dim in program.dims if dim.name in mixed and dim.alias is not None}
    own = [dim.name for dim in program.dims if dim.alias is None]
    return fitting_sizes(program, [MIXED if name in mixed else OTHER for name in own])


def _compare(program: Program, what: str, found: Value, true: Value) -> None:
    for at, entry in true.items():
        difference = entry - found[at]
        if difference != 0:
            place = f"{what}{list(at) if at else ''}"
            raise NotProved(f"{program.name}: {place} less its normal form is {difference}, not 0")


def _read(walk: Canonical, state: Value, axis: int, query: Value) -> Value:
    """``query @ state`` over the axis at a position."""
    sums: dict[Entry, Any] = {}
    for at, entry in state.items():
        rest = (*at[:axis], *at[axis + 1 :])
        sums[rest] = sums.get(rest, 0) + query[(at[axis],)] * entry
    return {at: walk.expanded(total) for at, total in sums.items()}


class _Step:
    """What the links of a normal form do to a matrix."""

    def __init__(self, walk: Canonical, form: AffineForm, values: Mapping[int, Value]) -> None:
        self.walk, self.form, self.values = walk, form, values

    def after(self, state: Value, index: int) -> Value:
        """The member at ``index`` after all sub-steps."""
        for link in self.form.links:
            state = self._link(link, state, self.form.members[index], index)
        return state

    def decay(self, link: Link, at: Entry) -> Any:
        """The decay at an entry of the mixed axis: the exponential of its logarithm, with its sign."""
        if link.decay is None:
            return 1
        found = self.walk.exponential(_entry(self.values[link.decay.log], at))
        sign = 1 if link.decay.sign is None else _entry(self.values[link.decay.sign], at)
        return self.walk.expanded(found * sign)

    def _link(self, link: Link, state: Value, member: Member, index: int) -> Value:
        axis = member.position
        decayed = {at: self.walk.expanded(self.decay(link, (at[axis],)) * entry) for at, entry in state.items()}
        result = dict(decayed)
        for pair in link.pairs:
            new = self._write(pair, index, decayed if pair.post else state, member)
            for at in result:
                result[at] += self.values[pair.key][(at[axis],)] * new[(*at[:axis], *at[axis + 1 :])]
        return {at: self.walk.expanded(entry) for at, entry in result.items()}

    def _write(self, pair: Pair, index: int, seen: Value, member: Member) -> Value:
        """What a pair writes into the member at ``index``: what it was given, and what it reads there."""
        column = () if member.column is None else (member.column,)
        given, scale = pair.values[index], 1 if pair.scale is None else self.values[pair.scale][()]
        result = {}
        for at in entries(column, self.walk.sizes):
            total = 0 if given is None else self.values[given][at]
            if pair.read is not None:
                for i, key in self.values[pair.read].items():
                    total += scale * key * seen[(*at[: member.position], *i, *at[member.position :])]
            result[at] = total
        return result


def _entry(value: Value, at: Entry) -> Any:
    """A value at an entry of the mixed axis, or a scalar."""
    return value[at] if at in value else value[()]
