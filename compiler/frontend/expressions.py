"""Expressions to values: names looked up, operands aligned, matrices applied, constants folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ...dsl import ast
from ...dsl.source import Span
from ..ir.builder import Builder
from ..ir.ops import OPS
from ..ir.size import Size
from ..ir.types import Axes
from . import calls, clashes, lookup, matrices, operators, parts
from .folding import NoValue, fold, number, size_of
from .names import Names
from .report import Mistake, Report, Silent
from .shapes import Misaligned, align
from .values import MAX_PARTS, POISON, Poison, Value, columns, has_entries, ir_values, rows, too_large

MAX_DEPTH = 200
"""Levels of an expression, functions written out: Python's own stack is finite."""

EVERYTHING_READABLE = frozenset({"dimension", "const", "state", "input", "param", "gate", "let"})


class Expressions:
    """Turns expressions into values of one body.

    The attributes below the first line say where the expression stands: ``before`` which names are
    declared there, ``locals`` the parameters of a function, names bound in a block and repeat variables,
    ``reads`` the kinds of names it may read and ``purpose`` why others are refused, ``gate`` the gate it is
    the value of, ``current`` the states of the transition block it is in as far as they are built.
    """

    def __init__(self, report: Report, names: Names) -> None:
        self.report, self.names, self.b = report, names, Builder()
        self.values: dict[str, Value] = {}
        self.nexts: dict[str, Value] = {}
        self.before = 0
        self.locals: Mapping[str, Value] = {}
        self.reads = EVERYTHING_READABLE
        self.purpose = ""
        self.gate: str | None = None
        self.current: Mapping[str, Value | None] = {}
        self.calls = 0
        self.calling: tuple[str, ...] = ()
        self._depth = 0
        self._too_deep = False
        self._of_state: list[bool] = []

    # ------------------------------------------------------------ entry points

    def value(self, expr: ast.Expr) -> Value:
        """The value of an expression; POISON, with a message, if it is erroneous."""
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                if self._too_deep:
                    raise Silent
                self._too_deep = True
                message = f"with its functions written out this has more than {MAX_DEPTH} levels"
                raise Mistake("E0118", message, expr.span, "", "name parts of it with `let`")
            value = self._value(expr)
            if not isinstance(value, int | Poison) and too_large(value):
                raise Mistake("E0118", f"this structured matrix has more than {MAX_PARTS} parts", expr.span)
            return value
        except Mistake as mistake:
            self.report.add(mistake)
        except Silent:
            pass
        finally:
            self._depth -= 1
        return POISON

    def entries(self, expr: ast.Expr) -> int | Poison:
        """The value of an expression as a tensor of numbers: matrices written down, comparisons 0 or 1."""
        value = self.value(expr)
        try:
            return POISON if isinstance(value, Poison) else self.tensor(value, expr)
        except Mistake as mistake:
            self.report.add(mistake)
            return POISON

    def constant(self, expr: ast.Expr, purpose: str) -> float:
        """A number known while compiling (Mistake or Silent if it is none); ``purpose`` names it in messages."""
        with self.standing(reads=frozenset({"const"}), purpose=purpose):
            value = self.value(expr)
        if isinstance(value, Poison):
            raise Silent
        found = number(self.b, value) if isinstance(value, int) else None
        if found is None:
            raise Mistake("E0213", f"{purpose} is a number that is known while compiling", expr.span)
        return found

    def size(self, expr: ast.Expr, purpose: str) -> Size:
        """A size: linear in dimensions, with integers (Mistake or Silent if it is none)."""
        with self.standing(reads=frozenset({"const", "dimension"}), purpose=purpose):
            value = self.value(expr)
        if isinstance(value, Poison):
            raise Silent
        found = size_of(self.b, value) if isinstance(value, int) else None
        if found is None:
            helps = "write a sum of whole numbers, consts and dimensions, such as `M - 1`"
            raise Mistake("E0213", f"{purpose} is a whole number that is known while compiling", expr.span, "", helps)
        return found

    @contextmanager
    def standing(self, **where: object) -> Iterator[None]:
        """Expressions inside stand somewhere else: the attributes named are changed and put back."""
        saved = {name: getattr(self, name) for name in where}
        for name, value in where.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in saved.items():
                setattr(self, name, value)

    # ------------------------------------------------------------ what handlers of functions use

    def tensor(self, value: Value, expr: ast.Expr) -> int:
        """A value as numbers (Mistake for the identity, whose entries cannot be written down)."""
        if isinstance(value, Poison):
            raise Silent
        self.b.span = expr.span
        if isinstance(value, int):
            return self._numeric(value)
        if has_entries(value):
            return matrices.entries(self.b, value)
        raise clashes.no_entries(self, value, expr)

    def _numeric(self, value: int) -> int:
        """A truth value as 1 or 0; others as they are."""
        if OPS[self.b.body[value].op].kind != "compare":
            return value
        return self.b.apply("where", value, self.b.const(1.0), self.b.const(0.0))

    def axes(self, value: Value) -> Axes:
        """The axes of a value that is no mistake."""
        if isinstance(value, int):
            return self.b.axes(value)
        assert not isinstance(value, Poison)
        return rows(value), columns(value)

    def aligned(self, word: str, span: Span, exprs: list[ast.Expr], values: list[int]) -> list[int]:
        """Operands over their common axes; ``word`` names the operation in the message (Mistake)."""
        try:
            return align(self.b, values)
        except Misaligned as clash:
            pair = [(exprs[i], self.b.axes(values[i])) for i in (clash.left, clash.right)]
            raise clashes.misaligned(self, word, span, pair, clash) from None

    def elementwise(self, op: str, word: str, span: Span, exprs: list[ast.Expr], values: list[int]) -> int:
        """An element-wise operation on tensors, folded if they are known numbers (Mistake if they do not align)."""
        self.b.span = span
        folded = self.folded(op, span, *values)
        return self.b.apply(op, *self.aligned(word, span, exprs, values)) if folded is None else folded

    def folded(self, op: str, span: Span, *values: int) -> int | None:
        """A constant operation's result (Mistake if that is no number)."""
        try:
            return fold(self.b, op, *values)
        except NoValue as why:
            raise Mistake("E0216", f"this cannot be computed: {why}", span) from None

    def of_state(self, value: Value) -> bool:
        """Whether a value reads a state."""
        for instr in self.b.body[len(self._of_state) :]:
            leaf = instr.op == "leaf" and instr.attrs[0] == "state"
            self._of_state.append(leaf or any(self._of_state[arg] for arg in instr.args))
        return any(self._of_state[position] for position in ir_values(value))

    def text(self, span: Span) -> str:
        """A short expression as it was written, or ``...``."""
        written = " ".join(self.report.source.text[span.start : span.end].split())
        return written if len(written) <= 24 else "..."

    # ------------------------------------------------------------ forms of expressions

    def _value(self, expr: ast.Expr) -> Value:
        match expr:
            case ast.Number(value=value):
                self.b.span = expr.span
                return self.b.const(value)
            case ast.Name():
                return lookup.primed(self, expr) if expr.primed else lookup.name(self, expr)
            case ast.Unary(operand=operand):
                return operators.negative(self, expr, self.value(operand))
            case ast.Binary(left=left, right=right):
                return operators.binary(self, expr, self.value(left), self.value(right))
            case ast.Call():
                return calls.call(self, expr)
            case ast.Index(value=value):
                return parts.entry(self, expr, self.value(value))
            case ast.Slice(value=value):
                return parts.run(self, expr, self.value(value))
            case ast.Transpose(value=value):
                return parts.transpose(self, expr, self.value(value))
