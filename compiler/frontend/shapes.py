"""Named axes: how operands align, how matrices contract, how results take the axes that were declared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.builder import Builder
from ..ir.ops import OPS
from ..ir.size import Size
from ..ir.types import Axes, Axis


@dataclass(frozen=True)
class Misaligned(Exception):
    """Two operands (by their place) that do not align: an axis is missing, or stands twice."""

    left: int
    right: int
    axis: Axis
    twice: bool


def axis_of(size: Size) -> Axis:
    """The axis of a slice or a concatenation, named after its size: that of the dimension where it is one."""
    return Axis(str(size), size)


def anonymous(axis: Axis) -> bool:
    """Whether an axis has no name of its own, only a size such as ``M - 2``."""
    plain = axis.size.constant == 0 and len(axis.size.terms) == 1 and axis.size.terms[0][1] == 1
    return not plain and axis.name == str(axis.size)


def positions(small: Axes, big: Axes) -> tuple[int, ...] | Axis:
    """Where each axis of ``small`` is in ``big``, or the axis that has no place or more than one.

    Axes match by name; an anonymous axis matches one other axis of its size if only one is left.
    """
    if small == big:
        return tuple(range(len(big)))
    found: dict[int, int] = {}
    for i, axis in enumerate(small):
        places = [p for p, other in enumerate(big) if other.name == axis.name]
        if len(places) > 1 or (places and places[0] in found.values()):
            return axis
        if places:
            found[i] = places[0]
    for i, axis in enumerate(small):
        if i not in found:
            free = [p for p, other in enumerate(big) if p not in found.values() and _same(axis, other)]
            if len(free) != 1:
                return axis
            found[i] = free[0]
    return tuple(found[i] for i in range(len(small)))


def _same(left: Axis, right: Axis) -> bool:
    return left.size == right.size and (anonymous(left) or anonymous(right))


def common(shapes: Sequence[Axes]) -> Axes:
    """The axes that all operands of an element-wise operation are spread to (Misaligned if there are none)."""
    chosen = max(range(len(shapes)), key=lambda i: len(shapes[i]))
    axes = list(shapes[chosen])
    for other, shape in enumerate(shapes):
        place = positions(shape, tuple(axes))
        if isinstance(place, Axis):
            names = [axis.name for axis in axes]
            twice = names.count(place.name) > 1 or (place.name in names and len(shape) > 1)
            raise Misaligned(min(chosen, other), max(chosen, other), place, twice)
        for axis, position in zip(shape, place, strict=True):
            if anonymous(axes[position]):
                axes[position] = axis
    return tuple(axes)


def spread(b: Builder, value: int, axes: Axes) -> int:
    """A value over axes that contain its own."""
    own = b.axes(value)
    if own == axes:
        return value
    instr = b.body[value]
    if OPS[instr.op].kind == "compare":  # truth values are not moved: their operands are
        return b.emit(instr.op, tuple(spread(b, arg, axes) for arg in instr.args), instr.attrs, axes)
    place = positions(own, axes)
    assert not isinstance(place, Axis), "common() made sure"
    return b.broadcast(value, axes, tuple(place.index(p) if p in place else -1 for p in range(len(axes))))


def align(b: Builder, values: Sequence[int]) -> list[int]:
    """The operands over their common axes (Misaligned if there are none)."""
    axes = common([b.axes(value) for value in values])
    return [spread(b, value, axes) for value in values]


def along(b: Builder, vector: int, axes: Axes, position: int) -> int:
    """A vector repeated so that its axis is the one at a position."""
    return b.broadcast(vector, axes, tuple(0 if p == position else -1 for p in range(len(axes))))


def renamed(b: Builder, value: int, axes: Axes) -> int:
    """A value under other names for its axes, which have the same sizes."""
    return b.broadcast(value, axes, tuple(range(len(axes))))


def conform(b: Builder, value: int, axes: Axes) -> int | None:
    """A value with exactly the declared axes, in their order; a scalar is spread. None if it does not fit."""
    own = b.axes(value)
    if own == axes:
        return value
    if not own:
        return b.spread(value, axes)
    if len(own) != len(axes) or isinstance(positions(own, axes), Axis):
        return None
    return spread(b, value, axes)


def matmul(b: Builder, left: int, right: int) -> int:
    """``left @ right``: the last axis of the left contracted with the first of the right, of equal size."""
    x, y = len(b.axes(left)), len(b.axes(right))
    labels_x = tuple(range(x))
    labels_y = (x - 1, *range(x, x + y - 1))
    return b.contract(left, right, labels_x, labels_y, labels_x[:-1] + labels_y[1:])


def outer(b: Builder, left: int, right: int) -> int:
    """The matrix of all products of two vectors' entries."""
    return b.contract(left, right, (0,), (1,), (0, 1))
