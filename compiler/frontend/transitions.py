"""Transitions: single assignments, and blocks that run in order with their repeats written out."""

from __future__ import annotations

from collections.abc import Sequence

from ...dsl import ast
from ...dsl.diagnostics import Label
from ..ir.types import Axes
from . import clashes
from .expressions import Expressions
from .order import assigned
from .report import Mistake, Silent, did_you_mean
from .shapes import conform
from .values import POISON, Poison, Value, columns, has_entries, rows

MAX_STATEMENTS = 2048
"""Statements of one transition, repeats written out."""


def bind(e: Expressions, what: str, value: Value, declared: Axes, place: ast.Ident, expr: ast.Expr) -> Value:
    """A value with the axes that its name was declared with (POISON, with a message, if it has others)."""
    if isinstance(value, Poison):
        return POISON
    if not isinstance(value, int) and not has_entries(value):
        if (rows(value), columns(value)) == declared:
            return value
        e.report.add(clashes.not_as_declared(what, declared, e.axes(value), place.span, expr.span))
        return POISON
    try:
        tensor = e.tensor(value, expr)
    except Mistake as mistake:
        e.report.add(mistake)
        return POISON
    found = conform(e.b, tensor, declared)
    if found is None:
        e.report.add(clashes.not_as_declared(what, declared, e.b.axes(tensor), place.span, expr.span))
        return POISON
    return found


def let(e: Expressions, statement: ast.Let | ast.Gate) -> Value:
    """The value of a `let` or `gate`, under its name; a structured matrix stays one."""
    value = e.value(statement.value)
    if statement.axes is not None:
        declared = e.names.axes(statement.axes, e.before)
        if declared is None:
            return POISON
        value = bind(e, f"`{statement.name.id}`", value, declared, statement.name, statement.value)
    if isinstance(value, int) and e.b.body[value].op not in ("leaf", "const", "size"):
        e.b.label(value, statement.name.id)
    return value


class Block:
    """One transition being run: what its states are so far, and the names bound inside."""

    def __init__(self, e: Expressions, transition: ast.Transition) -> None:
        self.e, self.transition = e, transition
        self.now: dict[str, Value | None] = {}
        self.count = 0
        self.placed: dict[str, ast.Ident] = {}

    def run(self) -> dict[str, Value]:
        """The new values of the states that the transition assigns."""
        e = self.e
        names = dict.fromkeys(ident.id for ident in assigned(self.transition.body))
        if self.transition.block:
            self.now = dict.fromkeys(names)
        with e.standing(current=self.now, locals={}):
            try:
                self._items(self.transition.body, {})
            except Mistake as mistake:
                e.report.add(mistake)
                return dict.fromkeys(names, POISON)
            except Silent:
                return dict.fromkeys(names, POISON)
        return {name: POISON if value is None else value for name, value in self.now.items()}

    def _items(self, items: Sequence[ast.Assign | ast.Let | ast.Repeat], bound: dict[str, Value]) -> None:
        """Run items in order; names bound here end with them."""
        inside = dict(bound)
        for item in items:
            self.count += 1
            if self.count > MAX_STATEMENTS:
                message = f"this transition has more than {MAX_STATEMENTS} statements with its repeats written out"
                raise Mistake("E0411", message, self.transition.span)
            self.e.locals = inside
            match item:
                case ast.Assign():
                    self._assign(item)
                case ast.Let():
                    self._let(item, inside)
                case ast.Repeat():
                    self._repeat(item, inside)

    def _assign(self, item: ast.Assign) -> None:
        e, name = self.e, item.name.id
        axes = self._state_axes(item)
        if self.transition.block and self.now.get(name) is None and axes is not None:
            self.now[name] = e.b.leaf("state", name, axes)  # being built: so far it is the state before
        value = e.value(item.value)
        value = POISON if axes is None else bind(e, f"`{name}'`", value, axes, item.name, item.value)
        if not isinstance(value, int | Poison):
            e.report.add(clashes.no_entries(e, value, item.value))
            value = POISON
        self.now[name] = value

    def _state_axes(self, item: ast.Assign) -> Axes | None:
        """The axes of the assigned state; None, with a message the first time, if it is none."""
        e, name = self.e, item.name.id
        symbol = e.names.symbols.get(name)
        if symbol is not None and symbol.kind == "state":
            return symbol.axes
        if {name, f"{name}'"} & e.names.lost:
            return None
        if symbol is None:
            states = [s.name for s in e.names.symbols.values() if s.kind == "state"]
            e.names.lost.add(name)
            helps = did_you_mean(name, states) or (f"declare it: `state {name}`",)
            e.report.add(Mistake("E0404", f"there is no state `{name}`", item.name.span, "", *helps))
        else:
            message = f"a transition makes new states, and `{name}` is {symbol.described}"
            e.report.add(Mistake("E0404", message, item.name.span, labels=(Label(symbol.span, "declared here"),)))
        return None

    def _let(self, item: ast.Let, inside: dict[str, Value]) -> None:
        name = item.name.id
        self._check_new(item.name, name in inside)
        inside[name] = let(self.e, item)

    def _repeat(self, item: ast.Repeat, inside: dict[str, Value]) -> None:
        e = self.e
        self._check_new(item.variable, item.variable.id in inside)
        size = e.size(item.bound, "the bound of a repeat")
        if size.known is None:
            raise Mistake("E0410", "a repeat is written out, so its bound is a number", item.bound.span, "",
                          "declare the number of sub-steps with `const`")  # fmt: skip
        if size.known < 1:
            raise Mistake("E0410", f"a repeat runs at least once, and its bound is {size.known}", item.bound.span)
        for ident in dict.fromkeys(i.id for i in assigned(item.body)):
            symbol = e.names.symbols.get(ident)
            if self.now.get(ident) is None and symbol is not None and symbol.kind == "state":
                self.now[ident] = e.b.leaf("state", ident, symbol.axes)
        for j in range(size.known):
            self._items(item.body, {**inside, item.variable.id: e.b.const(j)})

    def _check_new(self, ident: ast.Ident, bound: bool) -> None:
        """A name inside a block may not hide another one."""
        symbol = self.e.names.symbols.get(ident.id)
        if symbol is None and not bound:
            return
        labels = [] if symbol is None else [Label(symbol.span, f"{symbol.described} of that name")]
        helps = "give it another name; only primed names are assigned again"
        self.e.report.add(
            Mistake("E0202", f"`{ident.id}` is declared twice", ident.span, "again here", helps, labels=labels)
        )
