"""Kernel IR to C++: a kernel's arguments, its own memory, and its sections as loop nests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ..lower.kernel_ir import Kernel, Statement, Tensor
from ..lower.layout import ROWS, STEPS, Label, identifier
from ..lower.nests import REDUCTIONS, Nests, has_rows, make_nests
from . import cpp_packed
from .cpp_memory import Memory, Size, kept_size
from .cpp_nest import print_nest
from .lines import Line

NUMBERS = ("batch", "steps", "heads", "first", "direction", "chunks", "share", "groups", "threads", "past")
"""Whole numbers that every kernel takes: sequences, steps, heads, index of the first step in memory and +1
or -1 from there, checkpoints per sequence, sequences per program, programs that the sequences are shared
out over, threads, and whether results are written past the caches. Strides of the inputs follow."""

STRIDES = ("heads", "sb", "st", "sh")
"""What follows for each strided tensor: its heads, and strides of sequences, steps and heads."""


def cpp_blocks(kernel: Kernel) -> dict[str, list[Line]]:
    """The printed blocks of a kernel, by the markers that stand for them in its template."""
    return _Kernel(kernel).blocks()


class _Kernel:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.layout = kernel, kernel.layout
        self.chunk = kernel.facts.get("chunk")
        sections = kernel.sections
        carried = _carried(kernel)
        self.nests = {
            name: make_nests(statements, self.layout, _read_elsewhere(kernel, name), carried)
            for name, statements in sections.items()
        }
        self.kept: dict[str, tuple[Label, ...]] = {}
        for nests in self.nests.values():
            self.kept |= {name: labels for name, labels in nests.memory.items() if name not in nests.homes}
        self.kept |= {name: labels for name, labels in self._segments().items()}
        self.panels = self._panels()
        self.declared: set[str] = set()  # numbers that have a variable by now

    def blocks(self) -> dict[str, list[Line]]:
        printed = {
            "room": [Line(text) for text in self._room()],
            "arguments": [Line(text) for text in self._arguments()],
            "place": [Line(text) for text in self._place()],
            "clear": [Line(text) for text in cpp_packed.clear(self.kernel, self._kept_sizes())],
        }
        for name in _ORDER[self.kernel.template]:
            printed[name] = self._section(name) if name in self.nests else []
        return printed

    # ------------------------------------------------------------ memory

    def _segments(self) -> dict[str, tuple[Label, ...]]:
        """Kept tensors, as the sections that read all steps of a chunk see them."""
        products = self.kernel.sections.get("products", ())
        return {arg.name: arg.labels for s in products for arg in s.args if arg.name in self._segment_names()}

    def _segment_names(self) -> dict[str, Tensor]:
        return {t.name: t for t in self.kernel.tensors if t.place == "segment"}

    def _memory(self, name: str) -> Memory:
        nests = self.nests[name]
        views = dict(nests.views)
        for outer in ("replay_invariant", "invariant"):
            if outer in self.nests:
                views = {**self.nests[outer].views, **views}
        kept = self.kept | {value: self.kept[home] for value, home in nests.homes.items()}
        homes = {**nests.homes, **{t: f"kept_{t}" for t in self._segment_names()}}
        return Memory(self.layout, kept, homes, views, self.panels, self.kernel.packed)

    def _panels(self) -> frozenset[str]:
        """Matrices that are made before the first step and that every nest reads by vectors."""
        made = {
            s.target
            for name in ("replay_invariant", "invariant")
            for nest in (self.nests[name].nests if name in self.nests else ())
            for s in nest.statements
            if len(s.labels) == 2 and s.target in self.kept and not {ROWS, STEPS} & set(s.labels)
        }
        nests = [nest for nests in self.nests.values() for nest in nests.nests]
        readings = [(nest, s, arg) for nest in nests for s in nest.statements for arg in s.args if arg.name in made]
        others = {
            arg.name
            for nest, s, arg in readings
            if nest.labels[-1] != arg.labels[-1] or s.op in ("select", "entry", "transpose")
        }
        sums = {s.target for nest in nests for s in nest.statements if s.op in REDUCTIONS}
        return frozenset(made - others - sums)

    def _room(self) -> Iterator[str]:
        memory = Memory(self.layout, {}, {}, {})
        for name, labels in self._arrays().items():
            yield f"alignas(64) real {name}[{memory.extent(labels)}];"
        for name, size in self._kept_sizes().items():
            yield f"alignas(64) real kept_{name}[{size}];"
        if not self._arrays() and not self._segment_names():
            yield "real nothing;"

    def _kept_sizes(self) -> dict[str, str]:
        """How many numbers are kept of the steps of a chunk, by tensor."""
        memory = Memory(self.layout, {}, {}, {})
        return {t.name: f"{self.chunk} * {kept_size(t, memory)}" for t in self._segment_names().values()}

    def _arrays(self) -> dict[str, tuple[Label, ...]]:
        segments = self._segments()
        return {name: labels for name, labels in self.kept.items() if labels and name not in segments}

    # ------------------------------------------------------------ arguments and addresses

    def _callers(self) -> list[Tensor]:
        return [t for t in self.kernel.tensors if t.place != "segment"]

    def _arguments(self) -> Iterator[str]:
        for number, name in enumerate(NUMBERS):
            yield f"[[maybe_unused]] const int64_t {name} = numbers[{number}];"
        position = len(NUMBERS)
        for index, tensor in enumerate(self._callers()):
            written = any(s.op == "store" and s.attrs[0].name == tensor.name for s in self._statements())
            const = "" if written else "const "
            kind = element(tensor)
            yield f"{const}{kind}* const {tensor.name}_ptr = static_cast<{const}{kind}*>(tensors[{index}]);"
            if tensor.strided:
                names = (tensor.heads, *(f"{tensor.name}_{which}" for which in STRIDES[1:]))
                for name in names:
                    yield f"[[maybe_unused]] const int64_t {name} = numbers[{position}];"
                    position += 1
            elif has_rows(tensor, self.layout):
                yield f"const int64_t {tensor.name}_sb = {self._row_stride(tensor)};"
        if self.kernel.packed:
            name = cpp_packed.SEQUENCES
            yield f"const int64_t* const {name} = static_cast<const int64_t*>(tensors[{len(self._callers())}]);"
        tiles = " * ".join(str(self.layout.count(name)) for name in self.layout.tiles)
        yield f"const int64_t programs = {tiles + ' * ' if tiles else ''}heads * groups;"

    def _statements(self) -> list[Statement]:
        return [s for statements in self.kernel.sections.values() for s in statements]

    def _row_stride(self, tensor: Tensor) -> str:
        numel = self._numel(tensor)
        if self.kernel.packed:
            return f"heads * {numel}"
        return {"step": f"steps * heads * {numel}", "checkpoint": f"chunks * heads * {numel}"}.get(
            tensor.place, f"heads * {numel}"
        )

    def _place(self) -> Iterator[str]:
        layout = self.layout
        for array in self._arrays():
            yield f"auto& {array} = room.{array};"
        for name in self._segment_names():
            yield f"auto& kept_{name} = room.kept_{name};"
        yield "int64_t rest = program;"
        for name in layout.tiles:
            yield f"const int64_t tile_{identifier(name)} = rest % {layout.count(name)};"
            yield f"rest /= {layout.count(name)};"
        yield "[[maybe_unused]] const int64_t head = rest % heads, group = rest / heads;"
        if self.kernel.packed:
            yield from cpp_packed.place(self.kernel)
        elif layout.rows > 1:
            yield "const int64_t sequence = group * share;"
            yield "const int rows = int(batch - sequence < share ? batch - sequence : share);"
        else:
            yield "[[maybe_unused]] const int64_t sequence = group;"
        for tensor in self._callers():
            pointer = "p" if tensor.place in ("head", "sequence", "partial") else "base"
            yield f"auto* const {pointer}_{tensor.name} = {tensor.name}_ptr + {self._base(tensor)};"

    def _base(self, tensor: Tensor) -> str:
        """Where the data of this program begins, at step 0."""
        numel = self._numel(tensor)
        head = "head" if tensor.heads == "heads" else f"head / (heads / {tensor.heads})"
        index, extent = {
            "step": ("sequence * steps * heads + head", "batch * steps * heads"),
            "head": ("head", "heads"),
            "sequence": ("sequence * heads + head", "batch * heads"),
            "checkpoint": ("sequence * chunks * heads + head", "batch * chunks * heads"),
            "partial": ("group * heads + head", "groups * heads"),
            "segment": ("", ""),
        }[tensor.place]
        if self.kernel.packed and tensor.place in cpp_packed.ROW_INDEX:
            index, extent = cpp_packed.index(tensor, self.layout.rows, self.chunk)
        if tensor.strided:
            text = "" if self.kernel.packed else f"sequence * {tensor.name}_sb + "
            text += f"{head} * {tensor.name}_sh"
        else:
            copy = self._copy(tensor)
            index = f"{copy} * ({extent}) + {index}" if copy else index
            text = f"({index}) * {numel}" if numel != 1 else index
        tile = self._tile_offset(tensor)
        return f"{text} + {tile}" if tile else text

    def _copy(self, tensor: Tensor) -> str:
        index = ""
        for name in tensor.copies:
            index = (
                f"({index} * {self.layout.count(name)} + tile_{identifier(name)})"
                if index
                else f"tile_{identifier(name)}"
            )
        return index

    def _tile_offset(self, tensor: Tensor) -> str:
        parts, stride = [], 1
        for axis in reversed(tensor.axes):
            if axis.name in self.layout.tiles:
                parts.append(f"tile_{identifier(axis.name)} * {self.layout.blocks[axis.name] * stride}")
            stride *= self.layout.sizes[axis.name]
        return " + ".join(parts)

    def _numel(self, tensor: Tensor) -> int:
        return math.prod(self.layout.sizes[axis.name] for axis in tensor.axes)

    def _pointers(self, name: str) -> Iterator[str]:
        """Addresses that move from section to section: of a step, of a checkpoint, of a kept step."""
        touched = {s.attrs[0].name: s.attrs[0] for s in self.kernel.sections[name] if s.op in ("load", "store")}
        moving = [t for t in touched.values() if t.place == "step"]
        if moving:
            first = cpp_packed.first_step(self.layout.rows) if self.kernel.packed else "first + "
            yield f"const int64_t t = {first}direction * step;"
        for tensor in touched.values():
            numel = self._numel(tensor)
            match tensor.place:
                case "step":
                    stride = f"{tensor.name}_st" if tensor.strided else f"heads * {numel}"
                    yield f"auto* const p_{tensor.name} = base_{tensor.name} + t * {_grouped(stride)};"
                case "checkpoint":
                    yield f"auto* const p_{tensor.name} = base_{tensor.name} + begin / {self.chunk} * heads * {numel};"
                case "segment":
                    size: Size = kept_size(tensor, Memory(self.layout, {}, {}, {}))
                    yield f"real* const p_{tensor.name} = kept_{tensor.name} + (step - begin) * {size};"

    # ------------------------------------------------------------ sections

    def _section(self, name: str) -> list[Line]:
        memory = self._memory(name)
        lines = [Line(text) for text in self._pointers(name)]
        nests = self.nests[name]
        for nest in nests.nests:
            for s in nest.statements:
                alone = not s.labels and s.target in memory.kept and s.target not in nests.homes
                if alone and s.target not in self.declared:
                    lines.append(Line(f"real {s.target};"))
                    self.declared.add(s.target)
            lines += print_nest(nest, memory)
        return lines


def element(tensor: Tensor) -> str:
    """The C++ type of a tensor's elements: params come in the compute type."""
    return "real" if tensor.compute or tensor.place == "head" else "user"


def _grouped(text: str) -> str:
    return f"({text})" if " " in text else text


_ORDER = {
    "forward": ("invariant", "initial", "checkpoint", "step", "final"),
    "reverse": ("invariant", "initial", "step", "checkpoint", "final"),
    "backward": (
        "replay_invariant", "invariant", "initial", "replay_initial", "replay_step", "step", "products", "final",
    ),
}  # fmt: skip
"""The sections of each template, in the order in which they stand there."""


def _carried(kernel: Kernel) -> frozenset[str]:
    """Variables that are written more than once, or in one section for another to change."""
    found = set()
    for name, statements in kernel.sections.items():
        for s in statements:
            if s.op in ("assign", "accumulate", "zeros") or (s.op == "load" and name.endswith("initial")):
                found.add(s.target)
    return frozenset(found)


def _read_elsewhere(kernel: Kernel, section: str) -> set[str]:
    """Variables that sections other than the given one read."""
    others: Mapping[str, tuple[Statement, ...]] = {n: s for n, s in kernel.sections.items() if n != section}
    return {arg.name for statements in others.values() for s in statements for arg in s.args if arg.name}


def nests_of(kernel: Kernel) -> dict[str, Nests]:
    """The loop nests of each section, for `recurra show`."""
    return _Kernel(kernel).nests
