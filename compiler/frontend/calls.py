"""Calls of the user's own functions, written out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.source import Span
from . import clashes
from .functions import FUNCTIONS
from .names import Symbol
from .report import Mistake, Silent
from .values import Poison, Value

if TYPE_CHECKING:
    from .expressions import Expressions

MAX_CALLS = 20_000
"""Calls of the user's functions in one file, functions that call functions written out."""


def call(e: Expressions, expr: ast.Call) -> Value:
    """The value of a call (Mistake or Silent if it is erroneous)."""
    function = FUNCTIONS.get(expr.function)
    if function is not None:
        return function.call(e, expr)
    args = [e.value(arg) for arg in expr.args]
    symbol = _called(e, expr)
    assert symbol.function is not None
    clashes.check_count(expr, len(symbol.function.parameters), len(symbol.function.parameters), e.text(
        Span(symbol.span.start, symbol.function.body.span.start)).rstrip(" ="))  # fmt: skip
    e.calls += 1
    if e.calls > MAX_CALLS + 1:
        raise Silent
    if e.calls > MAX_CALLS:
        raise Mistake("E0118", f"this file calls its functions more than {MAX_CALLS} times", expr.span)
    bound = {ident.id: value for ident, value in zip(symbol.function.parameters, args, strict=True)}
    with e.standing(locals=bound, before=symbol.order, calling=(*e.calling, symbol.name)):
        value = e.value(symbol.function.body)
    if isinstance(value, Poison):
        raise Silent
    return value


def _called(e: Expressions, expr: ast.Call) -> Symbol:
    """The user's function that a call means."""
    name = expr.function
    if name not in e.names.symbols and name not in e.names.lost:
        e.names.lost.add(name)
        own = [s.name for s in e.names.symbols.values() if s.kind == "function"]
        raise clashes.unknown_function(expr, own)
    if name in e.calling:
        e.names.lost.add(name)
        helps = "functions are written out where they are called; sub-steps are `repeat j < N`"
        raise Mistake("E0203", f"`{name}` calls itself", expr.function_span, "", helps)
    symbol = e.names.find(name, expr.function_span, e.before)
    if symbol.kind != "function":
        product = (f"multiply with `*`: `{name} * (...)`",) if len(expr.args) == 1 else ()
        message, label = f"`{name}` is {symbol.described}, not a function", Label(symbol.span, "declared here")
        raise Mistake("E0204", message, expr.function_span, "", *product, labels=(label,))
    return symbol
