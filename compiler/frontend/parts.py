"""Entries, runs and the transpose of a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...dsl import ast
from ..ir.size import Size
from ..ir.types import show_axes
from . import clashes, matrices
from .report import Mistake, Silent
from .shapes import axis_of
from .values import Poison, Value

if TYPE_CHECKING:
    from .expressions import Expressions


def entry(e: Expressions, expr: ast.Index, value: Value) -> Value:
    """``x[j]``."""
    tensor = _with_axes(e, expr.value, value)
    at = e.size(expr.index, "an index")
    axis = e.b.axes(tensor)[0]
    if at.known is not None and at.known < 0:
        at = axis.size + at
    rest = axis.size - at
    if (rest.known is not None and rest.known <= 0) or (at.known is not None and at.known < 0):
        raise clashes.outside(e, expr.index.span, axis, expr.value)
    e.b.span = expr.span
    if at.known is None:
        tensor = _cut(e, tensor, at, at + Size(1))
        at = Size(0)
    assert at.known is not None
    return e.b.emit("index", (tensor,), (0, at.known), e.b.axes(tensor)[1:])


def run(e: Expressions, expr: ast.Slice, value: Value) -> Value:
    """``x[a:b]``."""
    tensor = _with_axes(e, expr.value, value)
    axis = e.b.axes(tensor)[0]
    bounds = [Size(0), axis.size]
    for place, written in enumerate((expr.start, expr.stop)):
        if written is not None:
            bound = e.size(written, "the bound of a slice")
            bounds[place] = axis.size + bound if bound.known is not None and bound.known < 0 else bound
    start, stop = bounds
    for written, gap in ((expr.start, start), (expr.stop, axis.size - stop)):
        if written is not None and gap.known is not None and gap.known < 0:
            raise clashes.outside(e, written.span, axis, expr.value)
    length = (stop - start).known
    if length is not None and length < 1:
        raise Mistake("E0214", "this slice is empty", expr.span, "", "the first bound is in it, the second is not")
    e.b.span = expr.span
    return _cut(e, tensor, start, stop)


def _cut(e: Expressions, tensor: int, start: Size, stop: Size) -> int:
    axes = e.b.axes(tensor)
    if stop - start == axes[0].size:
        return tensor
    return e.b.emit("slice", (tensor,), (0, start, stop), (axis_of(stop - start), *axes[1:]))


def _with_axes(e: Expressions, expr: ast.Expr, value: Value) -> int:
    tensor = e.tensor(value, expr)
    if not e.b.axes(tensor):
        raise Mistake("E0211", "a scalar has no entries to choose from", expr.span, "scalar")
    return tensor


def transpose(e: Expressions, expr: ast.Transpose, value: Value) -> Value:
    """``x.T``."""
    if isinstance(value, Poison):
        raise Silent
    if not isinstance(value, int):
        e.b.span = expr.span
        return matrices.transposed(e.b, value)
    tensor = e.tensor(value, expr.value)
    axes = e.b.axes(tensor)
    if len(axes) != 2:
        helps = ("`@` takes a vector on either side without it",) if len(axes) == 1 else ()
        raise Mistake("E0211", "`.T` swaps the axes of a matrix", expr.value.span, show_axes(axes), *helps)
    e.b.span = expr.span
    return e.b.broadcast(tensor, axes[::-1], (1, 0))
