"""The rules after `init`: which there are, what they take, and which axes they need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...dsl import ast
from ..ir.program import Initialiser
from ..ir.types import Axes, show_axes
from .expressions import Expressions
from .functions import FUNCTIONS
from .report import Mistake, Silent, did_you_mean
from .values import Poison


@dataclass(frozen=True)
class Rule:
    """An initialiser: how it is written, how many numbers it takes, and what they must satisfy."""

    signature: str
    numbers: int = 0
    holds: Callable[..., bool] = lambda: True
    wanted: str = ""
    matrix: bool = False
    square: bool = False


def _finite(*numbers: float) -> bool:
    return all(math.isfinite(x) for x in numbers)


RULES: dict[str, Rule] = {
    "zeros": Rule("zeros"),
    "ones": Rule("ones"),
    "identity": Rule("identity", matrix=True),
    "orthogonal": Rule("orthogonal", matrix=True),
    "normal": Rule("normal(std)", 1, lambda std: _finite(std) and std >= 0, "a standard deviation is not negative"),
    "uniform": Rule("uniform(lo, hi)", 2, lambda lo, hi: _finite(lo, hi) and lo <= hi, "`lo` is at most `hi`"),
    "log_uniform": Rule("log_uniform(lo, hi)", 2, lambda lo, hi: _finite(hi) and 0 < lo <= hi,
                        "`lo` is positive and at most `hi`"),
    "inv_softplus_log_uniform": Rule("inv_softplus_log_uniform(lo, hi)", 2, lambda lo, hi: _finite(hi) and 0 < lo <= hi,
                                     "`lo` is positive and at most `hi`"),
    "arange": Rule("arange(first, step)", 2, _finite, "both are finite"),
    "hippo_real": Rule("hippo_real"),
    "spectral": Rule("spectral(radius)", 1, lambda radius: _finite(radius) and radius >= 0,
                     "a spectral radius is not negative", matrix=True, square=True),
}  # fmt: skip
"""Every initialiser of the language by name."""


def initialiser(e: Expressions, item: ast.ParamItem, axes: Axes | None) -> Initialiser:
    """How a param starts; ``axes`` is None if they are erroneous (Mistake or Silent if the rule is)."""
    match item.init:
        case None:
            return Initialiser()
        case ast.Name(id=name, primed=False) if name in RULES:
            return _rule(e, item, axes, name, (), item.init)
        case ast.Call(function=name, args=args) if name in RULES:
            return _rule(e, item, axes, name, args, item.init)
        case ast.Name(id=name, primed=False) if name not in e.names.symbols and name != "head":
            helps = did_you_mean(name, RULES) or (f"there are {', '.join(f'`{r}`' for r in RULES)}",)
            raise Mistake("E0222", f"there is no initialiser `{name}`", item.init.span, "", *helps)
        case ast.Call(function=name) if name not in FUNCTIONS and name not in e.names.symbols:
            helps = did_you_mean(name, [*RULES, *FUNCTIONS]) or (f"there are {', '.join(f'`{r}`' for r in RULES)}",)
            raise Mistake("E0222", f"there is no initialiser `{name}`", item.init.function_span, "", *helps)
    return _expression(e, item.name.id, item.init)


def _rule(
    e: Expressions, item: ast.ParamItem, axes: Axes | None, name: str, args: tuple[ast.Expr, ...], init: ast.Expr
) -> Initialiser:
    rule = RULES[name]
    if len(args) != rule.numbers:
        takes = {0: "no number", 1: "one number"}.get(rule.numbers, f"{rule.numbers} numbers")
        raise Mistake("E0223", f"`{name}` takes {takes}", init.span, "", f"write `init {rule.signature}`")
    numbers = tuple(e.constant(arg, f"an argument of `{name}`") for arg in args)
    if not rule.holds(*numbers):
        raise Mistake("E0223", f"`{rule.signature}` cannot take these numbers", init.span, "", notes=(rule.wanted,))
    if axes is not None and rule.matrix and len(axes) < 2:
        message = f"`{name}` starts a matrix, and `{item.name.id}` has axes {show_axes(axes)}"
        raise Mistake(
            "E0223", message if axes else f"`{name}` starts a matrix, and `{item.name.id}` is a scalar", init.span
        )
    if axes is not None and rule.square and axes[-1].size != axes[-2].size:
        raise Mistake("E0223", f"`{name}` starts a square matrix", init.span, f"`{item.name.id}` is {show_axes(axes)}")
    return Initialiser(name, numbers)


def _expression(e: Expressions, name: str, init: ast.Expr) -> Initialiser:
    """A scalar that may read the index of the head."""
    head = e.b.leaf("head", "head")
    with e.standing(reads=frozenset({"const"}), purpose=f"the start of `{name}`", locals={"head": head}):
        value = e.entries(init)
    if isinstance(value, Poison):
        raise Silent
    return Initialiser("expression", (), value)
