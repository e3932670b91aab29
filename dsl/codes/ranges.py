"""Error codes E03xx: ranges and properties."""

from __future__ import annotations

from .code import Code

RANGES: tuple[Code, ...] = (
    Code(
        "E0301",
        "a gate that can leave its range",
        """A gate that declares a range promises it to the analysis of the transition, so the range is checked: the
        values that its expression can take, inferred from the ranges of what it reads, must lie inside. The message
        shows the inferred range. Inputs and params that promise nothing can be any number.""",
        """input x
gate g in [0, 1] = x""",
        """input x
gate g in [0, 1] = sigmoid(x)""",
    ),
    Code(
        "E0302",
        "a range without numbers",
        """A range is written from its lower to its upper bound, and contains at least one number. Round brackets leave
        a bound out, square ones take it in.""",
        "input b in (1, 0)",
        "input b in (0, 1)",
    ),
    Code(
        "E0303",
        "`unit` on a scalar",
        """`unit` promises that vectors along the last axis have L2 norm 1; a scalar has no axis.""",
        "input b unit",
        "input k[K] unit",
    ),
    Code(
        "E0304",
        "a bound that is not positive",
        """`clip_grad(x, c)` clamps gradients to [-c, c], so c is a positive number.""",
        """input x
let y = clip_grad(x, 0)""",
        """input x
let y = clip_grad(x, 1)""",
    ),
)
