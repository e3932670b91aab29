"""The operations of the typed IR: one table, read by everything that walks a body.

Every element-wise operation takes operands of *equal axes*; ``broadcast`` is explicit. This one
invariant makes evaluators, derivatives and printers a few lines per operation.

Attributes, by operation:

=============  ==========================================================================
leaf           (kind, name): kind is input, param, state, or, in adjoint code, cotangent or saved
const          (value,): a scalar float
size           (dimension,): the size of a dimension as a scalar float
clip_grad      (c,): identity forward, the cotangent is clamped to [-c, c] backward
broadcast      (source,): for each axis of the result the operand's position, or -1 for a new
               axis; every position of the operand appears once, so this also transposes
sum, amax      (position,): reduces the axis at that position
contract       (left, right, out): tuples of int labels as in einsum, one per axis; labels of
               ``out`` come from the operands; a label in both and not in ``out`` is contracted;
               no label stands twice in one operand; every label of an operand is in the other
               operand or in ``out``
index          (position, i): entry ``i`` of that axis, which is dropped
place          (position, i): inverse of index: zeros with the operand at ``i`` of a new axis
slice          (position, start: Size, stop: Size)
pad            (position, before: Size): zeros around the operand up to the result's axis
concat         (position,): two operands along an axis
others         ()
=============  ==========================================================================

Comparisons yield truth values, which only ``where`` reads (as its first operand).
``max`` and ``min`` split their gradient evenly at a tie and ``amax`` likewise, ``relu``, ``abs``
and ``sign`` have gradient 0 at 0, ``clamp(x, lo, hi)`` passes the gradient at its bounds: torch's
conventions. ``pow(x, y)`` is real: NaN for negative x with a fractional y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["leaf", "elementwise", "compare", "reduce", "contract", "move"]


@dataclass(frozen=True, slots=True)
class Op:
    """Name, number of operands and kind of one operation."""

    name: str
    arity: int
    kind: Kind


_UNARY = (
    "neg exp log log1p expm1 sqrt rsqrt square abs sign sigmoid logsigmoid tanh relu silu softplus gelu "
    "erf sin cos stop_grad clip_grad"
).split()
_BINARY = "add sub mul div pow min max".split()
_COMPARE = "lt le eq ne".split()
_TERNARY = "where clamp".split()

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        *(Op(name, 0, "leaf") for name in ("leaf", "const", "size")),
        *(Op(name, 1, "elementwise") for name in _UNARY),
        *(Op(name, 2, "elementwise") for name in _BINARY),
        *(Op(name, 2, "compare") for name in _COMPARE),
        *(Op(name, 3, "elementwise") for name in _TERNARY),
        *(Op(name, 1, "reduce") for name in ("sum", "amax")),
        Op("contract", 2, "contract"),
        *(Op(name, 1, "move") for name in ("broadcast", "index", "place", "slice", "pad")),
        Op("concat", 2, "move"),
    )
}
