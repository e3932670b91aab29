"""Statements share loops: a section of the kernel IR as loop nests, for targets without tiles.

Every statement ranges over the sides of its tile. Those that range over the same sides share one nest
if each reads, of what the nest computes, the entry that was just computed; a sum is complete only after
its nest. What never leaves its nest needs no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .kernel_ir import Coordinate, Ref, Statement, Tensor
from .layout import ROWS, Label, Layout, labels_of

REDUCTIONS = frozenset(("product_sum", "sum", "amax"))
"""Operations that sum over sides. A third attribute of ``product_sum`` says that it adds to what its target holds."""

MOST_REPEATED = 4
"""Cheap operations that are done again rather than that their result is written and read."""

MOST_PRODUCTS = 3
"""Products of matrices in one nest: with more, fewer rows of each fit into registers."""

LARGE = 4096
"""Numbers of a matrix from which on the order in memory matters: what is left of a first-level cache."""

_CHEAP = frozenset("add sub mul neg".split())

_ELSEWHERE = frozenset(("select", "entry", "transpose"))
"""Operations that read other entries of their operand than the one they compute."""


@dataclass(frozen=True)
class Nest:
    """Statements in order under loops over the given sides, the innermost last."""

    labels: tuple[Label, ...]
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Nests:
    """One section of a kernel as nests in order.

    ``memory`` gives the values that outlive their nest and their sides in order, ``homes`` the carried
    variable in whose memory a value is computed in place, ``views`` the loads that read memory where they
    are used.
    """

    nests: tuple[Nest, ...]
    memory: Mapping[str, tuple[Label, ...]]
    homes: Mapping[str, str]
    views: Mapping[str, Statement]


def space(statement: Statement, layout: Layout) -> tuple[Label, ...]:
    """The sides that a statement ranges over, in standard order."""
    match statement.op:
        case "product_sum":
            return tuple(statement.attrs[1])
        case "sum" | "amax":
            labels: Iterable[Label] = statement.args[0].labels
        case "store":
            labels = stored_labels(statement, layout)
        case _:
            labels = statement.labels
    return layout.sort(labels)


def stored_labels(statement: Statement, layout: Layout) -> tuple[Label, ...]:
    """The sides of what a store writes: those of its place in memory."""
    tensor, coordinates = statement.attrs
    rows = (ROWS,) if has_rows(tensor, layout) else ()
    return layout.sort((*rows, *(c.label for c in coordinates if c.label is not None)))


def has_rows(tensor: Tensor, layout: Layout) -> bool:
    """Whether each sequence of a program has its own entries of a tensor."""
    return layout.rows > 1 and tensor.place not in ("head", "partial")


def make_nests(statements: Iterable[Statement], layout: Layout, kept: Iterable[str], carried: Iterable[str]) -> Nests:
    """Distribute a section over nests.

    ``kept`` are the variables that other sections read, ``carried`` those that are also written again.
    """
    maker = _Maker(layout, frozenset(carried))
    for statement in statements:
        maker.add(statement)
    return maker.finish({*kept, *carried})


@dataclass(eq=False)
class _Group:
    """A nest that is being filled; ``copies`` are values computed again here instead of read from memory."""

    labels: tuple[Label, ...]
    statements: list[Statement] = field(default_factory=list)
    copies: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Reading:
    """One operand of a statement, and the nest that it is read in."""

    group: _Group
    statement: Statement
    arg: Ref


class _Maker:
    def __init__(self, layout: Layout, carried: frozenset[str]) -> None:
        self.layout, self.carried = layout, carried
        self.groups: list[_Group] = []
        self.defined: dict[str, tuple[_Group, Statement]] = {}
        self.readings: dict[str, list[_Reading]] = {}
        self.views: dict[str, Statement] = {}
        self.homes: dict[str, str] = {}

    def add(self, statement: Statement) -> None:
        if statement.op == "load" and statement.target not in self.carried and is_view(statement, self.layout):
            self.views[statement.target] = statement
            return
        if statement.op == "assign" and self._in_place(statement):
            return
        if statement.op == "accumulate" and self._sums_into(statement):
            return
        labels = space(statement, self.layout)
        least = max((self._after(labels, statement, arg) for arg in statement.args), default=0)
        for reading in self.readings.get(statement.target, ()):
            least = max(least, self._place(reading.group) + (0 if self._at_point(reading, labels) else 1))
        group = next((g for g in self.groups[least:] if g.labels == labels and not self._is_full(g, statement)), None)
        if group is None:
            sources = [self.defined[arg.name][0] for arg in statement.args if arg.name in self.defined]
            sources += [reading.group for reading in self.readings.get(statement.target, ())]
            group = _Group(labels)
            self.groups.insert(max((self._place(g) + 1 for g in sources), default=0), group)
        for arg in statement.args:
            self._repeat(group, statement, arg)
        self._put(group, statement)
        if statement.target:
            self.defined[statement.target] = (group, statement)

    def _put(self, group: _Group, statement: Statement) -> None:
        group.statements.append(statement)
        for arg in statement.args:
            if arg.name:
                self.readings.setdefault(arg.name, []).append(_Reading(group, statement, arg))

    @staticmethod
    def _is_full(group: _Group, statement: Statement) -> bool:
        """Whether a nest has as many products of matrices as it can hold."""
        if statement.op != "product_sum" or len(statement.labels) < 2:
            return False
        return sum(s.op == "product_sum" and len(s.labels) >= 2 for s in group.statements) >= MOST_PRODUCTS

    def _place(self, group: _Group) -> int:
        return next(i for i, g in enumerate(self.groups) if g is group)

    def _after(self, labels: tuple[Label, ...], statement: Statement, arg: Ref) -> int:
        """The first nest in which a statement can read an operand."""
        if arg.name not in self.defined:
            return 0
        group, source = self.defined[arg.name]
        together = group.labels == labels and source.op not in REDUCTIONS and arg.labels == source.labels
        return self._place(group) + (0 if together and statement.op not in _ELSEWHERE else 1)

    @staticmethod
    def _at_point(reading: _Reading, stored: tuple[Label, ...]) -> bool:
        """Whether, at each point of its nest, a statement reads only the entry of that point."""
        return reading.statement.op not in _ELSEWHERE and reading.arg.labels == stored == reading.group.labels

    def _sums_into(self, statement: Statement) -> bool:
        """Let a product of matrices add to a running sum itself."""
        (arg,), target = statement.args, statement.target
        group, source = self.defined.get(arg.name, (None, None))
        if group is None or source is None or source.op != "product_sum" or arg.name in self.readings:
            return False
        if not source.labels or source.labels != arg.labels or statement.labels != arg.labels:
            return False
        if group.labels[-1] not in source.labels or target in self.defined or target in self.readings:
            return False
        into = replace(source, target=target, attrs=(*source.attrs[:2], True))
        group.statements[group.statements.index(source)] = into
        del self.defined[arg.name]
        self.defined[target] = (group, into)
        for readings in self.readings.values():
            readings[:] = [replace(r, statement=into) if r.statement is source else r for r in readings]
        return True

    # ------------------------------------------------------------ values that are computed twice

    def _repeat(self, group: _Group, statement: Statement, arg: Ref) -> None:
        """Compute an operand again in this nest if that takes less than to write and read it."""
        if arg.name not in self.defined or statement.op in _ELSEWHERE or arg.name in group.copies:
            return
        home, source = self.defined[arg.name]
        if home is group or arg.labels != source.labels or arg.name in self.homes:
            return
        again = self._again(source, group.labels)
        if again is None or len(again) > MOST_REPEATED:
            return
        for repeated in again:
            if repeated.target not in group.copies:
                group.copies.add(repeated.target)
                self._put(group, repeated)

    def _again(self, source: Statement, labels: tuple[Label, ...]) -> list[Statement] | None:
        """The statements that compute a value of a nest from smaller values and at most one of its own size."""
        if source.op not in _CHEAP or source.labels != labels or source.target in self.carried or len(labels) < 2:
            return None
        statements: list[Statement] = []
        large = 0
        for arg in source.args:
            if not arg.name or len(arg.labels) < len(labels):
                continue
            before = self._again(self.defined[arg.name][1], labels) if arg.name in self.defined else None
            if before is None:
                if arg.name in self.defined or arg.labels != labels:
                    return None
                large += 1
            else:
                statements += [s for s in before if s not in statements]
        large += sum(
            1 for s in statements for a in s.args if a.name and a.labels == labels and a.name not in self.defined
        )
        return [*statements, source] if large <= 1 else None

    # ------------------------------------------------------------ variables that change in place

    def _in_place(self, assign: Statement) -> bool:
        """Let the new value of a carried variable be computed in its memory, if nothing reads the old one later."""
        (arg,), target = assign.args, assign.target
        if arg.name not in self.defined or arg.name in self.homes or arg.name in self.carried:
            return False
        group, source = self.defined[arg.name]
        if not source.labels == arg.labels == assign.labels:
            return False
        for reading in self.readings.get(target, ()):
            same = reading.group is group and source.op not in REDUCTIONS and self._at_point(reading, assign.labels)
            if not same and self._place(reading.group) >= self._place(group):
                return False
        if any(arg.name in g.copies for g in self.groups):
            return False
        self.homes[arg.name] = target
        return True

    def finish(self, kept: set[str]) -> Nests:
        self._drop_unread(kept)
        memory = {}
        for name, (group, statement) in self.defined.items():
            passing = statement.op not in (*REDUCTIONS, "zeros", "accumulate")
            inside = all(
                (reading.group is group or name in reading.group.copies)
                and reading.statement.op not in _ELSEWHERE
                and reading.arg.labels == statement.labels
                for reading in self.readings.get(name, ())
            )
            if not (passing and inside) or name in kept or name in self.homes:
                memory[name] = statement.labels
        nests = (Nest(group.labels, tuple(group.statements)) for group in self.groups)
        return Nests(tuple(nests), memory, self.homes, self.views)

    def _drop_unread(self, kept: set[str]) -> None:
        """Remove what is computed in vain because all its readers compute it again."""
        for group in reversed(self.groups):
            for statement in reversed(group.statements[:]):
                name = statement.target
                if (
                    not name
                    or name in kept
                    or name in self.homes
                    or any(self._serves(r, group, name) for r in self.readings.get(name, ()))
                ):
                    continue
                group.statements.remove(statement)
                for arg in statement.args:
                    readings = self.readings.get(arg.name, [])
                    self.readings[arg.name] = [
                        r for r in readings if r.statement is not statement or r.group is not group
                    ]
        self.groups = [group for group in self.groups if group.statements]
        present = {s.target for group in self.groups for s in group.statements}
        self.defined = {name: found for name, found in self.defined.items() if name in present}

    @staticmethod
    def _serves(reading: _Reading, group: _Group, name: str) -> bool:
        """Whether a reading takes a value from this nest: its own, or one that has no copy."""
        return reading.group is group or name not in reading.group.copies


def is_view(statement: Statement, layout: Layout) -> bool:
    """Whether a load needs no copy: the last side of what it loads is the last of its place in memory.

    Large weights are copied all the same, so that they lie in the order in which they are read, unless they
    are used but once.
    """
    tensor, coordinates = statement.attrs
    if tensor.place == "segment":
        return True
    sides = [c.label for c in coordinates if c.label is not None]
    if (
        not layout.in_place
        and tensor.place == "head"
        and len(sides) == 2
        and math.prod(map(layout.block, sides)) > LARGE
    ):
        return False
    return not sides or (statement.labels[-1] == sides[-1] and coordinates[-1].label is not None)


def storage(tensor: Tensor, layout: Layout) -> tuple[Label, ...]:
    """The sides, in order, of what a program keeps of each step of a chunk."""
    rows = (ROWS,) if layout.rows > 1 else ()
    return layout.sort((*rows, *labels_of(tensor.axes)))


def positions(tensor: Tensor, coordinates: tuple[Coordinate, ...], layout: Layout) -> tuple[Coordinate, ...]:
    """Coordinates along a kept tensor's sides in the order of its storage."""
    by_label = dict(zip(labels_of(tensor.axes), coordinates, strict=True))
    return tuple(Coordinate(ROWS) if label == ROWS else by_label[label] for label in storage(tensor, layout))
