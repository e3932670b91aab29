"""Where values of a C++ kernel lie, and how they are read and written there.

A kernel's own memory holds numbers of the compute type in rows padded to whole vectors. The caller's
memory holds numbers of the caller's type in exact rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..lower.kernel_ir import Coordinate, Ref, Statement, Tensor
from ..lower.layout import ROWS, STEPS, Label, Layout, identifier
from ..lower.nests import has_rows, positions, storage
from .cpp_packed import ROW_INDEX


@dataclass(frozen=True)
class Size:
    """A product of numbers of which the last may be padded: ``count * pad(row)``."""

    count: int
    row: int | None = None

    def __str__(self) -> str:
        if self.row is None or self.row % 16 == 0:  # 16: the widest vectors, so that no padding is needed
            return str(self.count * (self.row or 1))
        return f"simd::pad({self.row})" if self.count == 1 else f"{self.count} * simd::pad({self.row})"

    def __mul__(self, times: int) -> Size:
        return Size(self.count * times, self.row)


@dataclass(frozen=True)
class Term:
    """One part of an address: the side that moves along it (None: a fixed entry), a shift, a stride; ``through``
    names an array that says where each entry of the side lies."""

    label: Label | None
    start: int
    stride: Size | str
    through: str = ""

    def text(self, index: str) -> str:
        index = f"{self.through}[{index}]" if self.through else index
        shifted = (
            index if not self.start else f"({index} + {self.start})" if self.start > 0 else f"({index} - {-self.start})"
        )
        return shifted if str(self.stride) == "1" else f"{_factor(shifted)} * {_factor(str(self.stride))}"


def _factor(text: str) -> str:
    return f"({text})" if " + " in text and not text.startswith("(") else text


@dataclass(frozen=True)
class Place:
    """A value in memory: a pointer and the parts of an address; ``extent`` gives sizes of sides.

    ``own`` memory is the kernel's, with padded rows; a ``variable`` holds one number and is no pointer. A
    ``panel`` is a matrix that is only read by vectors: all rows of the first vector, then of the next; its
    number is that of rows. ``streamed`` values may be written past the caches.
    ``condition`` is where it is to be read or written; elsewhere it reads as zero. ``bound`` is the size
    of a side of which only entries inside exist.
    """

    pointer: str
    terms: tuple[Term, ...]
    own: bool
    extent: Mapping[Label, int] = field(repr=False)
    variable: bool = False
    panel: int = 0
    streamed: bool = False
    condition: str = ""
    bound: tuple[Label, int] | None = None

    def address(self, points: Mapping[Label, str], without: Label | None = None) -> str:
        """The address at a point; ``without`` leaves out one side."""
        parts = [self.pointer]
        for term in self.terms:
            if term.label is None:
                parts += [_fixed(term)] if term.start else []
            elif term.label != without:
                parts.append(term.text(points[term.label]))
        return " + ".join(parts)

    def load(self, points: Mapping[Label, str], lane: Label | None, kind: str) -> str:
        """The value at a point: a vector along the lane side or a copy in all lanes, or a number if ``kind`` is so."""
        text = self._load(points, lane, kind)
        conditions = [self.condition] if self.condition else []
        if self.bound and self.bound[0] != lane:
            label, size = self.bound
            index = next(term for term in self.terms if term.label == label)
            shifted = f"{points[label]} + {index.start}" if index.start >= 0 else f"{points[label]} - {-index.start}"
            conditions.append(f"{shifted} >= 0 && {shifted} < {size}")
        return f"{' && '.join(conditions)} ? {text} : {kind}{{}}" if conditions else text

    def _load(self, points: Mapping[Label, str], lane: Label | None, kind: str) -> str:
        if self.variable:
            return self.pointer if kind == "real" else f"simd::all({self.pointer})"
        along = [term for term in self.terms if term.label == lane] if lane is not None else []
        if not along:
            number = f"*({self.address(points)})" if self.terms else f"*{self.pointer}"
            number = number if self.own else f"simd::widen({number})"
            return number if kind == "real" else f"simd::all({number})"
        assert lane is not None
        (term,), index = along, points[lane]
        rest = self.address(points, lane)
        if self.bound and self.bound[0] == lane:
            shift = f"{index} + {term.start}" if term.start >= 0 else f"{index} - {-term.start}"
            return f"simd::shifted<{self.bound[1]}>({rest}, {term.stride}, {shift})"
        start = f" + {_fixed(replace(term, label=None))}" if term.start else ""
        if self.panel:
            return f"simd::get({rest} + ({index}) * {self.panel})"
        if str(term.stride) != "1":
            return f"simd::gather<{self.extent[lane]}>({rest}{start}, {term.stride}, {index})"
        if self.own and not term.start:
            return f"simd::get({rest} + {index})"
        return f"simd::load<{self.extent[lane]}>({rest}{start}, {index})"

    def save(self, points: Mapping[Label, str], lane: Label | None, value: str) -> str:
        """The statement that writes a value at a point."""
        text = self._save(points, lane, value)
        return f"if ({self.condition}) {text}" if self.condition else text

    def _save(self, points: Mapping[Label, str], lane: Label | None, value: str) -> str:
        if self.variable:
            return f"{self.pointer} = {value};"
        along = [term for term in self.terms if term.label == lane] if lane is not None else []
        if not along:
            place = f"*({self.address(points)})" if self.terms else f"*{self.pointer}"
            return f"{place} = {value};" if self.own else f"simd::narrow({place}, {value});"
        assert lane is not None
        (term,), index = along, points[lane]
        rest = self.address(points, lane)
        rest += f" + {_fixed(replace(term, label=None))}" if term.start else ""
        if self.panel:
            return f"simd::put({rest} + ({index}) * {self.panel}, {value});"
        if str(term.stride) != "1":
            return f"simd::scatter<{self.extent[lane]}>({rest}, {term.stride}, {index}, {value});"
        if self.own:
            return f"simd::put({rest} + {index}, {value});"
        past = ", past" if self.streamed else ""
        return f"simd::store<{self.extent[lane]}>({rest}, {index}, {value}{past});"


def _fixed(term: Term) -> str:
    stride = str(term.stride)
    return str(term.start) if stride == "1" else f"{term.start} * {stride}"


@dataclass(frozen=True)
class Memory:
    """What one section of a kernel can read: its variables by name, with their sides in order.

    ``kept`` are the variables that lie in memory, ``homes`` the values that lie in another's, ``views`` loads
    that are done where they are used, ``panels`` the variables that lie as such. Rows of ``packed`` sequences do not
    lie evenly spaced.
    """

    layout: Layout
    kept: Mapping[str, tuple[Label, ...]]
    homes: Mapping[str, str]
    views: Mapping[str, Statement]
    panels: frozenset[str] = frozenset()
    packed: bool = False

    def own(self, name: str, labels: Sequence[Label]) -> Place:
        """A variable under the given names of its sides."""
        home = self.homes.get(name, name)
        stored = self.kept[name]
        if name in self.panels:
            row, lane = labels
            rows = self.layout.block(stored[0])
            return Place(home, (Term(row, 0, "simd::W"), Term(lane, 0, Size(1))), True, {}, panel=rows)
        strides = self.strides(stored)
        terms = tuple(Term(label, 0, stride) for label, stride in zip(labels, strides, strict=True))
        return Place(home, terms, True, self._extent(labels), variable=not terms)

    def strides(self, labels: Sequence[Label]) -> list[Size]:
        """How far apart entries along each side of a variable are."""
        result, size = [], Size(1)
        for label in reversed(labels):
            result.append(size)
            padded = size == Size(1) and label not in (ROWS, STEPS)
            size = Size(1, self.layout.block(label)) if padded else size * self.length(label)
        return result[::-1]

    def extent(self, labels: Sequence[Label]) -> Size:
        """How many numbers a variable with these sides takes."""
        if not labels:
            return Size(1)
        first = labels[0]
        if len(labels) == 1 and first not in (ROWS, STEPS):
            return Size(1, self.layout.block(first))
        return self.strides(labels)[0] * self.length(first)

    def length(self, label: Label) -> int:
        """The most entries along a side; STEPS counts once, for one step."""
        return 1 if label == STEPS else self.layout.block(label)

    def tensor(self, tensor: Tensor, coordinates: Sequence[Coordinate]) -> Place:
        """A tensor at a point of the nest: of the caller, or kept of the steps of a chunk."""
        extent = self._extent([c.label for c in coordinates if c.label is not None])
        if tensor.place == "segment":
            sides = storage(tensor, self.layout)
            along = positions(tensor, tuple(coordinates), self.layout)
            terms = [Term(c.label, c.start, s) for c, s in zip(along, self.strides(sides), strict=True)]
            return Place(f"p_{tensor.name}", tuple(terms), True, {**extent, **self._extent([ROWS])})
        terms = [self._rows(tensor)] if has_rows(tensor, self.layout) else []
        stride = 1
        for axis, coordinate in reversed([*zip(tensor.axes, coordinates, strict=True)]):
            terms.append(Term(coordinate.label, coordinate.start, Size(stride)))
            stride *= self.layout.sizes[axis.name]
        condition = " && ".join(f"tile_{identifier(name)} == 0" for name in tensor.first_tile)
        streamed = tensor.place == "step"
        return Place(f"p_{tensor.name}", tuple(terms), False, extent, condition=condition, streamed=streamed)

    def _rows(self, tensor: Tensor) -> Term:
        """The sequences of a program along a tensor of the caller."""
        if not self.packed:
            return Term(ROWS, 0, f"{tensor.name}_sb")
        return Term(ROWS, 0, f"{tensor.name}_st" if tensor.strided else f"{tensor.name}_sb", ROW_INDEX[tensor.place])

    def read(self, statement: Statement, arg: Ref) -> Place:
        """Where a statement finds an operand."""
        if arg.name in self.views:
            view = self.views[arg.name]
            tensor, coordinates = view.attrs
            names = dict(zip(view.labels, arg.labels, strict=True))
            place = self.tensor(
                tensor, [replace(c, label=names.get(c.label, c.label)) if c.label else c for c in coordinates]
            )
        else:
            place = self.own(arg.name, arg.labels)
        match statement.op:
            case "entry":
                side, entry = statement.attrs
                return _with_terms(place, side, lambda t: (Term(None, t.start + entry, t.stride),))
            case "select":
                source, target, shift = statement.attrs
                size = self.layout.sizes[source.name]
                # the bound is on the entry of the operand, wherever that begins
                moved = _with_terms(
                    place, source, lambda t: (Term(None, t.start, t.stride), Term(target, -shift, t.stride))
                )
                return replace(moved, bound=(target, size), extent={**place.extent, **self._extent([target])})
        return place

    def store(self, statement: Statement, points: Mapping[Label, str], lane: Label | None, value: str) -> str:
        """The statement that stores to a tensor."""
        tensor, coordinates = statement.attrs
        return self.tensor(tensor, coordinates).save(points, lane, value)

    def fill(self, emit: Callable[[str], None], name: str, size: str | Size, start: str | None) -> None:
        """Lines that set a variable to zero or to a number."""
        name = self.homes.get(name, name)
        if start is None:
            emit(f"simd::zero({name}, {size});")
        else:
            emit(f"for (int i = 0; i < {size}; i++) {name}[i] = {start};")

    def _extent(self, labels: Sequence[Label]) -> dict[Label, int]:
        return {label: self.layout.block(label) for label in labels if label != STEPS}


def _with_terms(place: Place, label: Label, change: Callable[[Term], tuple[Term, ...]]) -> Place:
    """A place whose term along one side is replaced."""
    return replace(place, terms=tuple(new for t in place.terms for new in (change(t) if t.label == label else (t,))))


def kept_size(tensor: Tensor, memory: Memory) -> Size:
    """How many numbers are kept of one step of a kept tensor."""
    return memory.extent(storage(tensor, memory.layout))
