"""A carried matrix within one step: what it was at the start, scaled, plus the outer products written since.

Kept apart until the step is over, so that all that a step reads are products with the one matrix that is carried, and
the step changes it once. What outer products are read with are scalar products of vectors.
"""

from __future__ import annotations

from ..analysis.affine import Member
from ..ir.builder import Builder


class LowRank:
    """``diag(scale) base + sum of key value^T`` for one member of the group; vectors have values without axes."""

    def __init__(self, builder: Builder, member: Member, base: int) -> None:
        self.builder, self.member, self.base = builder, member, base
        self.scale: int | None = None
        self.terms: list[tuple[int, int]] = []

    def decay(self, by: int) -> None:
        """Multiply by a decay: a number, or one along the mixed axis."""
        self.scale = by if self.scale is None else self.builder.mul(self.scale, by)
        self.terms = [(self.builder.mul(key, by), value) for key, value in self.terms]

    def write(self, key: int, value: int) -> None:
        self.terms.append((key, value))

    def under(self, key: int) -> int:
        """``X^T key``."""
        builder, member = self.builder, self.member
        scaled = key if self.scale is None else builder.mul(key, self.scale)
        total = _contract(builder, member, self.base, scaled, member.position)
        for other, value in self.terms:
            total = builder.add(total, builder.mul(value, dot(builder, other, key)))
        return total

    def along(self, value: int) -> int:
        """``base value``: the part of what is read with a value that the base has, before scaling."""
        if self.member.column is None:
            return self.builder.mul(self.base, value)
        return _contract(self.builder, self.member, self.base, value, 1 - self.member.position)

    def whole(self) -> int:
        """The matrix after the step."""
        builder, member = self.builder, self.member
        total: int | None = None
        for key, value in self.terms:
            part = outer(builder, member, key, value)
            total = part if total is None else builder.apply("add", total, part)
        kept = self.base
        if self.scale is not None:
            scale = self.scale
            if builder.axes(scale) and member.column is not None:
                scale = builder.broadcast(scale, member.axes, tuple(0 if i == member.position else -1 for i in (0, 1)))
            kept = builder.mul(kept, scale)
        return kept if total is None else builder.apply("add", kept, total)


def dot(builder: Builder, x: int, y: int) -> int:
    """The scalar product of two vectors, or of two numbers."""
    if not builder.axes(x):
        return builder.mul(x, y)
    return builder.contract(x, y, (0,), (0,), ())


def outer(builder: Builder, member: Member, key: int, value: int) -> int:
    """``key value^T`` with the axes of a member."""
    if member.column is None:
        return builder.mul(key, value)
    out = (0, 1) if member.position == 0 else (1, 0)
    return builder.contract(key, value, (0,), (1,), out)


def _contract(builder: Builder, member: Member, matrix: int, vector: int, over: int) -> int:
    """A member's matrix times a vector along one of its axes."""
    labels = tuple(range(len(member.axes)))
    return builder.contract(matrix, vector, labels, (over,), tuple(i for i in labels if i != over))
