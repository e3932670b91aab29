"""Statements share loops: a section of the kernel IR as loop nests, for targets without tiles.

Every statement ranges over the sides of its tile. Those that range over the same sides share one nest
if each reads, of what the nest computes, the entry that was just computed; a sum is complete only after
its nest. What never leaves its nest needs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .kernel_ir import Coordinate, Ref, Statement, Tensor
from .layout import ROWS, Label, Layout, labels_of

REDUCTIONS = frozenset(("product_sum", "sum", "amax"))

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
            labels: Iterable[Label] = statement.attrs[1]
        case "sum" | "amax":
            labels = statement.args[0].labels
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


class _Maker:
    def __init__(self, layout: Layout, carried: frozenset[str]) -> None:
        self.layout, self.carried = layout, carried
        self.groups: list[list[Statement]] = []
        self.spaces: list[tuple[Label, ...]] = []
        self.defined: dict[str, tuple[int, Statement]] = {}
        self.readers: dict[str, list[tuple[int, Statement, Ref]]] = {}
        self.views: dict[str, Statement] = {}
        self.homes: dict[str, str] = {}

    def add(self, statement: Statement) -> None:
        target = statement.target
        if statement.op == "load" and target not in self.carried and is_view(statement):
            self.views[target] = statement
            return
        if statement.op == "assign" and self._in_place(statement):
            return
        labels = space(statement, self.layout)
        least = max((self._after(labels, statement, arg) for arg in statement.args), default=0)
        for reader, other, arg in self.readers.get(target, ()):
            least = max(least, reader if self._at_point(reader, other, arg, labels) else reader + 1)
        index = next((i for i in range(least, len(self.groups)) if self.spaces[i] == labels), len(self.groups))
        if index == len(self.groups):
            self.groups.append([])
            self.spaces.append(labels)
        self.groups[index].append(statement)
        if target:
            self.defined[target] = (index, statement)
        for arg in statement.args:
            if arg.name:
                self.readers.setdefault(arg.name, []).append((index, statement, arg))

    def _after(self, labels: tuple[Label, ...], statement: Statement, arg: Ref) -> int:
        """The first nest in which a statement can read an operand."""
        if arg.name not in self.defined:
            return 0
        index, source = self.defined[arg.name]
        together = self.spaces[index] == labels and source.op not in REDUCTIONS and arg.labels == source.labels
        return index if together and statement.op not in _ELSEWHERE else index + 1

    def _at_point(self, nest: int, reader: Statement, arg: Ref, stored: tuple[Label, ...]) -> bool:
        """Whether, at each point of a nest, a statement reads only the entry of that point."""
        return reader.op not in _ELSEWHERE and arg.labels == stored == self.spaces[nest]

    def _in_place(self, assign: Statement) -> bool:
        """Let the new value of a carried variable be computed in its memory, if nothing reads the old one later."""
        (arg,), target = assign.args, assign.target
        if arg.name not in self.defined or arg.name in self.homes or arg.name in self.carried:
            return False
        index, source = self.defined[arg.name]
        if not source.labels == arg.labels == assign.labels:
            return False
        for reader, other, read in self.readers.get(target, ()):
            same = reader == index and source.op not in REDUCTIONS
            if reader > index or reader == index and not (same and self._at_point(reader, other, read, assign.labels)):
                return False
        self.homes[arg.name] = target
        return True

    def finish(self, kept: set[str]) -> Nests:
        memory = {}
        for name, (index, statement) in self.defined.items():
            passing = statement.op not in (*REDUCTIONS, "zeros", "accumulate")
            inside = all(
                reader == index and other.op not in _ELSEWHERE and arg.labels == statement.labels
                for reader, other, arg in self.readers.get(name, ())
            )
            if not (passing and inside) or name in kept or name in self.homes:
                memory[name] = statement.labels
        nests = (Nest(labels, tuple(group)) for labels, group in zip(self.spaces, self.groups, strict=True))
        return Nests(tuple(nests), memory, self.homes, self.views)


def is_view(statement: Statement) -> bool:
    """Whether a load needs no copy: the last side of what it loads is the last of its place in memory."""
    tensor, coordinates = statement.attrs
    if tensor.place == "segment":
        return True
    sides = [c.label for c in coordinates if c.label is not None]
    return not sides or statement.labels[-1] == sides[-1] and coordinates[-1].label is not None


def storage(tensor: Tensor, layout: Layout) -> tuple[Label, ...]:
    """The sides, in order, of what a program keeps of each step of a chunk."""
    rows = (ROWS,) if layout.rows > 1 else ()
    return layout.sort((*rows, *labels_of(tensor.axes)))


def positions(tensor: Tensor, coordinates: tuple[Coordinate, ...], layout: Layout) -> tuple[Coordinate, ...]:
    """Coordinates along a kept tensor's sides in the order of its storage."""
    by_label = dict(zip(labels_of(tensor.axes), coordinates, strict=True))
    return tuple(Coordinate(ROWS) if label == ROWS else by_label[label] for label in storage(tensor, layout))
