"""Expressions to values: names looked up, operands aligned, matrices applied, constants folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.source import Span
from ..ir.builder import Builder
from ..ir.ops import OPS
from ..ir.program import depends_on
from ..ir.size import Size
from ..ir.types import Axes, Axis
from . import clashes, matrices
from .folding import NoValue, fold, number, size_of
from .functions import FUNCTIONS
from .names import Names, Symbol
from .powers import power
from .report import Mistake, Report, Silent, did_you_mean
from .shapes import Misaligned, align, axis_of, matmul
from .values import POISON, Dense, Matrix, Poison, Value, columns, has_entries, ir_values, rows

MAX_DEPTH = 200
"""Levels of an expression, functions written out: Python's own stack is finite."""

MAX_CALLS = 20_000
"""Calls of the user's functions in one file, functions that call functions written out."""

EVERYTHING_READABLE = frozenset({"dimension", "const", "state", "input", "param", "gate", "let"})
OPERATIONS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
COMPARISONS = {"<": "lt", "<=": "le", ">": "lt", ">=": "le", "==": "eq", "!=": "ne"}


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
        self._depth = 0
        self._calls = 0

    # ------------------------------------------------------------ entry points

    def value(self, expr: ast.Expr) -> Value:
        """The value of an expression; POISON, with a message, if it is erroneous."""
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise Mistake("E0118", f"with its functions written out this has more than {MAX_DEPTH} levels", expr.span,
                              "", "name parts of it with `let`")  # fmt: skip
            return self._value(expr)
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
            helps = "add and subtract integers, consts and dimensions, such as `M - 1`"
            raise Mistake("E0213", f"{purpose} is an integer that is known while compiling", expr.span, "", helps)
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
        flags = depends_on(tuple(self.b.body), ("state",))
        return any(flags[position] for position in ir_values(value))

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
                return self._primed(expr) if expr.primed else self._name(expr)
            case ast.Unary(operand=operand):
                return self._negative(expr, self.value(operand))
            case ast.Binary(left=left, right=right):
                return self._binary(expr, self.value(left), self.value(right))
            case ast.Call():
                return self._call(expr)
            case ast.Index(value=value):
                return self._index(expr, self.value(value))
            case ast.Slice(value=value):
                return self._slice(expr, self.value(value))
            case ast.Transpose(value=value):
                return self._transpose(expr, self.value(value))

    def _name(self, expr: ast.Name) -> Value:
        if expr.id in self.locals:
            value = self.locals[expr.id]
            if isinstance(value, Poison):
                raise Silent
            self._check_gate(expr, value)
            return value
        if expr.id not in self.names.symbols and expr.id not in self.names.lost:
            if expr.id in FUNCTIONS:
                message = f"`{expr.id}` is a function"
                raise Mistake("E0206", message, expr.span, "", f"call it: `{FUNCTIONS[expr.id].signature}`")
            if expr.id == "head":
                self.names.lost.add("head")
                message = "`head` is the index of the head where a param is initialised, and nothing elsewhere"
                raise Mistake("E0201", message, expr.span)
        symbol = self.names.find(expr.id, expr.span, self.before, self.locals)
        return self._symbol(expr, symbol)

    def _symbol(self, expr: ast.Name, symbol: Symbol) -> Value:
        if symbol.kind == "function":
            raise Mistake("E0206", f"`{symbol.name}` is a function", expr.span, "", "call it")
        if symbol.kind == "output":
            raise Mistake("E0206", f"`{symbol.name}` is an output, which is not read back", expr.span, "",
                          "name the value with `let` and put that out")  # fmt: skip
        if symbol.kind not in self.reads:
            raise Mistake(
                "E0213", f"{self.purpose} cannot read `{symbol.name}`, which is {symbol.described}", expr.span
            )
        self.b.span = expr.span
        if symbol.kind == "dimension":
            assert symbol.size is not None
            return self.b.size(symbol.size)
        if symbol.kind == "const":
            assert symbol.number is not None
            return self.b.const(symbol.number)
        if symbol.kind in ("state", "input", "param"):
            self.b.span = symbol.span
            value: Value = self.b.leaf(symbol.kind, symbol.name, symbol.axes)
        else:
            value = self.values.get(symbol.name, POISON)
            if isinstance(value, Poison):
                raise Silent
        self._check_gate(expr, value)
        return value

    def _primed(self, expr: ast.Name) -> Value:
        shown = f"{expr.id}'"
        if {expr.id, shown} & self.names.lost:
            raise Silent
        if expr.id not in self.names.symbols:
            self.names.lost.add(expr.id)
            states = [s.name for s in self.names.symbols.values() if s.kind == "state"]
            raise Mistake("E0201", f"`{shown}` is not declared", expr.span, "", *did_you_mean(expr.id, states))
        symbol = self.names.find(expr.id, expr.span, self.before)
        if symbol.kind != "state":
            raise Mistake("E0219", f"only states have a value after the step, and `{expr.id}` is {symbol.described}",
                          expr.span, "", f"write `{expr.id}`", labels=(Label(symbol.span, "declared here"),))  # fmt: skip
        if "state" not in self.reads:
            raise Mistake("E0213", f"{self.purpose} cannot read `{shown}`, which is a state", expr.span)
        if expr.id in self.current:
            now = self.current[expr.id]
            if now is None:
                raise Mistake("E0405", f"`{shown}` is read before this block assigns it", expr.span, "",
                              f"move the assignment of `{shown}` up, or read `{expr.id}`, the state before the step")  # fmt: skip
            value = now
        else:
            value = self.nexts.get(expr.id, POISON)
        if isinstance(value, Poison):
            raise Silent
        self._check_gate(expr, value)
        return value

    def _check_gate(self, expr: ast.Name, value: Value) -> None:
        if self.gate is not None and self.of_state(value):
            shown = expr.id + ("'" if expr.primed else "")
            raise Mistake("E0406", f"the gate `{self.gate}` reads the state", expr.span, f"`{shown}` depends on the state",
                          "a gate steers the step from outside: use `let` for what depends on the state")  # fmt: skip

    def _negative(self, expr: ast.Unary, value: Value) -> Value:
        if isinstance(value, Poison):
            raise Silent
        if not isinstance(value, int):
            return matrices.negated(value)
        return self.elementwise("neg", "-", expr.span, [expr.operand], [self.tensor(value, expr.operand)])

    def _binary(self, expr: ast.Binary, left: Value, right: Value) -> Value:
        if isinstance(left, Poison) or isinstance(right, Poison):
            raise Silent
        if expr.op == "@":
            return self._matmul(expr, left, right)
        if expr.op in OPERATIONS:
            structured = self._structured(expr, left, right)
            if structured is not None:
                return structured
        sides = [expr.left, expr.right]
        x, y = self.tensor(left, expr.left), self.tensor(right, expr.right)
        if expr.op in COMPARISONS:
            if expr.op in (">", ">="):
                sides, x, y = sides[::-1], y, x
            self.b.span = expr.span
            return self.b.apply(COMPARISONS[expr.op], *self.aligned(expr.op, expr.op_span, sides, [x, y]))
        self.b.span = expr.span
        if expr.op == "^":
            folded = self.folded("pow", expr.span, x, y)
            return power(self.b, *self.aligned("^", expr.op_span, sides, [x, y])) if folded is None else folded
        op = OPERATIONS[expr.op]
        folded = self.folded(op, expr.span, x, y)
        if folded is not None:
            return folded
        if op == "div" and number(self.b, y) == 0:
            raise Mistake("E0216", "this cannot be computed: it divides by zero", expr.span)
        x, y = self.aligned(expr.op, expr.op_span, sides, [x, y])
        self.b.span = expr.span
        return {"add": self.b.add, "sub": self.b.sub, "mul": self.b.mul, "div": self.b.div}[op](x, y)

    def _structured(self, expr: ast.Binary, left: Value, right: Value) -> Matrix | None:
        """The result as a structured matrix, if it is one."""
        scalar_left, scalar_right = (isinstance(v, int) and not self.axes(v) for v in (left, right))
        match expr.op, left, right:
            case "*", int(), matrix if scalar_left and not isinstance(matrix, int | Poison):
                return matrices.scaled(self.tensor(left, expr.left), matrix)
            case (("*" | "/"), matrix, int()) if scalar_right and not isinstance(matrix, int | Poison):
                return matrices.scaled(self.tensor(right, expr.right), matrix, expr.op == "/")
            case (("+" | "-"), _, _):
                return self._sum(expr, left, right)
        return None

    def _sum(self, expr: ast.Binary, left: Value, right: Value) -> Matrix | None:
        if isinstance(left, Poison) or isinstance(right, Poison) or (isinstance(left, int) and isinstance(right, int)):
            return None
        terms: list[Matrix] = []
        for mine, other in ((left, right), (right, left)):
            if isinstance(mine, int):
                if not isinstance(other, int) and has_entries(other):
                    return None
                axes = self.axes(mine)
                if len(axes) != 2:
                    return None
                mine = Dense(self._numeric(mine), *axes)
            terms.append(mine)
        first, second = ((rows(term), columns(term)) for term in terms)
        if first != second:
            pair = [(expr.left, first), (expr.right, second)]
            missing = next(axis for axis, other in zip(second, first, strict=True) if axis != other)
            raise clashes.misaligned(self, expr.op, expr.op_span, pair, Misaligned(0, 1, missing, False))
        return matrices.added(*terms, 1 if expr.op == "+" else -1)

    def _matmul(self, expr: ast.Binary, left: Value, right: Value) -> Value:
        """``left @ right`` of tensors and matrices; the sizes of the inner axes must be equal."""
        assert not isinstance(left, Poison) and not isinstance(right, Poison)
        inner: list[Axis] = []
        for side, value, place in ((expr.left, left, -1), (expr.right, right, 0)):
            axes = self.axes(value)
            if not axes:
                raise Mistake("E0210", "`@` contracts an axis, and a scalar has none", side.span, "scalar",
                              "multiply with `*`")  # fmt: skip
            inner.append(axes[place])
        if inner[0].size != inner[1].size:
            raise clashes.not_contracted(self, expr, self.axes(left), self.axes(right))
        if isinstance(left, int):
            left = self.tensor(left, expr.left)
        if isinstance(right, int):
            right = self.tensor(right, expr.right)
        self.b.span = expr.span
        if isinstance(left, int):
            return matmul(self.b, left, right) if isinstance(right, int) else matrices.apply_right(self.b, left, right)
        if isinstance(right, int):
            return matrices.apply(self.b, left, right)
        return matrices.multiplied(self.b, left, right)

    def _call(self, expr: ast.Call) -> Value:
        function = FUNCTIONS.get(expr.function)
        if function is not None:
            return function.call(self, expr)
        symbol = self._called(expr)
        assert symbol.function is not None
        args = [self.value(arg) for arg in expr.args]
        clashes.check_count(expr, len(symbol.function.parameters), len(symbol.function.parameters), self.text(
            Span(symbol.span.start, symbol.function.body.span.start)).rstrip(" ="))  # fmt: skip
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise Mistake("E0118", f"this file calls its functions more than {MAX_CALLS} times", expr.span)
        bound = {ident.id: value for ident, value in zip(symbol.function.parameters, args, strict=True)}
        with self.standing(locals=bound, before=symbol.order):
            value = self.value(symbol.function.body)
        if isinstance(value, Poison):
            raise Silent
        return value

    def _called(self, expr: ast.Call) -> Symbol:
        """The user's function that a call means."""
        name = expr.function
        if name not in self.names.symbols and name not in self.names.lost:
            self.names.lost.add(name)
            own = [s.name for s in self.names.symbols.values() if s.kind == "function"]
            raise clashes.unknown_function(expr, own)
        symbol = self.names.find(name, expr.function_span, self.before)
        if symbol.kind != "function":
            helps = (f"multiply with `*`: `{name} * (...)`",) if len(expr.args) == 1 else ()
            raise Mistake("E0204", f"`{name}` is {symbol.described}, not a function", expr.function_span, "", *helps,
                          labels=(Label(symbol.span, "declared here"),))  # fmt: skip
        return symbol

    # ------------------------------------------------------------ parts of a value

    def _index(self, expr: ast.Index, value: Value) -> Value:
        tensor = self._with_axes(expr.value, value)
        at = self.size(expr.index, "an index")
        axis = self.b.axes(tensor)[0]
        if at.known is not None and at.known < 0:
            at = axis.size + at
        rest = axis.size - at
        if (rest.known is not None and rest.known <= 0) or (at.known is not None and at.known < 0):
            raise clashes.outside(self, expr.index.span, axis, expr.value)
        self.b.span = expr.span
        if at.known is None:
            tensor = self._cut(tensor, at, at + Size(1))
            at = Size(0)
        assert at.known is not None
        return self.b.emit("index", (tensor,), (0, at.known), self.b.axes(tensor)[1:])

    def _slice(self, expr: ast.Slice, value: Value) -> Value:
        tensor = self._with_axes(expr.value, value)
        axis = self.b.axes(tensor)[0]
        bounds = [Size(0), axis.size]
        for place, written in enumerate((expr.start, expr.stop)):
            if written is not None:
                bound = self.size(written, "the bound of a slice")
                bounds[place] = axis.size + bound if bound.known is not None and bound.known < 0 else bound
        start, stop = bounds
        for written, gap in ((expr.start, start), (expr.stop, axis.size - stop)):
            if written is not None and gap.known is not None and gap.known < 0:
                raise clashes.outside(self, written.span, axis, expr.value)
        length = (stop - start).known
        if length is not None and length < 1:
            raise Mistake("E0214", "this slice is empty", expr.span, "", "the first bound is in it, the second is not")
        self.b.span = expr.span
        return self._cut(tensor, start, stop)

    def _cut(self, tensor: int, start: Size, stop: Size) -> int:
        axes = self.b.axes(tensor)
        if stop - start == axes[0].size:
            return tensor
        return self.b.emit("slice", (tensor,), (0, start, stop), (axis_of(stop - start), *axes[1:]))

    def _with_axes(self, expr: ast.Expr, value: Value) -> int:
        tensor = self.tensor(value, expr)
        if not self.b.axes(tensor):
            raise Mistake("E0211", "a scalar has no entries to choose from", expr.span, "scalar")
        return tensor

    def _transpose(self, expr: ast.Transpose, value: Value) -> Value:
        if isinstance(value, Poison):
            raise Silent
        if not isinstance(value, int):
            self.b.span = expr.span
            return matrices.transposed(self.b, value)
        tensor = self.tensor(value, expr.value)
        axes = self.b.axes(tensor)
        if len(axes) != 2:
            helps = ("`@` takes a vector on either side without it",) if len(axes) == 1 else ()
            raise Mistake("E0211", "`.T` swaps the axes of a matrix", expr.value.span, clashes.shown(axes), *helps)
        self.b.span = expr.span
        return self.b.broadcast(tensor, axes[::-1], (1, 0))
