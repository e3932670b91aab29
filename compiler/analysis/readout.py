"""Outputs as functions of what queries read: ``q @ S'`` becomes a leaf, everything else stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ...dsl.source import Span
from ..ir.builder import Builder
from ..ir.program import Program, depends_on, live
from ..ir.types import Axes
from .linear import Reason
from .products import Algebra, Product, Vector, value_of
from .terms import Factor, NotLinear, Term, Terms, placed


@dataclass(frozen=True)
class Read:
    """What a query reads of a state, before or after the step: leaf ("read", ``name``).

    ``over`` is the axis that is contracted: the mixed one, or the column.
    """

    name: str
    state: str
    query: int
    over: Literal["mix", "column"]
    before: bool


def read_out(
    program: Program, builder: Builder, algebra: Algebra, mixed: Mapping[str, int]
) -> tuple[tuple[Read, ...], tuple[tuple[str, int], ...]]:
    """The reads of a program and its outputs in terms of them; ``mixed`` gives each state's mixed axis.

    NotLinear if an output needs a state otherwise than through vectors.
    """
    walk = _Outputs(program, builder, algebra, mixed)
    outputs = []
    for output in program.outputs:
        walk.here = output.span
        outputs.append((output.name, walk.value(output.value)))
    return tuple(walk.reads), tuple(outputs)


class _Outputs:
    def __init__(self, program: Program, builder: Builder, algebra: Algebra, mixed: Mapping[str, int]) -> None:
        self.program, self.builder, self.algebra, self.mixed = program, builder, algebra, mixed
        self.reads: list[Read] = []
        self.here: Span | None = None
        """Where the output that is walked was written: a state by itself was written elsewhere."""
        self.basis: dict[int, str] = {}
        self.when: dict[int, bool] = {}
        for state in program.states:
            for position, instr in enumerate(program.body):
                if instr.op == "leaf" and instr.attrs == ("state", state.name):
                    self.basis[position], self.when[position] = state.name, True
            self.basis[state.next], self.when[state.next] = state.name, False
        self.terms = Terms(builder, self.basis)
        self._values: dict[int, int] = {}
        self._of_state = depends_on(program.body, ("state",))

    def value(self, position: int) -> int:
        """A value of the program in terms of reads."""
        if position not in self._values:
            self._values[position] = self._value(position)
        return self._values[position]

    def _value(self, position: int) -> int:
        if position >= len(self._of_state) or not (self.terms.depends(position) or self._of_state[position]):
            return position
        instr = self.builder.body[position]
        previous, self.builder.span = self.builder.span, instr.span
        try:
            if position in self.basis or any(self._whole(arg) for arg in instr.args):
                result = self._read(position)
            else:
                args = tuple(self.value(arg) for arg in instr.args)
                result = self.builder.emit(instr.op, args, instr.attrs, instr.axes)
        finally:
            self.builder.span = previous
        return result

    def _whole(self, position: int) -> bool:
        """Whether a value is a state or made of one entry by entry, before any vector reads it."""
        if not self.terms.depends(position):
            return False
        if position in self.basis:
            return True
        instr = self.builder.body[position]
        if not any(self._whole(arg) for arg in instr.args):
            return False
        terms = self.terms.of(position)
        return any(t.basis is not None and set(t.basis.labels) <= set(t.out) for t in terms)

    def _read(self, position: int) -> int:
        instr = self.builder.body[position]
        total: int | None = None
        for term in [placed(self.builder, term, instr.axes) for term in self.terms.of(position)]:
            value = self._read_term(term, position)
            if total is None:
                total = self.builder.apply("neg", value) if term.negative else value
            else:
                total = self.builder.apply("sub" if term.negative else "add", total, value)
        assert total is not None
        return self.builder.spread(total, instr.axes)

    def _read_term(self, term: Term, position: int) -> int:
        """``coefficient * read`` or a coefficient alone, with the axes of the value."""
        factors = term.factors
        values = []
        basis = term.basis
        if basis is not None:
            name, axes = self.basis[basis.value], self.builder.axes(basis.value)
            gone = [i for i, label in enumerate(basis.labels) if label not in term.out]
            if len(gone) != 1:
                what = "as a whole" if not gone else "under two vectors at once"
                raise NotLinear(Reason(f"an output reads `{name}` {what}", self._place(position)))
            label = basis.labels[gone[0]]
            touching = [f for f in factors if label in f.labels]
            if any(f.labels != (label,) for f in touching):
                raise NotLinear(Reason(f"an output reads `{name}` with a matrix", self.builder.body[position].span))
            # numbers of each step go into the query: its cotangent then gives theirs without what was read
            scales = [f for f in factors if not f.labels and self._per_step(f.value)]
            factors = tuple(f for f in factors if f not in touching and f not in scales)
            axes_left = {other: found for other, found in term.axes.items() if other != label}
            term = replace(term, axes=axes_left)
            query = self.algebra.sorted(f.value for f in touching)
            scalars = self.algebra.sorted(f.value for f in scales)
            leaf = self._leaf(name, query, scalars, gone[0], self.when[basis.value], axes)
            rest = tuple(other for other in basis.labels if other != label)
            values.append(Factor(leaf, rest))
        return self._product(replace(term, factors=(*factors, *values), basis=None), position)

    def _place(self, position: int) -> Span | None:
        return self.here if position in self.basis else self.builder.body[position].span

    def _per_step(self, value: int) -> bool:
        """Whether a value depends on inputs."""
        body = self.builder.body
        return any(body[p].op == "leaf" and body[p].attrs[0] == "input" for p in live(body, (value,)))

    def _leaf(self, state: str, query: Vector, scalars: tuple[int, ...], axis: int, before: bool, axes: Axes) -> int:
        value = value_of(self.algebra, (Product(scalars, query),), ())
        value = self.builder.spread(value, (axes[axis],))
        over: Literal["mix", "column"] = "mix" if axis == self.mixed[state] else "column"
        read = Read(f"read_{len(self.reads)}", state, value, over, before)
        for known in self.reads:
            if replace(known, name=read.name) == read:
                read = known
        if read not in self.reads:
            self.reads.append(read)
        return self.builder.leaf("read", read.name, axes[:axis] + axes[axis + 1 :])

    def _product(self, term: Term, position: int) -> int:
        """A term without a basis as a value, small factors first."""
        builder = self.builder
        scalars = [f.value for f in term.factors if not f.labels]
        vectors: dict[int, list[int]] = {}
        for factor in term.factors:
            if len(factor.labels) > 1:
                raise NotLinear(Reason("an output adds a whole matrix to a state", builder.body[position].span))
            if factor.labels:
                vectors.setdefault(factor.labels[0], []).append(factor.value)
        for label in sorted(term.labels - set(term.out)):
            size = builder.size(term.axes[label].size)
            found = self.algebra.sorted(vectors.pop(label, []))
            scalars.append(self.algebra.dot(found[:1], found[1:], size) if found else size)
        if len(vectors) > 1:
            raise NotLinear(Reason("an output is a matrix", builder.body[position].span))
        vector = self.algebra.sorted(value for found in vectors.values() for value in found)
        return value_of(self.algebra, (Product(self.algebra.sorted(scalars), vector),), ())
