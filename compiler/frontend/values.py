"""What an expression can stand for while it is elaborated: an IR value, a structured matrix, or a mistake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.types import Axis


@dataclass(frozen=True, slots=True)
class Poison:
    """The value of an erroneous expression: whatever reads it is silently erroneous as well."""


POISON = Poison()


@dataclass(frozen=True, slots=True)
class Eye:
    """The identity over one axis."""

    axis: Axis


@dataclass(frozen=True, slots=True)
class Diag:
    """A diagonal matrix; ``vector`` is the IR value of its diagonal."""

    vector: int
    axis: Axis


@dataclass(frozen=True, slots=True)
class Outer:
    """The rank-one matrix ``left right^T`` of two IR values that are vectors."""

    left: int
    right: int
    rows: Axis
    columns: Axis


@dataclass(frozen=True, slots=True)
class Dense:
    """An IR value with two axes, as a term of a sum that is structured otherwise."""

    value: int
    rows: Axis
    columns: Axis


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates the channels (2i, 2i+1) of an axis of constant size by the i-th entry of ``theta``."""

    theta: int
    axis: Axis
    back: bool = False


@dataclass(frozen=True, slots=True)
class Scaled:
    """``factor * inner``, or ``inner / factor``; the factor is a scalar IR value."""

    factor: int
    inner: Matrix
    divides: bool = False


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms with the sign of each."""

    terms: tuple[tuple[int, Matrix], ...]


@dataclass(frozen=True, slots=True)
class Product:
    """``left @ right`` of two matrices of which neither could be folded into the other."""

    left: Matrix
    right: Matrix


Matrix = Eye | Diag | Outer | Dense | Rotation | Scaled | Sum | Product
"""A matrix whose entries are not written down unless somebody asks for them."""

Value = int | Matrix | Poison
"""An IR value by its position, a structured matrix, or a mistake."""


def rows(matrix: Matrix) -> Axis:
    """The axis of a matrix's result."""
    match matrix:
        case Eye(axis) | Diag(axis=axis) | Rotation(axis=axis):
            return axis
        case Outer(rows=axis) | Dense(rows=axis):
            return axis
        case Scaled(inner=inner):
            return rows(inner)
        case Sum(terms):
            return rows(terms[0][1])
        case Product(left, _):
            return rows(left)


def columns(matrix: Matrix) -> Axis:
    """The axis that a matrix contracts."""
    match matrix:
        case Eye(axis) | Diag(axis=axis) | Rotation(axis=axis):
            return axis
        case Outer(columns=axis) | Dense(columns=axis):
            return axis
        case Scaled(inner=inner):
            return columns(inner)
        case Sum(terms):
            return columns(terms[0][1])
        case Product(_, right):
            return columns(right)


def has_entries(matrix: Matrix) -> bool:
    """Whether the entries can be written down with the operations of the IR (not those of a diagonal)."""
    match matrix:
        case Outer() | Dense():
            return True
        case Scaled(inner=inner):
            return has_entries(inner)
        case Sum(terms):
            return all(has_entries(term) for _, term in terms)
        case Product(left, right):
            return has_entries(left) or has_entries(right)
    return False


MAX_PARTS = 512
"""Parts of a structured matrix: each is applied on its own, and products of products double them."""


def too_large(matrix: Matrix) -> bool:
    """Whether a matrix has more parts than can sensibly be applied; looks at no more than that many."""
    pending, count = [matrix], 0
    while pending and count <= MAX_PARTS:
        count += 1
        match pending.pop():
            case Scaled(inner=inner):
                pending.append(inner)
            case Sum(terms):
                pending += [term for _, term in terms]
            case Product(left, right):
                pending += [left, right]
    return count > MAX_PARTS


def ir_values(value: Value) -> Iterator[int]:
    """The IR values that a value is made of."""
    match value:
        case int():
            yield value
        case Diag(vector=found) | Rotation(theta=found) | Dense(value=found):
            yield found
        case Outer(left, right):
            yield from (left, right)
        case Scaled(factor, inner):
            yield factor
            yield from ir_values(inner)
        case Sum(terms):
            for _, term in terms:
                yield from ir_values(term)
        case Product(first, second):
            yield from ir_values(first)
            yield from ir_values(second)
