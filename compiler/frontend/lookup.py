"""What a name in an expression stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...dsl import ast
from ...dsl.diagnostics import Label
from .functions import FUNCTIONS
from .names import Symbol
from .report import Mistake, Silent, did_you_mean
from .values import POISON, Poison, Value

if TYPE_CHECKING:
    from .expressions import Expressions


def name(e: Expressions, expr: ast.Name) -> Value:
    """The value of a name without a prime."""
    if expr.id in e.locals:
        value = e.locals[expr.id]
        if isinstance(value, Poison):
            raise Silent
        _check_gate(e, expr, value)
        return value
    if expr.id not in e.names.symbols and expr.id not in e.names.lost:
        if expr.id in FUNCTIONS:
            message = f"`{expr.id}` is a function"
            raise Mistake("E0206", message, expr.span, "", f"call it: `{FUNCTIONS[expr.id].signature}`")
        if expr.id == "head":
            e.names.lost.add("head")
            message = "`head` is the index of the head where a param is initialised, and nothing elsewhere"
            raise Mistake("E0201", message, expr.span)
    symbol = e.names.find(expr.id, expr.span, e.before, e.locals)
    return _symbol(e, expr, symbol)


def _symbol(e: Expressions, expr: ast.Name, symbol: Symbol) -> Value:
    if symbol.kind == "function":
        raise Mistake("E0206", f"`{symbol.name}` is a function", expr.span, "", "call it")
    if symbol.kind == "output":
        raise Mistake("E0206", f"`{symbol.name}` is an output, which is not read back", expr.span, "",
                      "name the value with `let` and put that out")  # fmt: skip
    if symbol.kind not in e.reads:
        raise Mistake("E0213", f"{e.purpose} cannot read `{symbol.name}`, which is {symbol.described}", expr.span)
    e.b.span = expr.span
    if symbol.kind == "dimension":
        assert symbol.size is not None
        return e.b.size(symbol.size)
    if symbol.kind == "const":
        assert symbol.number is not None
        return e.b.const(symbol.number)
    if symbol.kind in ("state", "input", "param"):
        e.b.span = symbol.span
        value: Value = e.b.leaf(symbol.kind, symbol.name, symbol.axes)
    else:
        value = e.values.get(symbol.name, POISON)
        if isinstance(value, Poison):
            raise Silent
    _check_gate(e, expr, value)
    return value


def primed(e: Expressions, expr: ast.Name) -> Value:
    """The value of a state after the step, or as far as its block has built it."""
    shown = f"{expr.id}'"
    if {expr.id, shown} & e.names.lost:
        raise Silent
    if expr.id not in e.names.symbols:
        e.names.lost.add(expr.id)
        states = [s.name for s in e.names.symbols.values() if s.kind == "state"]
        raise Mistake("E0201", f"`{shown}` is not declared", expr.span, "", *did_you_mean(expr.id, states))
    symbol = e.names.find(expr.id, expr.span, e.before)
    if symbol.kind != "state":
        raise Mistake("E0219", f"only states have a value after the step, and `{expr.id}` is {symbol.described}",
                      expr.span, "", f"write `{expr.id}`", labels=(Label(symbol.span, "declared here"),))  # fmt: skip
    if "state" not in e.reads:
        raise Mistake("E0213", f"{e.purpose} cannot read `{shown}`, which is a state", expr.span)
    if expr.id in e.current:
        now = e.current[expr.id]
        if now is None:
            helps = f"move the assignment of `{shown}` up, or read `{expr.id}`, the state before the step"
            raise Mistake("E0405", f"`{shown}` is read before this block assigns it", expr.span, "", helps)
        value = now
    else:
        value = e.nexts.get(expr.id, POISON)
    if isinstance(value, Poison):
        raise Silent
    _check_gate(e, expr, value)
    return value


def _check_gate(e: Expressions, expr: ast.Name, value: Value) -> None:
    if e.gate is not None and e.of_state(value):
        shown = expr.id + ("'" if expr.primed else "")
        raise Mistake("E0406", f"the gate `{e.gate}` reads the state", expr.span, f"`{shown}` depends on the state",
                      "a gate steers the step from outside: use `let` for what depends on the state")  # fmt: skip
