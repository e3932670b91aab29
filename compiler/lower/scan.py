"""The kernels of the scan strategy (algorithms.md section 7): blocks of steps, an associative scan inside of each.

Tiles have the side ROWS, which runs over the steps of a block. ``forward`` computes coefficients of all steps of
a block at once, scans them, and carries the state at the block's last step into the next block; where
gradients are wanted it writes the state at the start of every block. ``adjoint`` walks the blocks from the
last to the first: it scans the states again, then the cotangents from the right, and evaluates the adjoint
step with both. Everything that is not a scan is written as for any other strategy.

No row depends on a later one before the last of them is carried on, so rows behind the end may hold anything; a
scan from the right leaves them out by coefficients that change nothing. It runs over flipped tiles: where
threads hold whole columns, flipping only renames registers, while a reversed scan would exchange them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..analysis.elementwise import Group, adjoint_groups, step_groups
from ..analysis.linear import Reason
from ..autodiff.plan import Plan
from ..ir.builder import Builder
from ..ir.program import Body, Program, State, live
from .kernel_ir import Kernel, Ref, Statement, Tensor
from .layout import ROWS, Label, Layout, labels_of
from .recurrent import DeferredProduct, Maker, read, store
from .tiles import TileWriter

STAGES = 2
"""Blocks whose loads are under way at once: the next one is fetched while this one is computed."""

Direction = Literal["right", "left"]
"""``right`` for states, ``left`` for their cotangents."""


@dataclass(frozen=True)
class Scan:
    """The kernels of one recurrence at one layout. ``infer`` is forward without checkpoints."""

    layout: Layout
    infer: Kernel
    forward: Kernel
    adjoint: Kernel
    products: tuple[DeferredProduct, ...]

    @property
    def chunk(self) -> int:
        """Steps between checkpoints: those of a block."""
        return self.layout.rows

    @property
    def backward(self) -> tuple[Kernel, ...]:
        """The kernels of the backward pass over one segment, in order."""
        return (self.adjoint,)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, in order of use."""
        return (self.infer, self.forward, self.adjoint)


def lower_scan(
    program: Program,
    plan: Plan,
    layout: Layout,
    *,
    precision: str,
    strided: bool,
    wide: Container[str] = (),
    packed: bool = False,
) -> Scan:
    """All kernels of a recurrence that ``analysis.elementwise`` recognises; ``plan`` keeps no values."""
    maker = ScanMaker(program, plan, layout, precision, strided, wide, packed)
    adjoint, products = maker.adjoint()
    return Scan(layout, maker.forward(train=False), maker.forward(train=True), adjoint, products)


class ScanMaker(Maker):
    """Makes the kernels of one recurrence whose tiles run over steps."""

    def __init__(
        self,
        program: Program,
        plan: Plan,
        layout: Layout,
        precision: str,
        strided: bool,
        wide: Container[str] = (),
        packed: bool = False,
    ) -> None:
        super().__init__(program, plan, layout, precision, layout.rows, strided, wide, packed)
        refs = (*self.states().values(), *(self.after(s, "left") for s in program.states))
        self.reserved |= {ref.name for ref in refs} | {self.before(s, "left").name for s in program.states}

    def tile(self, axes: Iterable[Label]) -> tuple[Label, ...]:
        """All sides of a value that every step of a block has."""
        return self.layout.sort((ROWS, *axes))

    def forward(self, *, train: bool) -> Kernel:
        program = self.program
        starts = {s.name: Tensor(f"{s.name}_start", "sequence", s.axes) for s in program.states}
        ends = {s.name: self.once(f"{s.name}_end", "sequence", s.axes) for s in program.states}
        checkpoints = {s.name: self.once(f"{s.name}_checkpoint", "checkpoint", s.axes) for s in program.states}
        outputs = {o.name: self.once(o.name, "step", o.axes, compute=o.name in self.wide) for o in program.outputs}
        builder = Builder(program.body)
        groups = known(step_groups(builder, program))
        body = self.cut(tuple(builder.body), groups)
        wanted = live(body, (o.value for o in program.outputs))
        writer = self.writer(body, dict(self.states()))
        for group in groups:
            self.scan(writer, group, "right", _leaves(body, wanted))
        writer.lower(wanted)
        step = [*writer.sections["step"], *(store(outputs[o.name], writer.ref(o.value)) for o in program.outputs)]
        step += [self.picked(self.carry(s), self.after(s), "last") for s in program.states]
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": tuple(read(starts[s.name], self.carry(s).name, self.full(s.axes)) for s in program.states),
            "step": tuple(step),
            "final": tuple(store(ends[s.name], self.carry(s)) for s in program.states),
        }
        if train:
            sections["checkpoint"] = tuple(store(checkpoints[s.name], self.carry(s)) for s in program.states)
        kept = checkpoints.values() if train else ()
        tensors = self.used(writer, starts.values(), outputs.values(), ends.values(), kept)
        walked = tuple(t.name for t in tensors if t.place in ("step", "checkpoint"))
        name, facts = f"{program.name}_{'forward' if train else 'infer'}", self.facts()
        return Kernel(name, "scan_forward", self.layout, tensors, sections, walked, facts, packed=self.packed)

    def adjoint(self) -> tuple[Kernel, tuple[DeferredProduct, ...]]:
        program, plan = self.program, self.plan
        builder = Builder(plan.body)
        forward = known(step_groups(builder, program))
        backward = known(adjoint_groups(builder, program, dict(plan.states)))
        body = self.cut(tuple(builder.body), forward)
        found = [value for _, value in (*plan.inputs, *plan.params) if value is not None]
        found += [value for p in plan.products for value in (p.left, p.right)]
        wanted = live(body, found)
        reads = _leaves(body, wanted | live(body, (value for group in backward for value in group.values())))
        writer = self.writer(body, self.adjoint_sources())
        rebuilt: list[State] = []
        for group in forward:
            if any((kind, name) in reads for kind in ("state", "after") for name in group.states):
                self.scan(writer, group, "right", reads)
                rebuilt += self.members(group)
        for group in backward:
            self.scan(writer, group, "left", reads)
        writer.lower(wanted)
        gradients, inputs = self.input_gradients(writer)
        sums, accumulators, partials = self.param_gradients(writer)
        deferred, factors = self.deferred(writer)
        checkpoints = {s.name: Tensor(f"{s.name}_checkpoint", "checkpoint", s.axes) for s in rebuilt}
        starts = [self.each(f"d_{s.name}_end", "sequence", s.axes) for s in program.states]
        ends = [self.each(f"d_{s.name}_start", "sequence", s.axes) for s in program.states]
        carried = [self.carry(s, "left") for s in program.states]
        entering = [read(checkpoints[s.name], self.carry(s).name, self.full(s.axes)) for s in rebuilt]
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "initial": (
                *(read(t, ref.name, ref.labels) for t, ref in zip(starts, carried, strict=True)),
                *(Statement(a.name, "zeros", (), (), a.labels) for a in accumulators),
            ),
            "step": (
                *entering,
                *writer.sections["step"],
                *gradients,
                *sums,
                *factors,
                *(self.picked(self.carry(s, "left"), self.after(s, "left"), "end") for s in program.states),
            ),
            "final": (
                *(store(t, ref) for t, ref in zip(ends, carried, strict=True)),
                *self.reduced(accumulators, partials),
            ),
        }
        loaded = [t for t in writer.loaded.values() if t.name not in self.inputs and t.name not in self.params]
        products = [t for p in deferred for t in (p.left, p.right)]
        tensors = self.used(writer, loaded, checkpoints.values(), starts, inputs, ends, partials, products)
        walked = tuple(t.name for t in tensors if t.place in ("step", "segment", "checkpoint"))
        name, facts = f"{program.name}_adjoint", self.facts()
        kernel = Kernel(name, "scan_adjoint", self.layout, tensors, sections, walked, facts, "left", self.packed)
        return kernel, deferred

    def facts(self) -> dict[str, int]:
        """What the templates need to know."""
        return {"chunk": self.layout.rows, "stages": STAGES}

    # ------------------------------------------------------------ variables

    def carry(self, state: State, direction: Direction = "right") -> Ref:
        """The state at the start of a block, or the cotangent of the state at its end."""
        name = self.state[state.name] if direction == "right" else f"d_{state.name}"
        return Ref(name, self.full(state.axes))

    def before(self, state: State, direction: Direction = "right") -> Ref:
        """What enters each step: the old state, or the cotangent of the new one."""
        return Ref(self._variable(state, "before", direction), self.tile(labels_of(state.axes)))

    def after(self, state: State, direction: Direction = "right") -> Ref:
        """What leaves each step: the new state, or the cotangent of the old one, rows in the order of the scan."""
        return Ref(self._variable(state, "after", direction), self.tile(labels_of(state.axes)))

    def _variable(self, state: State, which: str, direction: Direction) -> str:
        return f"{state.name}_{which}" if direction == "right" else f"d_{state.name}_{which}"

    def states(self) -> dict[tuple[str, str], Ref]:
        """The variables that hold old and new states of a block."""
        old = {("state", s.name): self.before(s) for s in self.program.states}
        return old | {("after", s.name): self.after(s) for s in self.program.states}

    def adjoint_sources(self) -> dict[tuple[str, str], Tensor | Ref]:
        program = self.program
        sources: dict[tuple[str, str], Tensor | Ref] = dict(self.states())
        for state in program.states:
            sources["cotangent", f"{state.name}'"] = self.before(state, "left")
        for output in program.outputs:
            wide = output.name in self.wide
            sources["cotangent", output.name] = self.once(f"d_{output.name}", "step", output.axes, compute=wide)
        return sources

    def cut(self, body: Body, groups: Iterable[Group]) -> Body:
        """The body in which new states are leaves that come from the scan, except those that read no old ones."""
        replaced = {name for group in groups if group.kind == "replaced" for name in group.states}
        after = {s.next: s.name for s in self.program.states if s.name not in replaced}
        return tuple(
            replace(instr, op="leaf", args=(), attrs=("after", after[position])) if position in after else instr
            for position, instr in enumerate(body)
        )

    # ------------------------------------------------------------ scans

    def members(self, group: Group) -> list[State]:
        """The states of a group, in its order."""
        by_name = {s.name: s for s in self.program.states}
        return [by_name[name] for name in group.states]

    def scan(self, writer: TileWriter, group: Group, direction: Direction, reads: Container[tuple[str, str]]) -> None:
        """Write what leaves every step of a block and, where it is among the leaves that are read, what enters it."""
        writer.lower(live(writer.body, group.values()))
        states = self.members(group)
        span = self.program.body[states[0].next].span
        labels = self.tile(labels_of(states[0].axes))
        statements = writer.sections["step"]

        def write(target: str, op: str, args: tuple[Ref, ...], attrs: tuple[Any, ...] = ()) -> Ref:
            statements.append(Statement(target, op, args, attrs, labels, span))
            return Ref(target, labels)

        def tile(value: int | None, number: float) -> Ref:
            ref = Ref("", number=number) if value is None else writer.ref(value)
            return ref if ref.labels == labels else write(writer.fresh("factor"), "assign", (ref,))

        def flipped(ref: Ref) -> Ref:
            return write(writer.fresh(f"{ref.name}_flipped"), "flip", (ref,), (ROWS,)) if left else ref

        def operand(value: int | None, absent: float, neutral: float) -> Ref:
            """A coefficient of every step; a scan from the right begins with rows behind the end."""
            ref = tile(value, absent)
            if left:
                ref = write(writer.fresh(f"{ref.name}_inside"), "fill", (ref,), (ROWS, neutral))
            return flipped(ref)

        def join(scanned: Sequence[Ref]) -> list[Ref]:
            carried = [self.carry(s, direction) for s in states]
            return _joined(group.kind, scanned, carried, lambda op, *args: write(writer.fresh(op), op, args))

        left = direction == "left"
        entering = any(self._entering_leaf(s, direction) in reads for s in states)
        found = _operands(group)
        if group.kind == "replaced":
            results = [flipped(tile(group.constants[0], 0.0))]
        if group.kind != "replaced" or entering:
            operands = [operand(*entry) for entry in found]
            operands += [tile(None, neutral) for _, _, neutral in found] if entering else []
            scanned = [Ref(writer.fresh(f"scan_{states[0].name}"), labels) for _ in operands]
            targets = tuple(ref.name for ref in scanned)
            write(scanned[0].name, f"scan_{group.kind}", tuple(operands), (targets, entering))
            if group.kind != "replaced":
                results = join(scanned[: len(found)])
            for state, result in zip(states, join(scanned[len(found) :]) if entering else (), strict=False):
                write(self.before(state, direction).name, "assign", (flipped(result),))
        for state, result in zip(states, results, strict=True):
            write(self.after(state, direction).name, "assign", (result,))

    @staticmethod
    def _entering_leaf(state: State, direction: Direction) -> tuple[str, str]:
        return ("state", state.name) if direction == "right" else ("cotangent", f"{state.name}'")

    def picked(self, target: Ref, source: Ref, row: str) -> Statement:
        """One row of a tile becomes the carried variable."""
        return Statement(target.name, "row", (source,), (row,), target.labels)


def _leaves(body: Body, values: Iterable[int]) -> frozenset[tuple[str, str]]:
    """The leaves among some values."""
    return frozenset(body[p].attrs for p in values if body[p].op == "leaf")


def _operands(group: Group) -> list[tuple[int | None, float, float]]:
    """What a group's scan takes: a value, the number that stands for none, and the number that changes nothing.

    Where states are replaced, the first says whether they are; a product with 0 would not forget infinities.
    """
    (first, *others), constants = group.slopes, group.constants
    match group.kind:
        case "sum":
            return [(constants[0], 0.0, 0.0)]
        case "replaced":
            return [(None, 1.0, 0.0), (constants[0], 0.0, 0.0)]
        case "affine":
            return [(first[0], 0.0, 1.0), (constants[0], 0.0, 0.0)]
        case "max" | "min":
            none = -math.inf if group.kind == "max" else math.inf
            return [(first[0], 0.0, 0.0), (constants[0], none, none)]
        case "complex":
            slopes = [(first[0], 0.0, 1.0), (others[0][0], 0.0, 0.0)]
        case _:
            slopes = [(first[0], 0.0, 1.0), (first[1], 0.0, 0.0), (others[0][0], 0.0, 0.0), (others[0][1], 0.0, 1.0)]
    return [*slopes, *((constant, 0.0, 0.0) for constant in constants)]


def _joined(kind: str, scanned: Sequence[Ref], carried: Sequence[Ref], write: Callable[..., Ref]) -> list[Ref]:
    """What leaves every step: the composition of all steps so far applied to what is carried into the block."""
    first = carried[0]
    match kind:
        case "sum":
            return [write("add", first, scanned[0])]
        case "replaced":
            return [write("where", write("eq", scanned[0], Ref("", number=0.0)), first, scanned[1])]
        case "affine":
            return [write("add", write("mul", scanned[0], first), scanned[1])]
        case "max" | "min":
            return [write(kind, write("add", scanned[0], first), scanned[1])]
    second = carried[1]
    if kind == "complex":
        real, imaginary, *constants = scanned
        rows = [("sub", real, imaginary), ("add", imaginary, real)]
    else:
        a, b, c, d, *constants = scanned
        rows = [("add", a, b), ("add", c, d)]
    results = []
    for (op, left, right), constant in zip(rows, constants, strict=True):
        products = (write("mul", left, first), write("mul", right, second))
        results.append(write("add", write(op, *products), constant))
    return results


def known(groups: tuple[Group, ...] | Reason) -> tuple[Group, ...]:
    """Groups of a recurrence that the strategy has accepted."""
    assert not isinstance(groups, Reason), groups
    return groups
