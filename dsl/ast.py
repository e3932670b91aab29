"""The abstract syntax of a `.rec` file: what was written, with a span on every node.

Nothing here is resolved or typed. Declarations keep the order of the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from .source import Source, Span

# ---------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Number:
    """A literal: ``2``, ``0.5``, ``1e-6`` or ``inf``."""

    span: Span
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """A use of a name; ``primed`` is true for ``S'``."""

    span: Span
    id: str
    primed: bool = False


@dataclass(frozen=True, slots=True)
class Unary:
    """``-x``; the only unary operator is minus (a unary plus is dropped by the parser)."""

    span: Span
    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """``+ - * / ^ @`` or a comparison ``< <= > >= == !=``. ``op_span`` is the operator's own."""

    span: Span
    op: str
    left: Expr
    right: Expr
    op_span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """``f(a, b)``."""

    span: Span
    function: str
    function_span: Span
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """``x[j]``: one entry of the first axis."""

    span: Span
    value: Expr
    index: Expr


@dataclass(frozen=True, slots=True)
class Slice:
    """``x[a:b]``: a run of the first axis; a missing bound is None."""

    span: Span
    value: Expr
    start: Expr | None
    stop: Expr | None


@dataclass(frozen=True, slots=True)
class Transpose:
    """``x.T``."""

    span: Span
    value: Expr


Expr = Number | Name | Unary | Binary | Call | Index | Slice | Transpose

# ---------------------------------------------------------------- declarations


@dataclass(frozen=True, slots=True)
class Range:
    """``in (0, 1]``: bounds are constant expressions."""

    span: Span
    low: Expr
    high: Expr
    low_open: bool
    high_open: bool


@dataclass(frozen=True, slots=True)
class Ident:
    """A name at the place that declares it (or an axis in brackets)."""

    span: Span
    id: str


@dataclass(frozen=True, slots=True)
class Dim:
    """One item of ``dims K, U = K, N = 2*K``; ``factor`` is what stands before the ``*``."""

    span: Span
    name: Ident
    alias: Ident | None = None
    factor: Number | Ident | None = None


@dataclass(frozen=True, slots=True)
class Dims:
    span: Span
    items: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Const:
    """``const N = 2``."""

    span: Span
    name: Ident
    value: Expr


@dataclass(frozen=True, slots=True)
class StateItem:
    """``S[K, V]`` or ``m = -inf``; ``start`` is a constant expression or None for zero."""

    span: Span
    name: Ident
    axes: tuple[Ident, ...]
    start: Expr | None = None


@dataclass(frozen=True, slots=True)
class State:
    span: Span
    items: tuple[StateItem, ...]


@dataclass(frozen=True, slots=True)
class InputItem:
    """``k[N, K] unit`` or ``b in (0, 1)``; properties belong to the item they follow."""

    span: Span
    name: Ident
    axes: tuple[Ident, ...]
    range: Range | None = None
    unit: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    span: Span
    items: tuple[InputItem, ...]


@dataclass(frozen=True, slots=True)
class ParamItem:
    """``W[V, V] init identity``, ``Win[D, I] frozen init normal(0.1)``.

    ``init`` is a Name or Call of a known initialiser, or a constant expression that may read
    ``head`` (the zero-based head) as in ``init log(1 - 2^(-5 - head))``. An item without its own
    ``init`` (or ``frozen``) takes that of the next item of its statement that has one; the parser
    has done so already.
    """

    span: Span
    name: Ident
    axes: tuple[Ident, ...]
    init: Expr | None = None
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Param:
    span: Span
    items: tuple[ParamItem, ...]


@dataclass(frozen=True, slots=True)
class Def:
    """``def swiglu(a, b) = silu(a) * b``."""

    span: Span
    name: Ident
    parameters: tuple[Ident, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class Gate:
    """``gate g[K] in (0, 1] = expr``; axes are optional (``None``: inferred) and checked if given."""

    span: Span
    name: Ident
    axes: tuple[Ident, ...] | None
    range: Range | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Let:
    """``let x = expr``, also inside a transition block."""

    span: Span
    name: Ident
    axes: tuple[Ident, ...] | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign:
    """``S' = expr``; the name's prime is part of the syntax."""

    span: Span
    name: Ident
    value: Expr


@dataclass(frozen=True, slots=True)
class Repeat:
    """``repeat j < N { ... }``."""

    span: Span
    variable: Ident
    bound: Expr
    body: tuple[Assign | Let | Repeat, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """``transition S' = expr`` (one Assign, ``block`` false) or ``transition { ... }``."""

    span: Span
    body: tuple[Assign | Let | Repeat, ...]
    block: bool


@dataclass(frozen=True, slots=True)
class Output:
    """``output o[V] = expr``; axes may be empty for a scalar."""

    span: Span
    name: Ident
    axes: tuple[Ident, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class LayerAssign:
    """``q, k = silu(conv(linear(x), 4))``: every name gets its own copy of the expression."""

    span: Span
    names: tuple[Ident, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Layer:
    span: Span
    body: tuple[LayerAssign, ...]


Statement = Dims | Const | State | Input | Param | Def | Gate | Let | Transition | Output | Layer


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A whole file. ``doc`` is the docstring's text without its quotes, or the empty string."""

    span: Span
    name: Ident
    doc: str
    statements: tuple[Statement, ...]
    source: Source
