"""Structured matrices: combined while an expression is read, and applied without building them.

The algebra folds what is free to fold (identities, scalings, diagonals, products with rank one) and keeps
the rest as written. ``apply`` is ``matrix @ value``, ``apply_right`` is ``value @ matrix``: a product runs
factor by factor, a sum term by term, so a Householder factor costs two vector products.
"""

from __future__ import annotations

from ..ir.builder import Builder
from ..ir.types import Axes, Axis
from .shapes import along, matmul, outer, renamed
from .values import Dense, Diag, Eye, Matrix, Outer, Product, Rotation, Scaled, Sum, columns, has_entries, rows


def scaled(factor: int, matrix: Matrix, divides: bool = False) -> Matrix:
    """``factor * matrix``, or ``matrix / factor``."""
    return Scaled(factor, matrix, divides)


def negated(matrix: Matrix) -> Matrix:
    """``-matrix``."""
    return Sum(tuple((-sign, term) for sign, term in _terms(matrix)))


def added(left: Matrix, right: Matrix, sign: int = 1) -> Matrix:
    """``left + right`` or ``left - right``."""
    return Sum((*_terms(left), *((sign * s, term) for s, term in _terms(right))))


def _terms(matrix: Matrix) -> tuple[tuple[int, Matrix], ...]:
    return matrix.terms if isinstance(matrix, Sum) else ((1, matrix),)


def householder(b: Builder, k: int, beta: int) -> Matrix:
    """``I - beta k k^T``."""
    (axis,) = b.axes(k)
    return Sum(((1, Eye(axis)), (-1, Scaled(beta, Outer(k, k, axis, axis)))))


def transposed(b: Builder, matrix: Matrix) -> Matrix:
    """``matrix.T``."""
    match matrix:
        case Eye() | Diag():
            return matrix
        case Outer(left, right, r, c):
            return Outer(right, left, c, r)
        case Dense(value, r, c):
            return Dense(b.broadcast(value, (c, r), (1, 0)), c, r)
        case Rotation(theta, axis, back):
            return Rotation(theta, axis, not back)
        case Scaled(factor, inner, divides):
            return Scaled(factor, transposed(b, inner), divides)
        case Sum(terms):
            return Sum(tuple((sign, transposed(b, term)) for sign, term in terms))
        case Product(left, right):
            return Product(transposed(b, right), transposed(b, left))


def multiplied(b: Builder, left: Matrix, right: Matrix) -> Matrix:
    """``left @ right``, whose inner axes have equal sizes."""
    match left, right:
        case Scaled(factor, inner, divides), _:
            return Scaled(factor, multiplied(b, inner, right), divides)
        case _, Scaled(factor, inner, divides):
            return Scaled(factor, multiplied(b, left, inner), divides)
        case Eye(), _ if rows(left) == rows(right):
            return right
        case _, Eye() if columns(left) == columns(right):
            return left
        case Diag(x, axis), Diag(y, _):
            return Diag(b.mul(x, renamed(b, y, (axis,))), axis)
        case Outer(u, w, r, _), _:
            image = apply_right(b, w, right)
            return Outer(u, image, r, b.axes(image)[0])
        case _, Outer(u, w, _, c):
            image = apply(b, left, u)
            return Outer(image, w, b.axes(image)[0], c)
    return Product(left, right)


def apply(b: Builder, matrix: Matrix, value: int) -> int:
    """``matrix @ value``, the first axis of the value being contracted."""
    axes = b.axes(value)
    result = (rows(matrix), *axes[1:])
    match matrix:
        case Eye():
            return renamed(b, value, result)
        case Diag(vector, _):
            return b.mul(along(b, vector, result, 0), renamed(b, value, result))
        case Dense(dense, _, _):
            return matmul(b, dense, value)
        case Outer(u, w, _, _):
            image = matmul(b, w, value)
            return _outer(b, u, image)
        case Rotation(theta, axis, back):
            return _rotated(b, theta, axis, value, 0, back)
        case Scaled(factor, inner, divides):
            image = apply(b, inner, value)
            return b.div(image, factor) if divides else b.mul(factor, image)
        case Sum(terms):
            return _added(b, [(sign, renamed(b, apply(b, term, value), result)) for sign, term in terms])
        case Product(left, right):
            return apply(b, left, apply(b, right, value))


def apply_right(b: Builder, value: int, matrix: Matrix) -> int:
    """``value @ matrix``, the last axis of the value being contracted."""
    axes = b.axes(value)
    last = len(axes) - 1
    result = (*axes[:-1], columns(matrix))
    match matrix:
        case Eye():
            return renamed(b, value, result)
        case Diag(vector, _):
            return b.mul(renamed(b, value, result), along(b, vector, result, last))
        case Dense(dense, _, _):
            return matmul(b, value, dense)
        case Outer(u, w, _, _):
            image = matmul(b, value, u)
            return _outer_right(b, image, w)
        case Rotation(theta, axis, back):
            return _rotated(b, theta, axis, value, last, not back)
        case Scaled(factor, inner, divides):
            image = apply_right(b, value, inner)
            return b.div(image, factor) if divides else b.mul(factor, image)
        case Sum(terms):
            return _added(b, [(sign, renamed(b, apply_right(b, value, term), result)) for sign, term in terms])
        case Product(left, right):
            return apply_right(b, apply_right(b, value, left), right)


def entries(b: Builder, matrix: Matrix) -> int:
    """The IR value of a matrix that ``has_entries``."""
    match matrix:
        case Outer(u, w, _, _):
            return outer(b, u, w)
        case Dense(value, _, _):
            return value
        case Scaled(factor, inner, divides):
            return b.div(entries(b, inner), factor) if divides else b.mul(factor, entries(b, inner))
        case Sum(terms):
            axes = (rows(matrix), columns(matrix))
            return _added(b, [(sign, renamed(b, entries(b, term), axes)) for sign, term in terms])
        case Product(left, right):
            if has_entries(right):
                return apply(b, left, entries(b, right))
            return apply_right(b, entries(b, left), right)
    raise AssertionError(f"{type(matrix).__name__} has no entries")


def _added(b: Builder, terms: list[tuple[int, int]]) -> int:
    (sign, total), *rest = terms
    if sign < 0:
        total = b.apply("neg", total)
    for sign, value in rest:
        total = b.add(total, value) if sign > 0 else b.sub(total, value)
    return total


def _outer(b: Builder, u: int, image: int) -> int:
    """``u`` times what is left of a value after its first axis was contracted."""
    count = len(b.axes(image))
    if not count:
        return b.mul(u, image)
    return b.contract(u, image, (0,), tuple(range(1, count + 1)), tuple(range(count + 1)))


def _outer_right(b: Builder, image: int, w: int) -> int:
    count = len(b.axes(image))
    if not count:
        return b.mul(image, w)
    return b.contract(image, w, tuple(range(count)), (count,), tuple(range(count + 1)))


def _rotated(b: Builder, theta: int, axis: Axis, value: int, position: int, back: bool) -> int:
    """Channels (2i, 2i+1) along a position, turned by the angles; every channel is one entry of the axis."""
    own = b.axes(value)
    axes: Axes = (*own[:position], axis, *own[position + 1 :])
    rest = own[:position] + own[position + 1 :]
    size = axis.size.known
    assert size is not None, "the caller refuses axes of unknown size"
    cos, sin = b.apply("cos", theta), b.apply("sin", theta)
    total: int | None = None
    for i in range(size // 2):
        c, s = (b.emit("index", (x,), (0, i), ()) for x in (cos, sin))
        even, odd = (b.emit("index", (value,), (position, 2 * i + j), rest) for j in (0, 1))
        turned, crossed = b.mul(s, odd), b.mul(s, even)
        first = b.add(b.mul(c, even), turned) if back else b.sub(b.mul(c, even), turned)
        second = b.sub(b.mul(c, odd), crossed) if back else b.add(crossed, b.mul(c, odd))
        for j, channel in ((0, first), (1, second)):
            placed = b.emit("place", (channel,), (position, 2 * i + j), axes)
            total = placed if total is None else b.add(total, placed)
    assert total is not None
    return total
