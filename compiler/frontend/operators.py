"""Operators: arithmetic that aligns by name, and matrices that keep their structure as long as they can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...dsl import ast
from ..ir.types import Axis
from . import clashes, matrices
from .folding import number
from .powers import power
from .report import Mistake, Silent
from .shapes import Misaligned, matmul
from .values import Dense, Matrix, Poison, Value, columns, has_entries, rows

if TYPE_CHECKING:
    from .expressions import Expressions

OPERATIONS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
COMPARISONS = {"<": "lt", "<=": "le", ">": "lt", ">=": "le", "==": "eq", "!=": "ne"}


def negative(e: Expressions, expr: ast.Unary, value: Value) -> Value:
    """``-x``."""
    if isinstance(value, Poison):
        raise Silent
    if not isinstance(value, int):
        return matrices.negated(value)
    return e.elementwise("neg", "-", expr.span, [expr.operand], [e.tensor(value, expr.operand)])


def binary(e: Expressions, expr: ast.Binary, left: Value, right: Value) -> Value:
    """An operator between two values."""
    if isinstance(left, Poison) or isinstance(right, Poison):
        raise Silent
    if expr.op == "@":
        return _matmul(e, expr, left, right)
    if expr.op in OPERATIONS:
        structured = _structured(e, expr, left, right)
        if structured is not None:
            return structured
    sides = [expr.left, expr.right]
    x, y = e.tensor(left, expr.left), e.tensor(right, expr.right)
    if expr.op in COMPARISONS:
        x, y = e.aligned(expr.op, expr.op_span, sides, [x, y])
        e.b.span = expr.span
        return e.b.apply(COMPARISONS[expr.op], *((y, x) if expr.op in (">", ">=") else (x, y)))
    e.b.span = expr.span
    if expr.op == "^":
        folded = e.folded("pow", expr.span, x, y)
        return power(e.b, *e.aligned("^", expr.op_span, sides, [x, y])) if folded is None else folded
    op = OPERATIONS[expr.op]
    folded = e.folded(op, expr.span, x, y)
    if folded is not None:
        return folded
    if op == "div" and number(e.b, y) == 0:
        raise Mistake("E0216", "this cannot be computed: it divides by zero", expr.span)
    x, y = e.aligned(expr.op, expr.op_span, sides, [x, y])
    e.b.span = expr.span
    return {"add": e.b.add, "sub": e.b.sub, "mul": e.b.mul, "div": e.b.div}[op](x, y)


def _structured(e: Expressions, expr: ast.Binary, left: Value, right: Value) -> Matrix | None:
    """The result as a structured matrix, if it is one."""
    scalar_left, scalar_right = (isinstance(v, int) and not e.axes(v) for v in (left, right))
    match expr.op, left, right:
        case "*", int(), matrix if scalar_left and not isinstance(matrix, int | Poison):
            return matrices.scaled(e.tensor(left, expr.left), matrix)
        case (("*" | "/"), matrix, int()) if scalar_right and not isinstance(matrix, int | Poison):
            return matrices.scaled(e.tensor(right, expr.right), matrix, expr.op == "/")
        case (("+" | "-"), _, _):
            return _sum(e, expr, left, right)
    return None


def _sum(e: Expressions, expr: ast.Binary, left: Value, right: Value) -> Matrix | None:
    if isinstance(left, Poison) or isinstance(right, Poison) or (isinstance(left, int) and isinstance(right, int)):
        return None
    terms: list[Matrix] = []
    for mine, other in ((left, right), (right, left)):
        if isinstance(mine, int):
            if not isinstance(other, int) and has_entries(other):
                return None
            axes = e.axes(mine)
            if len(axes) != 2:
                return None
            mine = Dense(e._numeric(mine), *axes)
        terms.append(mine)
    first, second = ((rows(term), columns(term)) for term in terms)
    if first != second:
        pair = [(expr.left, first), (expr.right, second)]
        missing = next(axis for axis, other in zip(second, first, strict=True) if axis != other)
        raise clashes.misaligned(e, expr.op, expr.op_span, pair, Misaligned(0, 1, missing, False))
    return matrices.added(terms[0], terms[1], 1 if expr.op == "+" else -1)


def _matmul(e: Expressions, expr: ast.Binary, left: Value, right: Value) -> Value:
    """``left @ right`` of tensors and matrices; the sizes of the inner axes must be equal."""
    assert not isinstance(left, Poison) and not isinstance(right, Poison)
    inner: list[Axis] = []
    for side, value, place in ((expr.left, left, -1), (expr.right, right, 0)):
        axes = e.axes(value)
        if not axes:
            raise Mistake("E0210", "`@` contracts an axis, and a scalar has none", side.span, "scalar",
                          "multiply with `*`")  # fmt: skip
        inner.append(axes[place])
    if inner[0].size != inner[1].size:
        raise clashes.not_contracted(e, expr, e.axes(left), e.axes(right))
    if isinstance(left, int):
        left = e.tensor(left, expr.left)
    if isinstance(right, int):
        right = e.tensor(right, expr.right)
    e.b.span = expr.span
    if isinstance(left, int):
        return matmul(e.b, left, right) if isinstance(right, int) else matrices.apply_right(e.b, left, right)
    if isinstance(right, int):
        return matrices.apply(e.b, left, right)
    return matrices.multiplied(e.b, left, right)
