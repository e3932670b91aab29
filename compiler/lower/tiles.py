"""A body of the typed IR becomes statements on tiles.

Broadcasts cost nothing here: a value keeps only the sides it truly varies along, and the printer
spreads it where it is used. A contraction becomes ``dot`` where both operands are matrices with sides
of at least 16, and a product with a sum otherwise. Reductions mask lanes outside of an axis, so that
whatever stands there (infinities included) cannot leak in.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...dsl.source import Span
from ..ir.ops import OPS
from ..ir.program import Body, Instr, depends_on
from .constants import constants
from .kernel_ir import Coordinate, Ref, Statement, Tensor
from .layout import Label, Layout, identifier, labels_of
from .naming import fresh, is_free

DOT_SIDE = 16
"""The least side of a tile in a matrix product on the targets' matrix units."""


@dataclass(frozen=True, slots=True)
class View:
    """A tensor's elements that are loaded where they are needed, in the order that is needed."""

    tensor: Tensor
    coordinates: tuple[Coordinate, ...]
    section: str


class TileWriter:
    """Writes statements for the values of one body into named sections.

    ``sources`` gives every leaf as a tensor to load from or as a variable that is there already;
    ``precision`` is the form of matrix products, None on a target without a matrix unit; variables have names that are
    ``free`` and not ``reserved``.
    Values that read params only go to the section ``invariant``, everything else to ``step``.
    """

    def __init__(
        self,
        body: Body,
        layout: Layout,
        sources: Mapping[tuple[str, str], Tensor | Ref],
        precision: str | None,
        reserved: Iterable[str] = (),
        free: Callable[[str], bool] = is_free,
    ) -> None:
        self.body, self.layout, self.sources, self.precision = body, layout, sources, precision
        self.free = free
        self.sections: dict[str, list[Statement]] = {"invariant": [], "step": []}
        self.loaded: dict[str, Tensor] = {}
        self._numbers = constants(body, layout.sizes)
        kinds = ("input", "state", "after", "cotangent", "saved", "read")
        self._varies = depends_on(body, kinds)
        self._values: dict[int, Ref | View] = {}
        self._loads: dict[tuple[str, tuple[Coordinate, ...], tuple[Label, ...]], Ref] = {}
        self._turned: dict[tuple[str, tuple[int, ...]], Ref] = {}
        self._taken = set(reserved)
        self._section = "step"
        self._span: Span | None = None
        self._forgotten = 0

    # ------------------------------------------------------------ the walk

    def lower(self, wanted: Iterable[int]) -> None:
        """Write the statements of all given values that have none yet, in the body's order."""
        for position in sorted(set(wanted) - self._values.keys()):
            instr = self.body[position]
            self._section = self.section_of(position)
            self._span = instr.span
            self._values[position] = self._lower(position, instr)

    def lower_missing(self, roots: Iterable[int]) -> None:
        """Write the statements of given values and of what they need, from what has a variable on."""
        needed = set(roots) - self._values.keys()
        for position in range(max(needed, default=-1), -1, -1):
            if position in needed:
                needed.update(arg for arg in self.body[position].args if arg not in self._values)
        self.lower(needed)

    def ref(self, value: int) -> Ref:
        """The variable that holds a value, with its sides in standard order."""
        found = self._values[value]
        return self._load(found, self._sorted(found)) if isinstance(found, View) else found

    def section_of(self, value: int) -> str:
        return "step" if self._varies[value] else "invariant"

    def emit(
        self, op: str, args: tuple[Ref, ...], labels: Iterable[Label], name: str, attrs: tuple[Any, ...] = ()
    ) -> Ref:
        """Append a statement with a fresh target to the current section."""
        target = self.fresh(name)
        ordered = tuple(labels)
        self.sections[self._section].append(Statement(target, op, args, attrs, ordered, self._span))
        return Ref(target, ordered)

    def fresh(self, name: str) -> str:
        """A variable name that nothing uses yet."""
        found = fresh(name, self._taken, self.free)
        self._taken.add(found)
        return found

    def _lower(self, position: int, instr: Instr) -> Ref | View:
        if position in self._numbers:
            return Ref("", number=self._numbers[position])
        match OPS[instr.op].kind:
            case "leaf":
                return self._leaf(instr)
            case "contract":
                return self._contract(instr)
            case "reduce":
                return self._reduce(instr)
            case "move":
                return self._move(instr)
        if instr.op == "stop_grad":
            return self._values[instr.args[0]]
        args = tuple(self.ref(arg) for arg in instr.args)
        labels = self.layout.sort(label for arg in args for label in arg.labels)
        if instr.op == "clip_grad":
            return args[0]
        return self.emit(instr.op, args, labels, self._name(instr), instr.attrs)

    @staticmethod
    def _name(instr: Instr) -> str:
        return identifier(instr.name) if instr.name else instr.op

    # ------------------------------------------------------------ leaves

    def _leaf(self, instr: Instr) -> Ref | View:
        source = self.sources[instr.attrs]
        if isinstance(source, Ref):
            return source
        coordinates = tuple(Coordinate(label) for label in labels_of(instr.axes))
        section = "invariant" if source.place == "head" else "step"
        return View(source, coordinates, section)

    def _sorted(self, view: View) -> tuple[Label, ...]:
        return self.layout.sort(self._sides(view))

    def _stays(self, view: View) -> bool:
        """Whether a matrix of weights is read in the order in which it lies in memory."""
        return self.layout.in_place and view.tensor.place == "head" and len(self._in_memory(view)) == 2

    @staticmethod
    def _in_memory(view: View) -> tuple[Label, ...]:
        return tuple(c.label for c in view.coordinates if c.label is not None)

    def _sides(self, view: View) -> list[Label]:
        sides = [c.label for c in view.coordinates if c.label is not None]
        return sides + list(self.layout.rows_of(view.tensor.place))

    def _load(self, view: View, order: tuple[Label, ...]) -> Ref:
        key = (view.tensor.name, view.coordinates, order)
        if key not in self._loads:
            self.loaded[view.tensor.name] = view.tensor
            previous, self._section = self._section, view.section
            again = ("again", self._forgotten) if self._forgotten else ()
            ref = self.emit("load", (), order, view.tensor.name, (view.tensor, view.coordinates, *again))
            self._section = previous
            self._loads[key] = replace(ref, clean=frozenset(order))
        return self._loads[key]

    def forget(self, more: Container[int] = ()) -> None:
        """From here on what a step reads from memory is loaded again, and tiles that follow from that and the values
        ``more`` are computed again, so that they need not be kept until now."""
        self._loads = {key: ref for key, ref in self._loads.items() if self.loaded[key[0]].place == "head"}
        self._forgotten += 1
        of_cotangents = depends_on(self.body, ("cotangent",))
        self._values = {
            value: ref
            for value, ref in self._values.items()
            if isinstance(ref, View)
            or (len(ref.labels) < 2 and value not in more)
            or of_cotangents[value]
            or not self._varies[value]
        }

    # ------------------------------------------------------------ renaming and moving

    def _renamed(self, value: int, names: Mapping[Label, Label], order: tuple[Label, ...] | None = None) -> Ref:
        """A value under other side names, with sides in the given (else the standard) order."""
        found = self._values[value]
        if isinstance(found, View):
            view = self._rename_view(found, names)
            return self._load(view, order or (self._in_memory(view) if self._stays(view) else self._sorted(view)))
        labels = tuple(names.get(label, label) for label in found.labels)
        clean = frozenset(names.get(label, label) for label in found.clean)
        ref = replace(found, labels=labels, clean=clean)
        wanted = order or self.layout.sort(labels)
        if wanted == labels:
            return ref
        key = (found.name, tuple(labels.index(label) for label in wanted))
        if key not in self._turned:
            section, self._section = self._section, self.section_of(value)
            self._turned[key] = self.emit("transpose", (ref,), wanted, f"{found.name}_t")
            self._section = section
        return replace(self._turned[key], labels=wanted, clean=clean)

    @staticmethod
    def _rename_view(view: View, names: Mapping[Label, Label]) -> View:
        coordinates = tuple(
            replace(c, label=names.get(c.label, c.label)) if c.label is not None else c for c in view.coordinates
        )
        return replace(view, coordinates=coordinates)

    def _move(self, instr: Instr) -> Ref | View:
        value = instr.args[0]
        before, after = labels_of(self.body[value].axes), labels_of(instr.axes)
        position = instr.attrs[0]
        match instr.op:
            case "broadcast":
                names = {before[s]: label for s, label in zip(instr.attrs[0], after, strict=True) if s >= 0}
                return self._rename_lazily(value, names)
            case "index":
                return self._index(instr, before, after)
            case "place":
                names = dict(zip(before, after[:position] + after[position + 1 :], strict=True))
                ref = self._renamed(value, names)
                labels = self.layout.sort((*ref.labels, after[position]))
                return self.emit("place", (ref,), labels, "place", (after[position], instr.attrs[1]))
            case "slice":
                return self._slice(instr, before, after)
            case "pad":
                shift = instr.attrs[1].bind(self.layout.sizes)
                return self._select(value, before, after, position, shift)
        shift = self.body[value].axes[position].size.bind(self.layout.sizes)
        second = labels_of(self.body[instr.args[1]].axes)
        parts = (
            self._select(value, before, after, position, 0),
            self._select(instr.args[1], second, after, position, shift),
        )
        labels = self.layout.sort(label for part in parts for label in part.labels)
        return self.emit("add", parts, labels, self._name(instr))

    def _rename_lazily(self, value: int, names: Mapping[Label, Label]) -> Ref | View:
        found = self._values[value]
        return self._rename_view(found, names) if isinstance(found, View) else self._renamed(value, names)

    def _index(self, instr: Instr, before: tuple[Label, ...], after: tuple[Label, ...]) -> Ref | View:
        position, entry = instr.attrs
        found, side = self._values[instr.args[0]], before[position]
        names = dict(zip(before[:position] + before[position + 1 :], after, strict=True))
        if isinstance(found, View):
            coordinates = tuple(Coordinate(None, c.start + entry) if c.label == side else c for c in found.coordinates)
            return self._rename_view(replace(found, coordinates=coordinates), names)
        if side not in found.labels:
            return self._renamed(instr.args[0], names)
        rest = tuple(label for label in found.labels if label != side)
        kept = self.emit("entry", (found,), rest, self._name(instr), (side, entry))
        return replace(kept, labels=self.layout.sort(names.get(label, label) for label in rest))

    def _slice(self, instr: Instr, before: tuple[Label, ...], after: tuple[Label, ...]) -> Ref | View:
        position, start, _ = instr.attrs
        shift = start.bind(self.layout.sizes)
        found, side = self._values[instr.args[0]], before[position]
        if isinstance(found, View):
            names = dict(zip(before, after, strict=True))
            coordinates = tuple(replace(c, start=c.start + shift) if c.label == side else c for c in found.coordinates)
            return self._rename_view(replace(found, coordinates=coordinates), names)
        return self._select(instr.args[0], before, after, position, -shift)

    def _select(
        self, value: int, before: tuple[Label, ...], after: tuple[Label, ...], position: int, shift: int
    ) -> Ref:
        """``out[i] = x[i - shift]`` along one side, zero where there is no such entry."""
        source, target = before[position], after[position]
        others = {b: a for i, (b, a) in enumerate(zip(before, after, strict=True)) if i != position}
        free = self._free_label(source, {target, *others.values()})
        ref = self._renamed(value, {**others, source: free})
        rest = [label for label in ref.labels if label != free]
        return self.emit("select", (ref,), self.layout.sort((*rest, target)), "part", (free, target, shift))

    @staticmethod
    def _free_label(label: Label, used: set[Label]) -> Label:
        copy = 0
        while Label(label.name, copy) in used:
            copy += 1
        return Label(label.name, copy)

    # ------------------------------------------------------------ reductions

    def _reduce(self, instr: Instr) -> Ref:
        before = labels_of(self.body[instr.args[0]].axes)
        side = before[instr.attrs[0]]
        ref = self.ref(instr.args[0])
        names = dict(zip((label for label in before if label != side), labels_of(instr.axes), strict=True))
        if side not in ref.labels:
            if instr.op == "amax":
                return ref
            result = self._scaled(ref, self.layout.sizes[side.name])
        else:
            rest = tuple(label for label in ref.labels if label != side)
            result = self.emit(instr.op, (ref,), rest, self._name(instr), (side,))
        return replace(result, labels=tuple(names.get(label, label) for label in result.labels))

    # ------------------------------------------------------------ contractions

    def _contract(self, instr: Instr) -> Ref:
        left, right, out = instr.attrs
        names = self._contract_labels(instr)
        sides = []
        for value, labels in zip(instr.args, (left, right), strict=True):
            own = labels_of(self.body[value].axes)
            sides.append({label: names[i] for label, i in zip(own, labels, strict=True)})
        summed = tuple(names[i] for i in dict.fromkeys((*left, *right)) if i not in out)
        refs = [self._labels_after(value, side) for value, side in zip(instr.args, sides, strict=True)]
        if self._is_dot(refs[0], refs[1], summed):
            return self._dot(instr, sides, refs, summed[0])
        args = tuple(self._renamed(value, side) for value, side in zip(instr.args, sides, strict=True))
        labels = self._space(instr, args)
        present = tuple(label for label in summed if label in labels)
        absent = [self.layout.sizes[label.name] for label in summed if label not in labels]
        if present:
            rest = tuple(label for label in labels if label not in present)
            result = self.emit("product_sum", args, rest, self._name(instr), (present, labels))
        else:
            result = self.emit("mul", args, labels, self._name(instr))
        for size in absent:
            result = self._scaled(result, size)
        return result

    def _space(self, instr: Instr, args: tuple[Ref, ...]) -> tuple[Label, ...]:
        """All sides of a product in order: the last is that along which weights lie in memory, if they stay there."""
        labels = self.layout.sort(label for arg in args for label in arg.labels)
        for value, arg in zip(instr.args, args, strict=True):
            found = self._values[value]
            if isinstance(found, View) and self._stays(found):
                labels = (*(label for label in labels if label != arg.labels[-1]), arg.labels[-1])
        return labels

    def _scaled(self, ref: Ref, size: int) -> Ref:
        """The sum of a value along a side that it does not vary along."""
        return self.emit("mul", (ref, Ref("", number=float(size))), ref.labels, "scaled")

    def _contract_labels(self, instr: Instr) -> dict[int, Label]:
        """A tile side for every label of a contraction: the result's own, and free ones to sum over."""
        left, right, out = instr.attrs
        names = dict(zip(out, labels_of(instr.axes), strict=True))
        for value, labels in zip(instr.args, (left, right), strict=True):
            for number, axis in zip(labels, self.body[value].axes, strict=True):
                if number not in names:
                    names[number] = self._free_label(Label(axis.name), set(names.values()))
        return names

    def _labels_after(self, value: int, names: Mapping[Label, Label]) -> frozenset[Label]:
        found = self._values[value]
        labels = self._sides(found) if isinstance(found, View) else found.labels
        return frozenset(names.get(label, label) for label in labels)

    def _is_dot(self, left: frozenset[Label], right: frozenset[Label], summed: tuple[Label, ...]) -> bool:
        shared = left & right
        sides = left | right
        return (
            self.precision is not None
            and len(left) == len(right) == 2
            and len(summed) == 1
            and shared == set(summed)
            and all(self.layout.block(side) >= DOT_SIDE for side in sides)
        )

    def _dot(self, instr: Instr, names: list[dict[Label, Label]], sides: list[frozenset[Label]], summed: Label) -> Ref:
        free = [next(iter(side - {summed})) for side in sides]
        order = self.layout.sort(free)
        first = free.index(order[0])
        orders = {first: (order[0], summed), 1 - first: (summed, order[1])}
        refs = [self._renamed(instr.args[i], names[i], orders[i]) for i in (0, 1)]
        args = tuple(self._without_padding(refs[i], summed) for i in (first, 1 - first))
        return self.emit("dot", args, order, self._name(instr), (self.precision,))

    def _without_padding(self, ref: Ref, side: Label) -> Ref:
        if not self.layout.padded(side) or side in ref.clean:
            return ref
        return self.emit("mask", (ref,), ref.labels, f"{ref.name}_masked", (side,))
