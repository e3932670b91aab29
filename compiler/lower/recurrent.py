"""The three kernels of the recurrent strategy (algorithms.md section 6).

``forward`` walks the steps and, where gradients are wanted, writes the state at the start of every
chunk. ``trajectory`` starts from those checkpoints, all chunks of a segment at once, and writes the
state before each step. ``adjoint`` walks the segment backwards with the states' cotangents on chip.
No kernel reads what it has written itself.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from ..autodiff.plan import Plan
from ..ir.program import Body, Program, depends_on, live
from ..ir.types import Axes
from .kernel_ir import Coordinate, Kernel, Ref, Statement, Tensor
from .layout import ROWS, Label, Layout, identifier, labels_of
from .naming import fresh, is_free
from .tiles import TileWriter


@dataclass(frozen=True)
class DeferredProduct:
    """A param's gradient that is one product over all steps: names of the two stored operands."""

    param: str
    left: Tensor
    right: Tensor
    labels: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Recurrent:
    """The kernels of one recurrence at one layout. ``infer`` is forward without checkpoints."""

    layout: Layout
    chunk: int
    infer: Kernel
    forward: Kernel
    trajectory: Kernel
    adjoint: Kernel
    products: tuple[DeferredProduct, ...]

    @property
    def backward(self) -> tuple[Kernel, ...]:
        """The kernels of the backward pass over one segment, in order."""
        return (self.trajectory, self.adjoint)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, in order of use."""
        return (self.infer, self.forward, self.trajectory, self.adjoint)


def lower_recurrent(
    program: Program, plan: Plan, layout: Layout, *, precision: str, chunk: int, strided: bool, packed: bool = False
) -> Recurrent:
    """All kernels of a recurrence; ``chunk`` is the number of steps between checkpoints."""
    maker = Maker(program, plan, layout, precision, chunk, strided, packed=packed)
    adjoint, products = maker.adjoint()
    forward = maker.forward(train=True)
    return Recurrent(layout, chunk, maker.forward(train=False), forward, maker.trajectory(), adjoint, products)


class Maker:
    """Makes kernels of one recurrence; names that one of them takes are free in the next, unless ``reserved``.

    Inputs and outputs named in ``wide`` are of the compute type, others of the caller's.
    """

    def __init__(
        self,
        program: Program,
        plan: Plan,
        layout: Layout,
        precision: str | None,
        chunk: int,
        strided: bool,
        wide: Container[str] = (),
        packed: bool = False,
    ) -> None:
        self.program, self.plan, self.layout = program, plan, layout
        self.precision, self.chunk, self.wide, self.packed = precision, chunk, wide, packed
        self.inputs = {
            i.name: Tensor(i.name, "step", i.axes, f"heads_{i.name}", strided=strided, compute=i.name in wide)
            for i in program.inputs
        }
        self.params = {p.name: Tensor(p.name, "head", p.axes, compute=False) for p in program.params}
        self.reserved = {f"{prefix}_{identifier(name)}" for name in layout.sizes for prefix in "iom"}
        self.reserved |= {f"d_{s.name}" for s in program.states} | {
            f"{w}_{name}" for name in self.params for w in ("sum", "total")
        }
        self.state: dict[str, str] = {}
        for state in program.states:
            self.state[state.name] = self.variable(state.name)
            self.reserved.add(self.state[state.name])

    # ------------------------------------------------------------ helpers

    @property
    def ragged(self) -> bool:
        """Whether tiles hold sequences that end before others; loops of a processor leave such out by themselves."""
        return self.packed and self.layout.sequences > 1 and not self.layout.lanes

    free = staticmethod(is_free)
    """Whether a variable may have a name."""

    def variable(self, name: str) -> str:
        """A variable's name that nothing else has."""
        return fresh(name, self.reserved, self.free)

    def full(self, axes: Axes) -> tuple[Label, ...]:
        """All sides that a state-like value with these axes has."""
        return self.layout.sort((*self.layout.rows_of("sequence"), *labels_of(axes)))

    def once(self, name: str, place: str, axes: Axes, compute: bool = True) -> Tensor:
        """A tensor of which tiles that share an entry hold the same value: tile 0 writes it."""
        return Tensor(name, place, axes, first_tile=self.layout.untiled(axes), compute=compute)  # type: ignore[arg-type]

    def each(self, name: str, place: str, axes: Axes, heads: str = "heads", compute: bool = True) -> Tensor:
        """A tensor to which every tile contributes its own part: summed over tiles afterwards."""
        copies = self.layout.untiled(axes)
        return Tensor(name, place, axes, heads, copies, compute=compute or bool(copies))  # type: ignore[arg-type]

    def writer(self, body: Body, sources: dict[tuple[str, str], Tensor | Ref]) -> TileWriter:
        for name, tensor in self.inputs.items():
            sources["input", name] = tensor
        for name, tensor in self.params.items():
            sources["param", name] = tensor
        return TileWriter(body, self.layout, sources, self.precision, self.reserved, self.free)

    def used(self, writer: TileWriter, *more: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Tensors in argument order: what is read of inputs and params, then the given ones."""
        read = (*self.inputs.values(), *self.params.values())
        kept = [tensor for tensor in read if tensor.name in writer.loaded]
        return tuple(dict.fromkeys((*kept, *(tensor for group in more for tensor in group))))

    def carried(self) -> dict[tuple[str, str], Ref]:
        """The variables that hold the states from step to step."""
        return {("state", s.name): Ref(self.state[s.name], self.full(s.axes)) for s in self.program.states}

    def advance(self, writer: TileWriter, updates: Sequence[tuple[str, Axes, Ref]]) -> list[Statement]:
        """Carried variables take their next values, all at once; sequences that have ended keep theirs."""
        op = "keep" if self.ragged else "assign"
        carried = {name for name, _, _ in updates}
        statements, assigns = [], []
        for name, axes, ref in updates:
            labels = self.full(axes)
            if ref.name in carried and ref.name != name:
                copy = writer.fresh(f"{name}_next")
                statements.append(Statement(copy, "assign", (ref,), (), ref.labels))
                ref = replace(ref, name=copy)
            if ref.name != name:
                assigns.append(Statement(name, op, (ref,), (), labels))
        return statements + assigns

    # ------------------------------------------------------------ kernels

    def forward(self, *, train: bool) -> Kernel:
        program = self.program
        starts = {s.name: Tensor(f"{s.name}_start", "sequence", s.axes) for s in program.states}
        ends = {s.name: self.once(f"{s.name}_end", "sequence", s.axes) for s in program.states}
        checkpoints = {s.name: self.once(f"{s.name}_checkpoint", "checkpoint", s.axes) for s in program.states}
        outputs = {o.name: self.once(o.name, "step", o.axes, compute=o.name in self.wide) for o in program.outputs}
        sources = self.carried()
        writer = self.writer(program.body, dict(sources))
        writer.lower(live(program.body, program.roots()))
        step = [*(store(outputs[o.name], writer.ref(o.value)) for o in program.outputs)]
        step += self.advance(writer, [(self.state[s.name], s.axes, writer.ref(s.next)) for s in program.states])
        states = list(sources.values())
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": tuple(read(starts[s.name], self.state[s.name], self.full(s.axes)) for s in program.states),
            "step": (*writer.sections["step"], *step),
            "final": tuple(store(ends[s.name], r) for s, r in zip(program.states, states, strict=True)),
        }
        kept = checkpoints.values() if train else ()
        if train:
            sections["checkpoint"] = tuple(
                store(checkpoints[s.name], r) for s, r in zip(program.states, states, strict=True)
            )
        tensors = self.used(writer, starts.values(), outputs.values(), ends.values(), kept)
        walked = tuple(t.name for t in tensors if t.place == "step")
        name = f"{program.name}_{'forward' if train else 'infer'}"
        facts = {"chunk": self.chunk if train else None}
        return Kernel(name, "forward", self.layout, tensors, sections, walked, facts, packed=self.packed)

    def trajectory(self) -> Kernel:
        program, plan = self.program, self.plan
        checkpoints = {s.name: Tensor(f"{s.name}_checkpoint", "checkpoint", s.axes) for s in program.states}
        sources = self.carried()
        writer = self.writer(program.body, dict(sources))
        writer.lower(live(program.body, (*(s.next for s in program.states), *(s.value for s in plan.saved))))
        written = self.trajectories()
        step = [store(written[s.name], sources["state", s.name]) for s in program.states if s.name in written]
        step += [store(written[s.name], writer.ref(s.value)) for s in plan.saved]
        step += self.advance(writer, [(self.state[s.name], s.axes, writer.ref(s.next)) for s in program.states])
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": tuple(read(checkpoints[s.name], self.state[s.name], self.full(s.axes)) for s in program.states),
            "step": (*writer.sections["step"], *step),
        }
        tensors = self.used(writer, checkpoints.values(), written.values())
        walked = tuple(t.name for t in tensors if t.place in ("step", "segment"))
        name, facts = f"{program.name}_trajectory", {"chunk": self.chunk}
        return Kernel(name, "trajectory", self.layout, tensors, sections, walked, facts, "apart", self.packed)

    def trajectories(self) -> dict[str, Tensor]:
        """What the trajectory kernel writes: states before each step that the adjoint reads, kept values."""
        body, needed = self.plan.body, live(self.plan.body, self.plan.wanted())
        read = {body[p].attrs[1] for p in needed if body[p].op == "leaf" and body[p].attrs[0] == "state"}
        kept = {s.name: self.once(f"{s.name}_before", "segment", s.axes) for s in self.program.states if s.name in read}
        return kept | {s.name: self.once(s.name, "segment", s.axes) for s in self.plan.saved}

    def adjoint(self) -> tuple[Kernel, tuple[DeferredProduct, ...]]:
        program, plan = self.program, self.plan
        writer = self.adjoint_writer()
        writer.lower(live(plan.body, plan.wanted()))
        step, outs = self.input_gradients(writer)
        more, accumulators, partials = self.param_gradients(writer)
        deferred, stores = self.deferred(writer)
        starts = [self.each(f"d_{s.name}_end", "sequence", s.axes) for s in program.states]
        ends = [self.each(f"d_{s.name}_start", "sequence", s.axes) for s in program.states]
        cotangents = dict(plan.states)
        updates = [(f"d_{s.name}", s.axes, _or_zero(writer, cotangents[s.name])) for s in program.states]
        carried = [Ref(f"d_{s.name}", self.full(s.axes)) for s in program.states]
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": (
                *(read(t, f"d_{s.name}", self.full(s.axes)) for s, t in zip(program.states, starts, strict=True)),
                *(Statement(a.name, "zeros", (), (), a.labels) for a in accumulators),
            ),
            "step": (*writer.sections["step"], *step, *more, *stores, *self.advance(writer, updates)),
            "final": (
                *(store(t, ref) for t, ref in zip(ends, carried, strict=True)),
                *self.reduced(accumulators, partials),
            ),
        }
        loaded = [t for t in writer.loaded.values() if t.name not in self.inputs and t.name not in self.params]
        products = [t for p in deferred for t in (p.left, p.right)]
        tensors = self.used(writer, loaded, starts, outs, ends, partials, products)
        walked = tuple(t.name for t in tensors if t.place in ("step", "segment"))
        name, facts = f"{program.name}_adjoint", {"chunk": self.chunk}
        return Kernel(name, "adjoint", self.layout, tensors, sections, walked, facts, "left", self.packed), deferred

    def adjoint_writer(self) -> TileWriter:
        program = self.program
        # tile 0 wrote what tiles share, and every tile reads it
        written = {name: replace(tensor, first_tile=()) for name, tensor in self.trajectories().items()}
        sources: dict[tuple[str, str], Tensor | Ref] = {("saved", s.name): written[s.name] for s in self.plan.saved}
        for state in program.states:
            if state.name in written:
                sources["state", state.name] = written[state.name]
            sources["cotangent", f"{state.name}'"] = Ref(f"d_{state.name}", self.full(state.axes))
        for output in program.outputs:
            wide = output.name in self.wide
            sources["cotangent", output.name] = self.once(f"d_{output.name}", "step", output.axes, compute=wide)
        return self.writer(self.plan.body, sources)

    def input_gradients(self, writer: TileWriter) -> tuple[list[Statement], list[Tensor]]:
        axes = {i.name: i.axes for i in self.program.inputs}
        tensors, stores = [], []
        for name, value in self.plan.inputs:
            if value is not None:
                tensor = self.each(f"d_{name}", "step", axes[name], compute=name in self.wide)
                tensors.append(tensor)
                stores.append(store(tensor, writer.ref(value)))
        return stores, tensors

    def param_gradients(self, writer: TileWriter) -> tuple[list[Statement], list[Ref], list[Tensor]]:
        axes = {p.name: p.axes for p in self.program.params}
        statements: list[Statement] = []
        accumulators, tensors = [], []
        for name, value in self.plan.params:
            if value is None:
                continue
            ref = writer.ref(value)
            if self.layout.along == "steps":
                reduced, ref = _over_rows(f"total_{name}", ref)
                statements += reduced
            accumulator = Ref(f"sum_{name}", ref.labels)
            if self.ragged and ROWS in ref.labels:
                statements.append(Statement(writer.fresh(f"part_of_{name}"), "mask", (ref,), (ROWS,), ref.labels))
                ref = Ref(statements[-1].target, ref.labels)
            statements.append(Statement(accumulator.name, "accumulate", (ref,), (), ref.labels))
            accumulators.append(accumulator)
            tensors.append(self.each(f"d_{name}", "partial", axes[name]))
        return statements, accumulators, tensors

    def reduced(self, accumulators: Sequence[Ref], tensors: Sequence[Tensor]) -> list[Statement]:
        """Sums over the steps, reduced over the sequences of the program, to memory."""
        statements: list[Statement] = []
        for ref, tensor in zip(accumulators, tensors, strict=True):
            reduced, ref = _over_rows(f"total_{ref.name[4:]}", ref)
            statements += [*reduced, store(tensor, ref)]
        return statements

    def deferred(self, writer: TileWriter) -> tuple[tuple[DeferredProduct, ...], list[Statement]]:
        body = self.plan.body
        varies = depends_on(body, ("cotangent",))
        tensors: dict[int, Tensor] = {}
        products, stores = [], []
        for product in self.plan.products:
            for value in (product.left, product.right):
                if value not in tensors:
                    kind = self.each if varies[value] else self.once
                    tensors[value] = kind(f"factor_{len(tensors)}", "segment", body[value].axes)
                    stores.append(store(tensors[value], writer.ref(value)))
            products.append(
                DeferredProduct(product.param, tensors[product.left], tensors[product.right], product.labels)
            )
        return tuple(products), stores


def _over_rows(target: str, ref: Ref) -> tuple[list[Statement], Ref]:
    """The sum of a value over its rows, if it has any."""
    if ROWS not in ref.labels:
        return [], ref
    rest = tuple(label for label in ref.labels if label != ROWS)
    return [Statement(target, "sum", (ref,), (ROWS,), rest)], Ref(target, rest)


def _or_zero(writer: TileWriter, value: int | None) -> Ref:
    return Ref("", number=0.0) if value is None else writer.ref(value)


def coordinates(tensor: Tensor) -> tuple[Coordinate, ...]:
    """The whole tensor: every axis along its own side."""
    return tuple(Coordinate(label) for label in labels_of(tensor.axes))


def read(tensor: Tensor, target: str, labels: tuple[Label, ...]) -> Statement:
    """A variable of its own takes the whole tensor."""
    return Statement(target, "load", (), (tensor, coordinates(tensor)), labels)


def store(tensor: Tensor, ref: Ref) -> Statement:
    """The whole tensor takes a value."""
    return Statement("", "store", (ref,), (tensor, coordinates(tensor)))
