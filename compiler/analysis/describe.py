"""The affine normal form for people: the same step again, written as the language writes it.

A sub-step is one or two assignments: the decay, then rank-one writes whose values may read the state. Whether a read
sees the decayed state is what it is written behind: ``S' = a * S; S' = S' + outer(k, v - k @ S')`` (after the decay) or
``S' = a * S + outer(k, v - k @ S)`` (before it). What is printed can be compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ir.program import Program, depends_on
from .affine import AffineForm, Decay, Link, Member, Pair
from .infix import ATOM, COMPARE, PRODUCT, SUM, UNARY, Infix, Printed, inside
from .ranges import promises, ranges
from .readout import Read

Names = Mapping[tuple[str, str], Printed]
"""What leaves are called, by (kind, name), where that is not their name."""


def describe(program: Program, form: AffineForm, names: Names | None = None) -> dict[str, Any]:
    """The normal form as plain data with texts in the author's names."""
    words = _Words(program, form, names or {})
    return {
        "mix": form.mix.name,
        "columns": {m.state: None if m.column is None else m.column.name for m in form.members},
        "rank": max((sum(p.read is not None for p in link.pairs) for link in form.links), default=0),
        "substeps": [words.substep(link) for link in form.links],
        "transition": {m.state: words.transition(m, index) for index, m in enumerate(form.members)},
        "reads": [words.read_out(read) for read in form.reads],
        "outputs": {name: words.outputs(value) for name, value in form.outputs},
    }


def headline(data: Mapping[str, Any]) -> str:
    """``S, n along K; decay scalar in (0, 1]; rank 1, read after the decay; 1 sub-step``."""
    parts = [f"{', '.join(data['columns'])} along {data['mix']}"]
    decays = [step["decay"] for step in data["substeps"] if step["decay"] is not None]
    shown = dict.fromkeys(f"{d['kind']}{' signed' if d['signed'] else ''} in {d['range']}" for d in decays)
    parts.append(f"decay {', '.join(shown)}" if shown else "no decay")
    sees = dict.fromkeys(w["sees"] for step in data["substeps"] for w in step["writes"] if w["sees"] is not None)
    if len(sees) > 1:
        sees.pop("the state", None)  # sub-steps without a decay, beside others
    parts.append(f"rank {data['rank']}, reads {' and '.join(sees)}" if sees else "no erase")
    count = len(data["substeps"])
    parts.append(f"{count} sub-step{'s' if count != 1 else ''}")
    return "; ".join(parts)


def lines(data: Mapping[str, Any]) -> list[str]:
    """The step as statements of the language, then the outputs."""
    found = [line for statements in data["transition"].values() for line in statements]
    reads = ", ".join(dict.fromkeys(read["text"] for read in data["reads"]))
    if len(reads) > LONGEST:
        reads = f"what is read of {', '.join(dict.fromkeys(read['state'] for read in data['reads']))}"
    for name, text in data["outputs"].items():
        found.append(f"{name} = {text}" if len(text) <= LONGEST else f"{name} is made of {reads} and what is given")
    return found


LONGEST = 90
"""Characters of an output that is printed as it is."""


class _Words:
    def __init__(self, program: Program, form: AffineForm, names: Names) -> None:
        self.form = form
        self.show = Infix(form.body, names)
        self.bounds = ranges(form.body, promises(program))
        self.per_step = depends_on(form.body, ("input",))
        reads = {("read", read.name): self._read(read) for read in form.reads}
        self.outputs = Infix(form.body, {**names, **reads})

    def substep(self, link: Link) -> dict[str, Any]:
        """Decay and writes of a sub-step: ``k n^T`` with ``n = z + scale * (read @ S)``."""
        return {
            "decay": None if link.decay is None else self._decay(link.decay),
            "writes": [self._pair(pair, link) for pair in link.pairs],
        }

    def _decay(self, decay: Decay) -> dict[str, Any]:
        along = [axis.name for axis in self.form.body[decay.value].axes]
        kind = " ".join(
            word
            for word in ("" if self.per_step[decay.value] else "constant", f"per {along[0]}" if along else "")
            if word
        )
        return {
            "kind": kind or "scalar",
            "along": along[0] if along else None,
            "constant": not self.per_step[decay.value],
            "signed": decay.sign is not None,
            "range": str(self.bounds[decay.value]),
            "formula": self.show(decay.value),
        }

    def _pair(self, pair: Pair, link: Link) -> dict[str, Any]:
        members = zip(self.form.members, pair.values, strict=True)
        sees = None if pair.read is None else "after the decay" if pair.post else "before the decay"
        return {
            "key": self.show(pair.key),
            "values": {m.state: None if value is None else self.show(value) for m, value in members},
            "read": None if pair.read is None else self.show(pair.read),
            "scale": None if pair.scale is None else self.show(pair.scale),
            "sees": "the state" if sees and link.decay is None else sees,
        }

    def read_out(self, read: Read) -> dict[str, Any]:
        """What a query reads of a state, over which axis, before or after the step."""
        member = next(m for m in self.form.members if m.state == read.state)
        axis = member.position if read.over == "mix" else 1 - member.position
        return {
            "state": read.state,
            "query": self.show(read.query),
            "over": member.axes[axis].name,
            "when": "before the step" if read.before else "after the step",
            "text": self._read(read)[0],
        }

    def _read(self, read: Read) -> Printed:
        member = next(m for m in self.form.members if m.state == read.state)
        axis = member.position if read.over == "mix" else 1 - member.position
        state = read.state if read.before else f"{read.state}'"
        return self._product(read.query, (state, ATOM), member, axis)

    def _product(self, query: int, state: Printed, member: Member, axis: int) -> Printed:
        """What a query reads of a state over one of its axes."""
        if self._ones(query):
            return f"sum({inside(state, COMPARE)}, {member.axes[axis]})", ATOM
        if axis == 0:
            return f"{self.show(query, PRODUCT)} @ {inside(state, UNARY)}", PRODUCT
        return f"{inside(state, PRODUCT)} @ {self.show(query, UNARY)}", PRODUCT

    # ------------------------------------------------------------ statements

    def transition(self, member: Member, index: int) -> list[str]:
        """The sub-steps of one member as assignments."""
        new = f"{member.state}'"
        found: list[str] = []
        for link in self.form.links:
            state: Printed = (new if found else member.state, ATOM)
            decayed = state if link.decay is None else self._times(link.decay.value, state)
            late = link.decay is not None and any(pair.post and pair.read is not None for pair in link.pairs)
            early = any(not pair.post and pair.read is not None for pair in link.pairs)
            if late and not early:
                found.append(f"{new} = {inside(decayed, COMPARE)}")
                state = decayed = (new, ATOM)
            total = None if self._is(link, 0.0) else inside(decayed, SUM)
            for pair in link.pairs:
                total = self._write(pair, index, decayed if pair.post else state, member, total)
            found.append(f"{new} = {total if total is not None else 0}")
        return found

    def _is(self, link: Link, number: float) -> bool:
        instr = self.form.body[link.decay.value] if link.decay is not None else None
        return instr is not None and instr.op == "const" and instr.attrs[0] == number

    def _times(self, factor: int, state: Printed) -> Printed:
        return f"{self.show(factor, PRODUCT)} * {inside(state, UNARY)}", PRODUCT

    def _write(self, pair: Pair, index: int, seen: Printed, member: Member, before: str | None) -> str | None:
        """A sum with one more rank-one write in it."""
        total: str | None = None
        value, column = pair.values[index], member.column is not None
        spread = value is not None and column and self._spread(value)
        if value is not None:
            total = self.show(value, SUM)
        if pair.read is not None:
            read = self._product(pair.read, seen, member, member.position)
            negative, factor = self._sign(pair.scale)
            text = inside(read, SUM) if factor is None else f"{inside(factor, PRODUCT)} * {inside(read, UNARY)}"
            if total is not None:
                total = f"{total} {'-' if negative else '+'} {text}"
            else:
                total = f"-({text})" if negative else text
            spread = False
        if total is None:
            return before
        vector = column and not spread
        if self._ones(pair.key):
            if before is not None and total.startswith("-("):
                return f"{before} - {total[1:]}"
            product = total
        elif vector:
            key = self.show(pair.key)
            product = f"outer({key}, {total})" if member.position == 0 else f"outer({total}, {key})"
        elif value is not None and pair.read is None and self._ones(value):
            product = self.show(pair.key, SUM)
        else:
            alone = pair.read is None and value is not None
            factor_text = self.show(value, UNARY) if alone and value is not None else f"({total})"
            product = f"{self.show(pair.key, PRODUCT)} * {factor_text}"
        return product if before is None else f"{before} + {product}"

    def _sign(self, scale: int | None) -> tuple[bool, Printed | None]:
        """Whether a scale is written with a minus, and the rest of it."""
        if scale is None:
            return False, None
        instr = self.form.body[scale]
        if instr.op == "neg":
            return (True, None) if self._ones(instr.args[0]) else (True, self.show.printed(instr.args[0]))
        if instr.op == "const" and instr.attrs[0] < 0:
            return True, (f"{-instr.attrs[0]:.15g}", ATOM) if instr.attrs[0] != -1 else None
        return False, self.show.printed(scale)

    def _spread(self, value: int) -> bool:
        """Whether a value only repeats a scalar."""
        instr = self.form.body[value]
        return instr.op == "broadcast" and not self.form.body[instr.args[0]].axes

    def _ones(self, value: int) -> bool:
        instr = self.form.body[value]
        if instr.op == "broadcast":
            return self._ones(instr.args[0])
        return instr.op == "const" and instr.attrs[0] == 1.0
