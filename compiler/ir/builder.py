"""Writes bodies: checks every instruction as it is emitted and stores equal ones once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...dsl.source import Span
from .program import Body, Instr
from .size import Size
from .types import Axes, Axis
from .verify import check_instr


class Builder:
    """Appends instructions to a body.

    ``apply`` and the arithmetic methods spread scalar operands over the other operand's axes;
    everything else is spread by an explicit ``broadcast``. Additions of 0 and products with 1 are
    not emitted; nothing else is simplified, so code stays in the author's order.
    """

    def __init__(self, body: Body = ()) -> None:
        self.body: list[Instr] = list(body)
        self._known: dict[Instr, int] = {instr: i for i, instr in enumerate(body)}
        self.span: Span | None = None

    def emit(self, op: str, args: tuple[int, ...] = (), attrs: tuple[Any, ...] = (), axes: Axes = ()) -> int:
        """The value of ``op(args)``; the result's axes are given by the caller and checked."""
        instr = Instr(op, args, attrs, axes, self.span)
        found = self._known.get(instr)
        if found is not None:
            return found
        check_instr(self.body, instr)
        self.body.append(instr)
        self._known[instr] = len(self.body) - 1
        return len(self.body) - 1

    def axes(self, value: int) -> Axes:
        return self.body[value].axes

    def label(self, value: int, name: str) -> None:
        """Give a value the user's name (the first name wins)."""
        if self.body[value].name is None:
            self.body[value] = replace(self.body[value], name=name)

    # leaves

    def leaf(self, kind: str, name: str, axes: Axes = ()) -> int:
        return self.emit("leaf", (), (kind, name), axes)

    def const(self, value: float) -> int:
        return self.emit("const", (), (float(value),))

    def size(self, size: Size) -> int:
        """A size as a number."""
        total = self.const(size.constant)
        for name, factor in size.terms:
            total = self.add(total, self.mul(self.const(factor), self.emit("size", (), (name,))))
        return total

    # element-wise

    def apply(self, op: str, *args: int, attrs: tuple[Any, ...] = ()) -> int:
        """An element-wise operation, scalars spread over the axes of the others."""
        axes = max((self.axes(arg) for arg in args), key=len)
        return self.emit(op, tuple(self.spread(arg, axes) for arg in args), attrs, axes)

    def spread(self, value: int, axes: Axes) -> int:
        """A scalar broadcast to ``axes``; other values as they are."""
        if self.axes(value) or not axes:
            return value
        return self.emit("broadcast", (value,), ((-1,) * len(axes),), axes)

    def is_const(self, value: int, number: float) -> bool:
        instr = self.body[value]
        if instr.op == "broadcast":
            return self.is_const(instr.args[0], number)
        return instr.op == "const" and instr.attrs[0] == number

    def add(self, x: int, y: int) -> int:
        if self.is_const(y, 0.0) and len(self.axes(y)) <= len(self.axes(x)):
            return x
        if self.is_const(x, 0.0) and len(self.axes(x)) <= len(self.axes(y)):
            return y
        return self.apply("add", x, y)

    def sub(self, x: int, y: int) -> int:
        if self.is_const(y, 0.0) and len(self.axes(y)) <= len(self.axes(x)):
            return x
        return self.apply("sub", x, y)

    def mul(self, x: int, y: int) -> int:
        if self.is_const(y, 1.0) and len(self.axes(y)) <= len(self.axes(x)):
            return x
        if self.is_const(x, 1.0) and len(self.axes(x)) <= len(self.axes(y)):
            return y
        return self.apply("mul", x, y)

    def div(self, x: int, y: int) -> int:
        if self.is_const(y, 1.0) and len(self.axes(y)) <= len(self.axes(x)):
            return x
        return self.apply("div", x, y)

    # axes

    def broadcast(self, value: int, axes: Axes, source: tuple[int, ...]) -> int:
        """Move the operand's axes to where ``source`` says; -1 is a new axis."""
        if source == tuple(range(len(axes))) and axes == self.axes(value):
            return value
        return self.emit("broadcast", (value,), (source,), axes)

    def sum(self, value: int, position: int) -> int:
        return self.emit("sum", (value,), (position,), without(self.axes(value), position))

    def amax(self, value: int, position: int) -> int:
        return self.emit("amax", (value,), (position,), without(self.axes(value), position))

    def contract(self, x: int, y: int, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> int:
        """Einsum of two operands; the axes of the result are taken from the operands."""
        found: dict[int, Axis] = {}
        for labels, value in ((right, y), (left, x)):
            found.update(zip(labels, self.axes(value), strict=True))
        return self.emit("contract", (x, y), (left, right, out), tuple(found[label] for label in out))


def without(axes: Axes, position: int) -> Axes:
    """The axes less the one at a position."""
    return axes[:position] + axes[position + 1 :]
