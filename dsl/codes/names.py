"""Error codes E02xx: names, shapes and types."""

from __future__ import annotations

from .code import Code

NAMES: tuple[Code, ...] = (
    Code(
        "E0207",
        "operands do not align by axis name",
        """`+ - * /`, comparisons and element-wise functions align their operands by the names of their axes, never
        by position. The axes of one operand must contain those of the other; a vector over K and a vector over
        V have no common result. Name the axis alike, make an outer product, or contract an axis with `@`.""",
        """input k[K], v[V]
let x = k + v""",
        """input k[K], v[V]
let x = outer(k, v)""",
    ),
)
