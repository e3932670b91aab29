"""One loop nest as C++: loops, operands, sums and what is written.

Two forms. Where a nest sums over outer sides into vectors, a few vectors of the result stay in registers
while the summed sides run (several rows of them, where rows share an operand). Otherwise the vectors
of each row are visited in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..lower.kernel_ir import Ref, Statement
from ..lower.layout import ROWS, STEPS, Label, identifier
from ..lower.nests import REDUCTIONS, Nest
from .cpp_math import OPERATIONS, expression, number
from .cpp_memory import Memory, Place
from .lines import Line

CHAINS = 2
"""Sums that run side by side where few vectors are summed into: each addition waits for the one before."""


@dataclass(frozen=True)
class _Operand:
    """What a statement reads from memory: where, along which sides, and the local variable that holds it."""

    local: str
    place: Place
    labels: frozenset[Label]


def print_nest(nest: Nest, memory: Memory) -> list[Line]:
    """The lines of one nest, without indentation of the whole."""
    return _Printer(nest, memory).lines()


class _Printer:
    def __init__(self, nest: Nest, memory: Memory) -> None:
        self.nest, self.memory, self.layout = nest, memory, memory.layout
        last = nest.labels[-1] if nest.labels else None
        self.lane = None if last in (None, ROWS, STEPS) else last
        outer = [label for label in nest.labels if label != self.lane]
        self.sums = [s for s in nest.statements if s.op in REDUCTIONS]
        column_sums = [s for s in self.sums if self.lane in s.labels and len(s.labels) < len(nest.labels)]
        self.in_columns = self.lane is not None and bool(column_sums)
        summed = {label: sum(label not in s.labels for s in column_sums) for label in outer}
        self.order = sorted(outer, key=lambda label: (summed[label], outer.index(label)))
        self.done: set[str] = set()  # values that are local variables by now
        self.computed = {s.target for s in nest.statements if s.op not in REDUCTIONS and s.target}
        self.operands: dict[tuple[str, tuple[Label, ...], object], _Operand] = {}
        self.row = self._row_label(summed) if self.in_columns else None
        chained = self.in_columns and self.row is None and self.order and summed[self.order[-1]] == len(column_sums)
        self.chain = self.order[-1] if chained else None
        self.out: list[Line] = []
        self.depth = 0

    def _row_label(self, summed: dict[Label, int]) -> Label | None:
        """The side whose rows share vectors of an operand, if there is one."""
        free = [label for label in self.order if not summed[label]]
        if not free or len(free) == len(self.order):
            return None
        row = free[-1]
        args = [arg for s in self.nest.statements for arg in s.args if arg.name and arg.name not in self.computed]
        return row if any(self.lane in arg.labels and row not in arg.labels for arg in args) else None

    # ------------------------------------------------------------ text

    def emit(self, text: str, statement: Statement | None = None) -> None:
        self.out.append(Line("  " * self.depth + text, statement.span if statement else None))

    def open(self, text: str) -> None:
        self.emit(text)
        self.depth += 1

    def close(self, text: str = "}") -> None:
        self.depth -= 1
        self.emit(text)

    @property
    def kind(self) -> str:
        return "real" if self.lane is None else "vec"

    def size(self, label: Label) -> str:
        """The number of entries along a side."""
        return {ROWS: "rows", STEPS: "kept"}.get(label) or str(self.layout.block(label))

    def index(self, label: Label) -> str:
        name = _index(label)
        if label == self.row:
            return f"({name} + ir)"
        if label == self.chain:
            return f"({name} + ic)"
        return f"{name} + iv * simd::W" if label == self.lane and self.in_vectors else name

    @property
    def held(self) -> int:
        """How many sums are in registers at once."""
        return sum(self.lane in s.labels for s in self.sums)

    @property
    def in_vectors(self) -> bool:
        """Whether vectors are taken in blocks, so that several are in flight."""
        return self.lane is not None and (self.in_columns or bool(self.sums))

    # ------------------------------------------------------------ the nest

    def lines(self) -> list[Line]:
        self._find_operands()
        self.open("{")
        for s in self.sums:
            self._prepare(s)
        closers: list[str] = []
        if self.in_columns:
            rows = f"simd::rows({self.held})" if self.row else str(CHAINS if self.chain else 1)
            self._open_vectors(f"simd::columns({self.held}, {rows})", closers)
        self._enter(0)
        for level, label in enumerate(self.order, 1):
            self._open_loop(label, closers)
            self._enter(level)
        if self.lane is not None and not self.in_columns:
            if self.in_vectors:
                self._open_vectors("4", closers)
            else:
                name = _index(self.lane)
                self.open(f"for (int {name} = 0; {name} < {self.size(self.lane)}; {name} += simd::W) {{")
                closers.append("}")
        self._body()
        levels = [*reversed(range(len(self.order) + 1))]
        if self.lane is not None and not self.in_columns:
            self.close(closers.pop())
        for level in levels:
            self._leave(level)
            if level or self.in_columns:
                self.close(closers.pop())
        for s in self.sums:
            self._fold(s)
        self.close()
        return self.out

    def _open_vectors(self, count: str, closers: list[str]) -> None:
        assert self.lane is not None
        size = self.size(self.lane)
        self.open(f"simd::vectors<{count}, {size}>([&](auto vectors, int {_index(self.lane)}) INLINE {{")
        self.emit("constexpr int nv = decltype(vectors)::value;")
        closers.append("});")

    def _open_loop(self, label: Label, closers: list[str]) -> None:
        name, size = _index(label), self.size(label)
        if label in (self.row, self.chain):
            step, count = (f"simd::rows({self.held})", "nr") if label == self.row else (str(CHAINS), "nc")
            head = f"simd::blocks<{step}>({size}, " if label in (ROWS, STEPS) else f"simd::blocks<{step}, {size}>("
            self.open(f"{head}[&](auto turns, int {name}) INLINE {{")
            self.emit(f"constexpr int {count} = decltype(turns)::value;")
            closers.append("});")
        else:
            self.open(f"for (int {name} = 0; {name} < {size}; {name}++) {{")
            closers.append("}")

    # ------------------------------------------------------------ operands

    def _find_operands(self) -> None:
        done: set[str] = set()
        for s in self.nest.statements:
            for arg in s.args:
                if arg.name and arg.name not in done:
                    self._operand(s, arg)
            if s.op == "accumulate":
                self._operand(s, Ref(s.target, s.labels))
            if s.op not in REDUCTIONS:
                done.add(s.target)

    def _operand(self, s: Statement, arg: Ref) -> _Operand:
        fixed = s.attrs if s.op in ("entry", "select") else ()
        key = (arg.name, arg.labels, fixed)
        if key not in self.operands:
            same = sum(1 for name, _, _ in self.operands if name == arg.name)
            local = f"{arg.name}_at" + (f"_{same}" if same else "")
            labels = set(arg.labels)
            if s.op == "entry":
                labels.discard(s.attrs[0])
            elif s.op == "select":
                labels = labels - {s.attrs[0]} | {s.attrs[1]}
            self.operands[key] = _Operand(local, self.memory.read(s, arg), frozenset(labels))
        return self.operands[key]

    def _level(self, labels: frozenset[Label]) -> int:
        """After how many of the outer loops all of the given sides are known."""
        return max((self.order.index(label) + 1 for label in labels if label != self.lane), default=0)

    def _dims(self, labels: frozenset[Label] | set[Label]) -> list[tuple[str, str]]:
        """Loops inside blocks that a local value varies along: index and count."""
        dims = [("ic", "nc")] if self.chain in labels else []
        dims += [("ir", "nr")] if self.row in labels else []
        return dims + ([("iv", "nv")] if self.lane in labels and self.in_columns else [])

    def _enter(self, level: int) -> None:
        """What is known after ``level`` outer loops: sums that start here, operands that change no more."""
        for s in self.sums:
            if self._sum_level(s) == level:
                self._start_sum(s)
        for operand in self.operands.values():
            inner = self._is_inner(operand)
            if not inner and self._level(operand.labels) == level:
                self._read(operand)

    def _is_inner(self, operand: _Operand) -> bool:
        """Whether an operand is read where it is used: it differs from point to point, or from row to row.

        Rows are read one by one, since one number of each at a time takes fewer registers than all of them.
        """
        if self.lane in operand.labels and not self.in_columns:
            return True
        dims = self._dims(operand.labels)
        by_row = self.lane not in operand.labels and self._level(operand.labels) == len(self.order)
        return bool(dims) and (by_row or set(operand.labels) == set(self.nest.labels))

    def _read(self, operand: _Operand) -> None:
        dims = self._dims(operand.labels)
        text = operand.place.load(self._points(), self.lane, self.kind)
        if not dims:
            self.emit(f"const {self.kind} {operand.local} = {text};")
            return
        self.emit(f"{self.kind} {operand.local}{''.join(f'[{count}]' for _, count in dims)};")
        loops = " ".join(_unrolled(index, count) for index, count in dims)
        self.emit(f"{loops} {operand.local}{''.join(f'[{index}]' for index, _ in dims)} = {text};")

    def _points(self) -> dict[Label, str]:
        return {label: self.index(label) for label in self.nest.labels}

    # ------------------------------------------------------------ sums

    def _sum_level(self, s: Statement) -> int | None:
        """The number of outer loops around a sum that is held in registers; None if it is held in memory."""
        outer = {label for label in s.labels if label != self.lane}
        return len(outer) if outer == set(self.order[: len(outer)]) else None

    def _sum_dims(self, s: Statement) -> list[tuple[str, str]]:
        dims = [("ic", "nc" if self.chain in s.labels else str(CHAINS))] if self.chain else []
        dims += [("ir", "nr")] if self.row in s.labels else []
        # a sum over lanes that ends with its row adds its vectors one after the other: rows overlap anyway
        alone = self.in_columns and self.lane not in s.labels and self._sum_level(s) == len(self.order)
        if self.lane is None or alone:
            return dims
        return [*dims, ("iv", "nv" if self.in_columns else "4")]

    def _prepare(self, s: Statement) -> None:
        """Before the nest: memory of a sum over lanes, or of one that is not held in registers."""
        start = number(float("-inf")) if s.op == "amax" else None
        if self._folds(s):
            self.emit(f"real {s.target}_part[{self._part_size(s)} * simd::W] __attribute__((aligned(64)));")
            self.memory.fill(self.emit, f"{s.target}_part", f"{self._part_size(s)} * simd::W", start)
        elif self._sum_level(s) is None and not _adds(s):
            self.memory.fill(self.emit, s.target, self.memory.extent(s.labels), start)

    def _folds(self, s: Statement) -> bool:
        """Whether sums of lanes wait in memory until the nest is done."""
        return self.lane is not None and self.lane not in s.labels and (self.in_columns or bool(s.labels))

    def _part_size(self, s: Statement) -> str:
        sizes = [str(self.layout.block(label)) if label != STEPS else "kept" for label in s.labels]
        return " * ".join(sizes) or "1"

    def _start_sum(self, s: Statement) -> None:
        dims = "".join(f"[{count}]" for _, count in self._sum_dims(s))
        if s.op != "amax":
            self.emit(f"{self.kind} {s.target}_sum{dims} = {{}};")
            return
        lowest = number(float("-inf"))
        start = lowest if self.lane is None else f"simd::all({lowest})"
        self.emit(f"{self.kind} {s.target}_sum{dims};")
        loops = " ".join(_unrolled(index, count) for index, count in self._sum_dims(s))
        self.emit(f"{loops} {s.target}_sum{self._at(s)} = {start};")

    def _at(self, s: Statement) -> str:
        return "".join(f"[{index}]" for index, _ in self._sum_dims(s))

    def _leave(self, level: int) -> None:
        """Sums that are complete when loop ``level`` ends."""
        for s in self.sums:
            if self._sum_level(s) == level:
                self._finish_sum(s)

    def _finish_sum(self, s: Statement) -> None:
        dims = self._sum_dims(s)
        sides = {"ic": self.chain, "ir": self.row, "iv": self.lane}
        kept = [d for d in dims if sides[d[0]] in s.labels]
        inner = [d for d in dims if d not in kept]
        local = f"{s.target}_sum"
        if inner:
            self.open(" ".join(_unrolled(i, n) for i, n in kept) + " {" if kept else "{")
            first = "".join(f"[{i}]" if (i, n) in kept else "[0]" for i, n in dims)
            self.emit(f"{self.kind} whole_sum = {local}{first};")
            counters = " ".join(_unrolled(i, n) for i, n in inner)
            skip = " || ".join(i for i, _ in inner)
            self.emit(f"{counters} if ({skip}) whole_sum = {self._joined(s, 'whole_sum', local + self._at(s))};")
            self._put_sum(s, "whole_sum")
            self.close()
        elif kept:
            self.open(" ".join(_unrolled(i, n) for i, n in kept) + " {")
            self._put_sum(s, local + self._at(s))
            self.close()
        else:
            self._put_sum(s, local)

    def _joined(self, s: Statement, x: str, y: str) -> str:
        return f"simd::maximum({x}, {y})" if s.op == "amax" else f"{x} + {y}"

    def _put_sum(self, s: Statement, value: str) -> None:
        if self._folds(s):
            part = self._part(s)
            self.emit(f"simd::put({part}, {self._joined(s, f'simd::get({part})', value)});", s)
        elif not s.labels:
            across = ("simd::greatest" if s.op == "amax" else "simd::total") if self.lane else ""
            self.emit(f"{self.memory.homes.get(s.target, s.target)} = {across}({value});", s)
        else:
            own = self.memory.own(s.target, s.labels)
            if _adds(s):
                value = f"{own.load(self._points(), self.lane, self.kind)} + {value}"
            self.emit(own.save(self._points(), self.lane, value), s)

    def _part(self, s: Statement) -> str:
        index = ""
        for label in s.labels:
            index = f"({index} * {self.layout.block(label)} + {self.index(label)})" if index else self.index(label)
        return f"{s.target}_part + {index or '0'} * simd::W"

    def _fold(self, s: Statement) -> None:
        """After the nest: vectors of partial sums become numbers."""
        if not self._folds(s):
            return
        if not s.labels:
            across = "greatest" if s.op == "amax" else "total"
            self.emit(f"{s.target} = simd::{across}(simd::get({s.target}_part));")
            return
        *before, last = s.labels
        self.emit("{")
        self.depth += 1
        index = ""
        for label in before:
            name = _index(label)
            self.emit(f"for (int {name} = 0; {name} < {self.size(label)}; {name}++)")
            index = f"({index} * {self.layout.block(label)} + {name})" if index else name
        points = {label: _index(label) for label in s.labels} | {last: "0"}
        part = f"{s.target}_part + {index or '0'} * {self.layout.block(last)} * simd::W"
        address = self.memory.own(s.target, s.labels).address(points)
        if s.op == "amax" or last in (ROWS, STEPS):
            across = "greatest" if s.op == "amax" else "total"
            self.emit(f"for (int i = 0; i < {self.size(last)}; i++)")
            self.emit(f"  ({address})[i] = simd::{across}(simd::get({part} + i * simd::W));")
        else:
            self.emit(f"simd::fold<{self.size(last)}>({part}, {address});")
        self.close()

    # ------------------------------------------------------------ statements

    def _body(self) -> None:
        inner = [operand for operand in self.operands.values() if self._is_inner(operand)]
        rows = [("ic", "nc")] if self.chain else []
        rows += [("ir", "nr")] if self.row else []
        if rows:
            self.open(" ".join(_unrolled(index, count) for index, count in rows) + " {")
        self._read_here([operand for operand in inner if self.lane not in operand.labels])
        if self.in_vectors:
            self.open(_unrolled("iv", "nv") + " {")
        self._read_here([operand for operand in inner if self.lane in operand.labels])
        self.done.clear()
        for s in self.nest.statements:
            for text in self._statement(s):
                self.emit(text, s)
            if s.op not in REDUCTIONS:
                self.done.add(s.target)
        for s in self.nest.statements:
            if s.target in self.memory.kept and s.op not in REDUCTIONS:
                self.emit(self._write(s), s)
        for _ in range(bool(rows) + self.in_vectors):
            self.close()

    def _read_here(self, operands: Iterable[_Operand]) -> None:
        for operand in operands:
            text = operand.place.load(self._points(), self.lane, self.kind)
            self.emit(f"const {self.kind} {operand.local} = {text};")

    def _write(self, s: Statement) -> str:
        return self.memory.own(s.target, s.labels).save(self._points(), self.lane, f"{s.target}_at_new")

    def _statement(self, s: Statement) -> Iterator[str]:
        if s.op in REDUCTIONS:
            yield self._add(s)
            return
        if s.op == "store":
            yield self.memory.store(s, self._points(), self.lane, self._value(s, s.args[0]))
            return
        match s.op:
            case "load":
                place = self.memory.tensor(s.attrs[0], s.attrs[1])
                text = place.load(self._points(), self.lane, self.kind)
            case "zeros":
                text = f"{self.kind}{{}}"
            case "accumulate":
                text = f"{self._value(s, Ref(s.target, s.labels))} + {self._value(s, s.args[0])}"
            case "place":
                text = self._placed(s)
            case "assign" | "transpose" | "entry" | "select" | "mask":
                text = self._value(s, s.args[0])
            case _:
                assert s.op in OPERATIONS, s.op
                text = expression(s.op, [self._value(s, arg) for arg in s.args])
        yield f"const {self.kind} {s.target}_at_new = {text};"

    def _value(self, s: Statement, arg: Ref) -> str:
        """An operand as a vector (or a number, where there are no lanes)."""
        if arg.number is not None:
            return f"simd::all({number(arg.number)})" if self.lane else number(arg.number)
        fixed = s.attrs if s.op in ("entry", "select") else ()
        if arg.name in self.done:
            return f"{arg.name}_at_new"
        operand = self.operands[arg.name, arg.labels, fixed]
        dims = [] if self._is_inner(operand) else self._dims(operand.labels)
        return operand.local + "".join(f"[{index}]" for index, _ in dims)

    def _placed(self, s: Statement) -> str:
        side, entry = s.attrs
        value = self._value(s, s.args[0])
        if side == self.lane:
            return f"simd::placed({value}, {entry} - ({self.index(side)}))"
        return f"{self.index(side)} == {entry} ? {value} : {self.kind}{{}}"

    def _add(self, s: Statement) -> str:
        value = " * ".join(self._value(s, arg) for arg in s.args)
        if self.lane is not None and self.lane not in s.labels:
            outside = number(float("-inf")) if s.op == "amax" else "0"
            value = f"simd::inside<{self.size(self.lane)}>({value}, {self.index(self.lane)}, {outside})"
        if self._sum_level(s) is None:
            own = self.memory.own(s.target, s.labels)
            if self._folds(s):
                part = self._part(s)
                return f"simd::put({part}, {self._joined(s, f'simd::get({part})', value)});"
            before = own.load(self._points(), self.lane, self.kind)
            return own.save(self._points(), self.lane, self._joined(s, before, value))
        local = f"{s.target}_sum{self._at(s)}"
        return f"{local} = {self._joined(s, local, value)};"


def _adds(s: Statement) -> bool:
    """Whether a sum adds to what its target holds."""
    return s.op == "product_sum" and len(s.attrs) > 2


def _index(label: Label) -> str:
    """The loop variable of a side."""
    return f"i_{identifier(label.name)}" + (f"_{label.copy}" if label.copy else "")


def _unrolled(index: str, count: str) -> str:
    return f"UNROLL for (int {index} = 0; {index} < {count}; {index}++)"
