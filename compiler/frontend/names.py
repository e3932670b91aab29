"""What names stand for, and the messages about names that stand for nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.source import Span
from ..ir.size import Size
from ..ir.types import Axes, Axis
from .report import Mistake, Report, Silent, did_you_mean, listed

Kind = Literal["dimension", "const", "state", "input", "param", "function", "gate", "let", "output"]

ARTICLES: dict[str, str] = {"input": "an input", "output": "an output"}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A declared name. ``order`` counts declarations; ``size`` is that of a dimension or integer const."""

    kind: Kind
    name: str
    span: Span
    order: int
    axes: Axes = ()
    size: Size | None = None
    number: float | None = None
    function: ast.Def | None = None

    @property
    def described(self) -> str:
        """``an input``, ``a state``."""
        return ARTICLES.get(self.kind, f"a {self.kind}")


@dataclass
class Names:
    """All global names of a file.

    ``lost`` holds those about which a message has been given already, ``later`` where every name is declared,
    also those that have not been reached.
    """

    report: Report
    symbols: dict[str, Symbol] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    later: dict[str, Span] = field(default_factory=dict)
    order: int = 0

    def declare(self, ident: ast.Ident, kind: Kind, taken: Iterable[str] = (), **facts: object) -> bool:
        """Add a name; False, with a message, if it is taken."""
        self.order += 1
        known = self.symbols.get(ident.id)
        if known is not None:
            self.report.add(
                Mistake(
                    "E0202",
                    f"`{ident.id}` is declared twice",
                    ident.span,
                    "again here",
                    "give one of them another name",
                    labels=(Label(known.span, f"{known.described} of that name"),),
                )
            )
            return False
        if ident.id in taken:
            message = f"`{ident.id}` is a function of the language"
            self.report.add(Mistake("E0202", message, ident.span, "", "give it another name"))
            return False
        self.symbols[ident.id] = Symbol(kind, ident.id, ident.span, self.order, **facts)  # type: ignore[arg-type]
        return True

    def find(self, name: str, span: Span, before: int, also: Iterable[str] = (), wanted: str = "") -> Symbol:
        """The symbol of a name that is declared before a place (Mistake if there is none).

        ``also`` are further names that could have been meant, ``wanted`` says what kind of name is needed.
        """
        symbol = self.symbols.get(name)
        if name in self.lost:
            raise Silent
        if symbol is not None and symbol.order <= before:
            return symbol
        self.lost.add(name)
        if name in self.later:
            raise Mistake(
                "E0203",
                f"`{name}` is used before it is declared",
                span,
                "",
                "move its declaration up",
                labels=(Label(self.later[name], "declared here"),),
            )
        known = [s.name for s in self.symbols.values() if s.order <= before]
        helps = did_you_mean(name, [*also, *known])
        raise Mistake("E0201", f"`{name}` is not declared", span, wanted, *helps)

    def axes(self, idents: Iterable[ast.Ident], before: int) -> Axes | None:
        """The declared axes in brackets; None, with messages, if one of them is no size."""
        found: list[Axis] = []
        complete = True
        for ident in idents:
            try:
                found.append(self._axis(ident, before))
            except Mistake as mistake:
                self.report.add(mistake)
                complete = False
            except Silent:
                complete = False
        return tuple(found) if complete else None

    def _axis(self, ident: ast.Ident, before: int) -> Axis:
        dims = [s.name for s in self.symbols.values() if s.kind == "dimension"]
        if ident.id not in {*self.symbols, *self.lost, *self.later}:
            self.lost.add(ident.id)
            near = did_you_mean(ident.id, dims)
            helps = near or (f"declare it: `dims {', '.join([*dims, ident.id])}`",)
            raise Mistake("E0201", f"the axis `{ident.id}` is not declared", ident.span, "", *helps)
        symbol = self.find(ident.id, ident.span, before)
        if symbol.size is not None:
            if symbol.kind == "const" and symbol.number is not None and symbol.number < 1:
                message = f"an axis cannot have {symbol.number:g} entries"
                raise Mistake("E0224", message, ident.span, labels=(Label(symbol.span, "declared here"),))
            return Axis(symbol.name, symbol.size)
        if symbol.kind == "const":
            message = f"the size of an axis is an integer, and `{symbol.name}` is {symbol.number:g}"
            raise Mistake("E0224", message, ident.span, labels=(Label(symbol.span, "declared here"),))
        helps = (f"axes can be {listed([f'`{d}`' for d in dims], 'or')}",) if dims else ("declare it with `dims`",)
        message = f"an axis is a dimension or a const, and `{symbol.name}` is {symbol.described}"
        raise Mistake("E0206", message, ident.span, "", *helps, labels=(Label(symbol.span, "declared here"),))
