"""One step of a recurrence as the source of a plain PyTorch function, as one would write it by hand.

Products are ``matmul`` or element-wise with broadcasting. What reads no state is left to be computed for all
steps at once, unless that would write down a matrix for every step; so is what only outputs read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...compiler.ir.program import Body, Instr, Program, depends_on, live
from ..reference import ELEMENTWISE, evaluate
from .shape import Shape

_OWN = {"softplus": F.softplus, "sqrt": torch.sqrt, "clamp": torch.clamp}
"""Where the reference is more exact at the edges than torch's own function, and slower."""


@dataclass(frozen=True)
class Step:
    """Where each value of a program is computed, and the function for those inside the loop.

    All are positions in the body. ``before`` are the values that the loop or what follows it reads, computed for all
    steps at once; ``function(*states, *varying, *fixed)`` gives the new states, then ``kept``, where ``varying`` and
    ``fixed`` are the values of ``before`` that the loop reads, those that inputs change and others. Outputs are
    computed from ``before`` and the stacked ``kept``. ``source`` is the function's text.
    """

    before: tuple[int, ...]
    varying: tuple[int, ...]
    fixed: tuple[int, ...]
    kept: tuple[int, ...]
    source: str
    function: Callable[..., tuple[Tensor, ...]]


def step_of(program: Program, shape: Shape) -> Step:
    """The step of a program at one shape; tensors have leading dimensions batch and head."""
    body = program.body
    looped, late = _looped(program)
    outputs, nexts = [o.value for o in program.outputs], [s.next for s in program.states]
    wanted = {arg for p in looped | late for arg in body[p].args} | {*nexts, *outputs}
    before = sorted(wanted - looped - late)
    reads = [p for p in before if p in nexts or any(p in body[q].args for q in looped)]
    of_input, moving = depends_on(body, ("input",)), depends_on(body, ("input", "state"))
    varying, fixed = [p for p in reads if of_input[p]], [p for p in reads if not of_input[p]]
    kept = sorted(looped & ({arg for p in late for arg in body[p].args} | set(outputs)))
    leaves = {body[p].attrs[1]: f"v{p}" for p in looped if body[p].op == "leaf"}
    states = [leaves.get(s.name, f"unread_{s.name}") for s in program.states]
    printer = _Printer(body, shape, moving)
    lines = [printer.line(p) for p in sorted(looped) if body[p].op != "leaf"]
    results = [f"v{p}" if moving[p] else f"v{p}.expand{printer.full(body[p])}" for p in nexts]
    results += [f"v{p}" for p in kept]
    header = f"def step({', '.join([*states, *(f'v{p}' for p in (*varying, *fixed))])}):"
    source = "\n    ".join([header, *lines, f"return ({', '.join(results)},)\n"])
    scope: dict[str, Any] = {**ELEMENTWISE, **_OWN, **printer.scope, "torch": torch}
    exec(compile(source, f"<eager step of {program.name}>", "exec"), scope)
    return Step(tuple(before), tuple(varying), tuple(fixed), tuple(kept), source, scope["step"])


def _looped(program: Program) -> tuple[frozenset[int], frozenset[int]]:
    """The values computed step by step, and those that outputs need and that can wait until after the loop."""
    body = program.body
    of_state, of_input = depends_on(body, ("state",)), depends_on(body, ("input",))
    stepped = live(body, [s.next for s in program.states])
    inside: set[int] = set()
    late: set[int] = set()
    for p in sorted(live(body, program.roots())):
        instr = body[p]
        outer = of_input[p] and instr.op == "contract" and set(instr.attrs[2]) == {*instr.attrs[0], *instr.attrs[1]}
        if not (of_state[p] or outer or any(arg in inside for arg in instr.args)):
            continue
        waits = all(arg not in inside or arg in late or len(body[arg].axes) <= 1 for arg in instr.args)
        if waits and p not in stepped and instr.op != "leaf":
            late.add(p)
        else:
            inside.add(p)
    early = late & live(body, inside)
    return frozenset(inside | early), frozenset(late - early)


class _Printer:
    """Writes instructions as Python; ``scope`` collects what the text calls besides torch."""

    def __init__(self, body: Body, shape: Shape, varies: Sequence[bool]) -> None:
        self.body, self.shape, self.varies = body, shape, varies
        self.scope: dict[str, Callable[..., Tensor]] = {}

    def line(self, position: int) -> str:
        instr = self.body[position]
        return f"v{position} = {self._value(instr, [f'v{arg}' for arg in instr.args])}"

    def _value(self, instr: Instr, args: Sequence[str]) -> str:
        if instr.op in ELEMENTWISE:
            return f"{instr.op}({', '.join(args)})"
        if instr.op == "contract":
            return self._contract(instr, args)
        axes = self.body[instr.args[0]].axes
        match instr.op, instr.attrs:
            case "sum" | "amax", (position,):
                return f"{args[0]}.{instr.op}({position - len(axes)})"
            case "index", (position, i):
                return f"{args[0]}.select({position - len(axes)}, {i})"
            case "slice", (position, start, stop):
                first = start.bind(self.shape.sizes)
                return f"{args[0]}.narrow({position - len(axes)}, {first}, {stop.bind(self.shape.sizes) - first})"
            case "broadcast", (source,):
                moved = _permuted(args[0], [s for s in source if s >= 0])
                spread = _indexed(moved, [s < 0 for s in source])
                return f"{spread}.expand{self.full(instr)}"
            case "concat", (position,):
                parts = [f"{arg}.expand{self.full(self.body[a])}" for a, arg in zip(instr.args, args, strict=True)]
                return f"torch.cat([{', '.join(parts)}], {position - len(instr.axes)})"
        return self._evaluated(instr, args)

    def _evaluated(self, instr: Instr, args: Sequence[str]) -> str:
        """A call that leaves a rare operation to the reference."""
        leaves = [Instr("leaf", (), ("input", arg), self.body[a].axes) for a, arg in zip(instr.args, args, strict=True)]
        alone = (*leaves, Instr(instr.op, tuple(range(len(leaves))), instr.attrs, instr.axes))
        lead = (self.shape.batch, self.shape.heads)

        def call(*values: Tensor) -> Tensor:
            known = dict(enumerate(values))
            return evaluate(alone, [len(leaves)], {}, self.shape.sizes, 2, known=known, full=lead)[len(leaves)]

        name = f"{instr.op}_{len(self.scope)}"
        self.scope[name] = call
        return f"{name}({', '.join(args)})"

    def full(self, instr: Instr) -> tuple[int, ...]:
        """The shape of a value of one step."""
        return self.shape.batch, self.shape.heads, *(axis.size.bind(self.shape.sizes) for axis in instr.axes)

    # ---------------------------------------------------------------- products

    def _contract(self, instr: Instr, args: Sequence[str]) -> str:
        (x, y), (left, right, out) = args, instr.attrs
        if not self.varies[instr.args[0]] and self.varies[instr.args[1]]:
            (x, y), (left, right) = (y, x), (right, left)  # a param stands on the right
        shared = [label for label in out if label in left and label in right]
        rows = [label for label in out if label in left and label not in right]
        columns = [label for label in out if label in right and label not in left]
        summed = [label for label in left if label not in out]
        if not summed:
            first, second = (_aligned(arg, labels, out) for arg, labels in ((x, left), (y, right)))
            return f"{first} * {second}"
        if not rows and not columns:
            first, second = (_permuted(a, _order(ls, [*shared, *summed])) for a, ls in ((x, left), (y, right)))
            return _permuted(f"({first} * {second}).sum({tuple(range(-len(summed), 0))})", _order(shared, out))
        size = self._sizes(instr)
        first = _permuted(x, _order(left, [*shared, *rows, *summed]))
        second = _grouped(_permuted(y, _order(right, [*shared, *summed, *columns])), len(summed), len(columns))
        whole = self.varies[instr.args[0]] and self.varies[instr.args[1]]
        row_sizes, column_sizes = [size[label] for label in rows], [size[label] for label in columns]
        if whole or shared or self.shape.batch == 1:
            first = _grouped(first, len(rows), len(summed))
            product = _ungrouped(f"({first} @ {second})", row_sizes, column_sizes)
        else:
            product = self._folded(first, second, row_sizes, len(summed), column_sizes)
        return _permuted(product, _order([*shared, *rows, *columns], out))

    def _folded(self, first: str, second: str, rows: Sequence[int], summed: int, columns: Sequence[int]) -> str:
        """A product with a matrix that all sequences share: they become rows, so that it is not copied for each."""
        if summed > 1:
            first = f"{first}.flatten(-{summed})"
        first = f"{first}.transpose(0, 1)"
        if rows:
            first = f"{first}.flatten(1, {1 + len(rows)})"
        product = f"({first} @ {second}[0])"
        if rows or len(columns) != 1:
            product = f"{product}.reshape{(self.shape.heads, self.shape.batch, *rows, *columns)}"
        return f"{product}.transpose(0, 1)"

    def _sizes(self, instr: Instr) -> Mapping[int, int]:
        labels = (*instr.attrs[0], *instr.attrs[1])
        axes = (axis for arg in instr.args for axis in self.body[arg].axes)
        return {label: axis.size.bind(self.shape.sizes) for label, axis in zip(labels, axes, strict=True)}


def _order(labels: Sequence[int], wanted: Iterable[int]) -> list[int]:
    return [list(labels).index(label) for label in wanted]


def _permuted(text: str, order: Sequence[int]) -> str:
    """The last axes in another order."""
    if list(order) == sorted(order):
        return text
    if len(order) == 2:
        return f"{text}.mT"
    return f"{text}.permute{(0, 1, *(2 + position for position in order))}"


def _indexed(text: str, new: Sequence[bool]) -> str:
    """New axes of size one among the last ones."""
    if not any(new):
        return text
    return f"{text}[..., {', '.join('None' if one else ':' for one in new)}]"


def _aligned(text: str, labels: Sequence[int], out: Sequence[int]) -> str:
    moved = _permuted(text, _order(labels, [label for label in out if label in labels]))
    return _indexed(moved, [label not in labels for label in out])


def _grouped(text: str, first: int, second: int) -> str:
    """The last ``first + second`` axes as two: each group is flattened, or an axis of size one if it is empty."""
    if second > 1:
        text = f"{text}.flatten(-{second})"
    if second == 0:
        text = f"{text}.unsqueeze(-1)"
    if first > 1:
        text = f"{text}.flatten(-{first + 1}, -2)"
    if first == 0:
        text = f"{text}.unsqueeze(-2)"
    return text


def _ungrouped(text: str, rows: Sequence[int], columns: Sequence[int]) -> str:
    """The opposite of :func:`_grouped`, for a product of two groups."""
    if len(rows) > 1:
        text = f"{text}.unflatten(-2, {tuple(rows)})"
    if len(columns) > 1:
        text = f"{text}.unflatten(-1, {tuple(columns)})"
    if not rows:
        text = f"{text}.squeeze({-2 if len(columns) <= 1 else -1 - len(columns)})"
    if not columns:
        text = f"{text}.squeeze(-1)"
    return text
