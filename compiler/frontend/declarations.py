"""Declarations to symbols: sizes, consts, leaves with their promises, initialisers and starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.suggest import closest
from ..ir.program import Dim, Initialiser, Input, Param
from ..ir.size import Size
from ..ir.types import EVERYTHING, Axes, Interval
from .expressions import Expressions
from .functions import FUNCTIONS
from .initialisers import initialiser
from .report import Mistake, Silent
from .values import Poison


@dataclass
class Declared:
    """What the declarations of a file say, as far as they are right."""

    dims: list[Dim] = field(default_factory=list)
    consts: list[tuple[str, float]] = field(default_factory=list)
    states: list[tuple[ast.StateItem, Axes]] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)


def declared(statement: ast.Statement) -> tuple[ast.Ident, ...]:
    """The names that a statement binds in the whole file."""
    match statement:
        case ast.Dims(items=dims):
            return tuple(item.name for item in dims)
        case ast.State(items=states):
            return tuple(item.name for item in states)
        case ast.Input(items=inputs):
            return tuple(item.name for item in inputs)
        case ast.Param(items=params):
            return tuple(item.name for item in params)
        case ast.Transition() | ast.Layer():
            return ()
    return (statement.name,)


class Declarations:
    """Walks the statements once and declares every name of the file."""

    def __init__(self, e: Expressions, consts: Mapping[str, float]) -> None:
        self.e, self.names, self.report = e, e.names, e.report
        self.consts = consts
        self.found = Declared()

    def declare(self, statement: ast.Statement) -> None:
        """Add the names of one statement."""
        match statement:
            case ast.Dims(items=items):
                for dim in items:
                    self._dim(dim)
            case ast.Const():
                self._const(statement)
            case ast.State(items=states):
                for state in states:
                    self._state(state)
            case ast.Input(items=inputs):
                for item in inputs:
                    self._input(item)
            case ast.Param(items=params):
                for param in params:
                    self._param(param)
            case ast.Def(name=name):
                self.names.declare(name, "function", FUNCTIONS, function=statement)
            case ast.Gate(name=name):
                self.names.declare(name, "gate")
            case ast.Let(name=name):
                self.names.declare(name, "let")
            case ast.Output(name=name):
                self.names.declare(name, "output")

    def check_overrides(self, header: ast.Ident) -> None:
        """Every const to override must exist."""
        for name, value in self.consts.items():
            known = [c for c, _ in self.found.consts]
            if name not in known and name not in self.names.lost:
                near = closest(name, known)
                helps = (f"did you mean `{near}`?",) if near else ()
                message = f"there is no const `{name}` to set to {value:g}"
                self.report.add(Mistake("E0225", message, header.span, "", *helps))

    # ------------------------------------------------------------ one item each

    def _dim(self, item: ast.Dim) -> None:
        alias, times = None, 1
        try:
            if item.alias is not None:
                alias, times = self._multiple(item.alias, item.factor)
        except Mistake as mistake:
            self.report.add(mistake)
            self.names.lost.add(item.name.id)
            return
        except Silent:
            self.names.lost.add(item.name.id)
            return
        dim = Dim(item.name.id, alias, item.name.span, times)
        if self.names.declare(item.name, "dimension", size=dim.size):
            self.found.dims.append(dim)

    def _multiple(self, alias: ast.Ident, factor: ast.Number | ast.Ident | None) -> tuple[str, int]:
        """The dimension that has a size of its own, and how many times it (Mistake or Silent if there is none)."""
        times = 1 if factor is None else self._factor(factor)
        other = self.names.find(alias.id, alias.span, self.names.order)
        if other.kind != "dimension" or other.size is None:
            message = f"a second name is given to a dimension, and `{other.name}` is {other.described}"
            if factor is not None:
                message = f"a size is a multiple of a dimension, and `{other.name}` is {other.described}"
            raise Mistake("E0206", message, alias.span, labels=(Label(other.span, "declared here"),))
        ((root, inner),) = other.size.terms
        return root, inner * times

    def _factor(self, factor: ast.Number | ast.Ident) -> int:
        """A whole number, at least 1, written or a const (Mistake or Silent if it is none)."""
        labels: tuple[Label, ...] = ()
        if isinstance(factor, ast.Number):
            number = factor.value
        else:
            const = self.names.find(factor.id, factor.span, self.names.order)
            labels = (Label(const.span, "declared here"),)
            if const.number is None:
                message = f"a factor is a whole number or a const, and `{const.name}` is {const.described}"
                raise Mistake("E0206", message, factor.span, labels=labels)
            number = const.number
        if number < 1 or number != int(min(number, 2**53)):
            message = f"a size is a whole multiple of another one, and the factor is {number:g}"
            helps = ("name the smaller of the two sizes first: `dims M, N = 2 * M`",) if 0 < number < 1 else ()
            raise Mistake("E0224", message, factor.span, "", *helps, labels=labels)
        return int(number)

    def _const(self, item: ast.Const) -> None:
        self.e.before = self.names.order
        try:
            value = self.e.constant(item.value, f"the const `{item.name.id}`")
        except Mistake as mistake:
            self.report.add(mistake)
            self.names.lost.add(item.name.id)
            return
        except Silent:
            self.names.lost.add(item.name.id)
            return
        value = float(self.consts.get(item.name.id, value))
        exact = value.is_integer() and abs(value) < 2**53
        if self.names.declare(item.name, "const", number=value, size=Size(int(value)) if exact else None):
            self.found.consts.append((item.name.id, value))

    def _axes(self, name: ast.Ident, axes: tuple[ast.Ident, ...]) -> Axes | None:
        found = self.names.axes(axes, self.names.order)
        if found is None and name.id not in self.names.symbols:
            self.names.lost.add(name.id)
        return found

    def _state(self, item: ast.StateItem) -> None:
        axes = self._axes(item.name, item.axes)
        e, start = self.e, None
        e.before = self.names.order
        if item.start is None:
            start = e.b.const(0.0)
        else:
            with e.standing(reads=frozenset({"const", "dimension"}), purpose=f"the start of `{item.name.id}`"):
                value = e.entries(item.start)
            if not isinstance(value, Poison):
                start = value
        if axes is None:
            return
        if self.names.declare(item.name, "state", axes=axes):
            self.found.states.append((item, axes))
            if start is not None:
                self.found.starts[item.name.id] = start

    def _input(self, item: ast.InputItem) -> None:
        axes = self._axes(item.name, item.axes)
        self.e.before = self.names.order
        promised = self.interval(item.range)
        if axes is None:
            return
        if item.unit and not axes:
            message = f"`{item.name.id}` is a scalar, and `unit` promises that a vector has length 1"
            self.report.add(
                Mistake("E0303", message, item.span, "", f"give it an axis, or write `{item.name.id} in [0, 1]`")
            )
        if self.names.declare(item.name, "input", axes=axes):
            self.found.inputs.append(Input(item.name.id, axes, promised or EVERYTHING, item.unit, item.span))

    def _param(self, item: ast.ParamItem) -> None:
        axes = self._axes(item.name, item.axes)
        self.e.before = self.names.order
        init: Initialiser | None = Initialiser()
        try:
            init = initialiser(self.e, item, axes)
        except Mistake as mistake:
            self.report.add(mistake)
        except Silent:
            pass
        if axes is None:
            return
        if self.names.declare(item.name, "param", axes=axes):
            self.found.params.append(Param(item.name.id, axes, init or Initialiser(), item.frozen, item.span))

    # ------------------------------------------------------------ ranges

    def interval(self, written: ast.Range | None) -> Interval | None:
        """A declared range; None, with a message unless there is none, if it is not one."""
        if written is None:
            return None
        bounds: list[float] = []
        for expr in (written.low, written.high):
            try:
                bounds.append(self.e.constant(expr, "the bound of a range"))
            except Mistake as mistake:
                self.report.add(mistake)
            except Silent:
                pass
        if len(bounds) < 2:
            return None
        low, high = bounds
        shown = Interval(low, high, written.low_open, written.high_open)
        if (
            low > high
            or (low == high and (written.low_open or written.high_open))
            or low == math.inf
            or high == -math.inf
        ):
            helps = [f"write `in {Interval(high, low, written.low_open, written.high_open)}`"] if low > high else []
            self.report.add(Mistake("E0302", f"no number is in {shown}", written.span, "", *helps))
            return None
        return shown
