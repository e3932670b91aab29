"""Functions over one axis: which axis is meant, and what they become in primitive operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...dsl import ast
from ...dsl.diagnostics import Label
from ..ir.builder import Builder
from ..ir.types import Axes, Axis, show_axes
from .folding import size_of
from .report import Mistake, Silent, listed
from .values import Poison, Value

if TYPE_CHECKING:
    from .expressions import Expressions

L2_EPS = 1e-6
"""Under the root of `l2norm` and of `rmsnorm`."""

LAYERNORM_EPS = 1e-5
"""Under the root of `layernorm`, as in PyTorch."""

Reduce = Callable[[Builder, int, int], int]


def over(reduce: Reduce, last: bool = False) -> Callable[..., Value]:
    """A function that acts along the axis named by its second argument.

    Without one it is the only axis of the operand, or, for ``last``, its last.
    """

    def build(e: Expressions, call: ast.Call, x: int, axis: ast.Expr | None = None) -> Value:
        position = _position(e, call, x, axis, last)
        e.b.span = call.span
        return reduce(e.b, x, position)

    return build


def extremum(op: str) -> Callable[..., Value]:
    """``max(x, K)`` over an axis, ``max(x, y)`` element by element."""

    def build(e: Expressions, call: ast.Call, x: int, other: ast.Expr | None = None) -> Value:
        if other is None or _names_axis(e, x, other):
            position = _position(e, call, x, other, False)
            e.b.span = call.span
            return _extremum(e.b, op, x, position)
        y = e.entries(other)
        if isinstance(y, Poison):
            raise Silent
        return e.elementwise(op, op, call.span, list(call.args), [x, y])

    return build


def _extremum(b: Builder, op: str, x: int, position: int) -> int:
    if op == "max":
        return b.amax(x, position)
    return b.apply("neg", b.amax(b.apply("neg", x), position))


def _names_axis(e: Expressions, x: int, expr: ast.Expr) -> bool:
    """Whether an expression is the name of an axis (a dimension, where the operand has axes at all)."""
    if not isinstance(expr, ast.Name) or expr.primed or not e.b.axes(x):
        return False
    if expr.id in e.locals:
        value = e.locals[expr.id]
        return isinstance(value, int) and e.b.body[value].op == "size"
    symbol = e.names.symbols.get(expr.id)
    if symbol is None or symbol.order > e.before:
        return False
    return symbol.kind == "dimension" or any(axis.name == expr.id for axis in e.b.axes(x))


def _position(e: Expressions, call: ast.Call, x: int, axis: ast.Expr | None, last: bool) -> int:
    """Where the axis is that a call means (Mistake if the operand does not have it, or several could be meant)."""
    axes, operand = e.b.axes(x), call.args[0]
    if not axes:
        message = f"`{call.function}` acts along an axis, and a scalar has none"
        raise Mistake("E0212", message, operand.span, "scalar")
    if axis is None:
        if len(axes) == 1 or last:
            return len(axes) - 1
        text = e.text(operand.span)
        helps = listed([f"`{call.function}({text}, {a})`" for a in axes], "or")
        raise Mistake("E0212", f"`{call.function}` needs to know along which axis", call.span, show_axes(axes),
                      f"write {helps}")  # fmt: skip
    places = _places(e, axes, axis)
    if len(places) == 1:
        return places[0]
    written = e.text(axis.span)
    if places:
        raise Mistake("E0208", f"`{call.function}` cannot tell which of two axes `{written}` is meant", axis.span, "",
                      "give one of the two axes another name: `dims K, U = K`",
                      labels=[Label(operand.span, show_axes(axes))])  # fmt: skip
    helps = listed([f"`{a}`" for a in axes], "or")
    raise Mistake("E0212", f"there is no axis `{written}` here", axis.span, "", f"name {helps}",
                  labels=[Label(operand.span, show_axes(axes))])  # fmt: skip


def _places(e: Expressions, axes: Axes, expr: ast.Expr) -> list[int]:
    """The axes that an expression names, or, for a slice's axis without a name, whose size it is."""
    if isinstance(expr, ast.Name) and not expr.primed and expr.id not in e.locals:
        named = [p for p, axis in enumerate(axes) if axis.name == expr.id]
        symbol = e.names.find(expr.id, expr.span, e.before)
        if named or symbol.size is None:
            return named
    value = e.value(expr)
    if isinstance(value, Poison):
        raise Silent
    size = size_of(e.b, value) if isinstance(value, int) else None
    named = [p for p, axis in enumerate(axes) if axis.name == str(size)]
    return named or [p for p, axis in enumerate(axes) if axis.size == size]


# ---------------------------------------------------------------- expansions


def _spread(b: Builder, value: int, axes: Axes, position: int) -> int:
    """A value without the axis at a position, repeated along it."""
    source = tuple(i if i < position else -1 if i == position else i - 1 for i in range(len(axes)))
    return b.broadcast(value, axes, source)


def total(b: Builder, x: int, position: int) -> int:
    """The sum."""
    return b.sum(x, position)


def mean(b: Builder, x: int, position: int) -> int:
    """The sum over the size."""
    axis: Axis = b.axes(x)[position]
    return b.div(b.sum(x, position), b.size(axis.size))


def softmax(b: Builder, x: int, position: int) -> int:
    """exp(x - max) over its sum."""
    axes = b.axes(x)
    raised = b.apply("exp", b.sub(x, _spread(b, b.amax(x, position), axes, position)))
    return b.div(raised, _spread(b, b.sum(raised, position), axes, position))


def logsumexp(b: Builder, x: int, position: int) -> int:
    """max + log(sum(exp(x - max)))."""
    top = b.amax(x, position)
    raised = b.apply("exp", b.sub(x, _spread(b, top, b.axes(x), position)))
    return b.add(top, b.apply("log", b.sum(raised, position)))


def norm(b: Builder, x: int, position: int) -> int:
    """The root of the sum of squares."""
    return b.apply("sqrt", b.sum(b.apply("square", x), position))


def l2norm(b: Builder, x: int, position: int) -> int:
    """x * rsqrt(sum of squares + 1e-6)."""
    squares = b.sum(b.apply("square", x), position)
    return _scaled(b, x, b.apply("rsqrt", b.add(squares, b.const(L2_EPS))), position)


def rmsnorm(b: Builder, x: int, position: int) -> int:
    """x * rsqrt(mean of squares + 1e-6)."""
    squares = mean(b, b.apply("square", x), position)
    return _scaled(b, x, b.apply("rsqrt", b.add(squares, b.const(L2_EPS))), position)


def layernorm(b: Builder, x: int, position: int) -> int:
    """The rmsnorm of what is left of x less its mean, with 1e-5."""
    centred = b.sub(x, _spread(b, mean(b, x, position), b.axes(x), position))
    squares = mean(b, b.apply("square", centred), position)
    return _scaled(b, centred, b.apply("rsqrt", b.add(squares, b.const(LAYERNORM_EPS))), position)


def _scaled(b: Builder, x: int, factor: int, position: int) -> int:
    return b.mul(x, _spread(b, factor, b.axes(x), position))
