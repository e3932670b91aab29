"""Messages about shapes: what was found with its axes, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.source import Span
from ..ir.types import Axes, Axis, show_axes
from .names import Symbol
from .report import Mistake, did_you_mean
from .shapes import Misaligned
from .values import Matrix

if TYPE_CHECKING:
    from .expressions import Expressions

RENAME = "rename the axis, or contract it with `@`"


def misaligned(
    e: Expressions, word: str, span: Span, pair: Sequence[tuple[ast.Expr, Axes]], clash: Misaligned
) -> Mistake:
    """Two operands of an element-wise operation whose axes do not match by name."""
    (left, left_axes), (right, right_axes) = pair
    labels = [Label(left.span, show_axes(left_axes))]
    notes = [note for expr, axes in pair for note in _declared(e, expr, axes, pair)]
    if clash.twice:
        small, big = sorted(pair, key=lambda item: len(item[1]))
        helps = ["give one of the two axes another name: `dims K, U = K`"]
        if len(small[1]) == 1 and len(big[1]) == 2:
            vector, matrix = e.text(small[0].span), e.text(big[0].span)
            helps = [f"`diag({vector}) @ {matrix}` scales its rows, `{matrix} @ diag({vector})` its columns"]
        message = f"`{word}` cannot tell which of two axes `{clash.axis}` is meant"
        return Mistake("E0208", message, right.span, show_axes(right_axes), *helps, labels=labels, notes=notes)
    helps = [RENAME]
    vectors = len(left_axes) == len(right_axes) == 1
    if {axis.size for axis in left_axes} == {axis.size for axis in right_axes}:
        notes.append("axes of one size with two names are different axes")
    elif vectors and all(isinstance(expr, ast.Name) for expr in (left, right)):
        call = f"outer({e.text(left.span)}, {e.text(right.span)})"
        helps = [f"write `{call}` for the matrix {show_axes((*left_axes, *right_axes))} of all products"]
    message = f"`{word}` needs operands that align by axis name"
    return Mistake("E0207", message, right.span, show_axes(right_axes), *helps, labels=labels, notes=notes)


def _declared(e: Expressions, expr: ast.Expr, axes: Axes, pair: Sequence[tuple[ast.Expr, Axes]]) -> Iterator[str]:
    """Where the axes that do not match come from, if the operand does not say so itself."""
    others = {axis.name for other, found in pair if other is not expr for axis in found}
    lost = {axis.name for axis in axes} - others
    for symbol in _named(e, expr):
        if symbol.axes and symbol.axes != axes and lost & {axis.name for axis in symbol.axes}:
            yield f"`{symbol.name}` is declared {show_axes(symbol.axes)} on line {e.report.line(symbol.span)}"
            return


def _named(e: Expressions, expr: ast.Expr) -> Iterator[Symbol]:
    for name in ast_names(expr):
        symbol = e.names.symbols.get(name.id)
        if symbol is not None and name.id not in e.locals:
            yield symbol


def ast_names(expr: ast.Expr) -> Iterator[ast.Name]:
    """All names that an expression uses, in the order of the text."""
    match expr:
        case ast.Name():
            yield expr
        case ast.Unary(operand=inner) | ast.Transpose(value=inner):
            yield from ast_names(inner)
        case ast.Binary(left=left, right=right):
            yield from ast_names(left)
            yield from ast_names(right)
        case ast.Call(args=args):
            for arg in args:
                yield from ast_names(arg)
        case ast.Index(value=value, index=index):
            yield from ast_names(value)
            yield from ast_names(index)
        case ast.Slice(value=value, start=start, stop=stop):
            for part in (value, start, stop):
                if part is not None:
                    yield from ast_names(part)


def not_contracted(e: Expressions, expr: ast.Binary, left: Axes, right: Axes) -> Mistake:
    """`@` between axes of different sizes."""
    helps = []
    x, y = e.text(expr.left.span), e.text(expr.right.span)
    if len(left) == len(right) == 1:
        helps.append(f"write `outer({x}, {y})` for the matrix {show_axes((*left, *right))}")
    elif left[0].size == right[-1].size:
        helps.append(f"swap the two: `{y} @ {x}`")
    elif left[0].size == right[0].size and len(left) == 2:
        helps.append(f"transpose the left: `{expr_text(x)}.T @ {y}`")
    elif left[-1].size == right[-1].size and len(right) == 2:
        helps.append(f"transpose the right: `{x} @ {expr_text(y)}.T`")
    inner = f"`{left[-1]}` is not `{right[0]}`"
    message = f"`@` contracts the last axis of the left with the first of the right, and {inner}"
    labels = [Label(expr.left.span, show_axes(left))]
    return Mistake("E0210", message, expr.right.span, show_axes(right), *helps, labels=labels)


def expr_text(text: str) -> str:
    """An operand as it must be written before ``.T``."""
    return text if text.replace("'", "").isidentifier() else f"({text})"


def no_entries(e: Expressions, matrix: Matrix, expr: ast.Expr) -> Mistake:
    """A matrix with a diagonal part where its entries are needed."""
    axes = e.axes(matrix)
    return Mistake(
        "E0215",
        "the entries of this structured matrix are not written down",
        expr.span,
        show_axes(axes),
        "apply it with `@`, as in `diag(a) @ S`; scaling a vector or matrix element by element needs no `diag`",
        f"for an identity with entries declare `param I{show_axes(axes)} init identity frozen`",
        notes=("`eye`, `diag`, `householder` and `rotation` are applied, so that no square matrix is built",),
    )


def not_as_declared(what: str, declared: Axes, found: Axes, place: Span, value: Span) -> Mistake:
    """A value whose axes are not those of the name that it is bound to."""
    names = {axis.name for axis in found}
    missing = [axis for axis in declared if axis.name not in names]
    extra = [axis for axis in found if axis.name not in {a.name for a in declared}]
    helps = []
    if missing and not extra and len(found) == 1 and len(declared) == 2:
        helps.append(f"`outer` makes a matrix of two vectors; nothing is repeated along `{missing[0]}` silently")
    elif extra and not missing:
        helps.append(f"reduce `{extra[0]}`, as in `sum(x, {extra[0]})`, or contract it with `@`")
    one = f"with axes {show_axes(declared)}" if declared else "as a scalar"
    message = f"{what} is declared {one}, and this is {show_axes(found) if found else 'a scalar'}"
    return Mistake("E0209", message, value, show_axes(found), *helps,
                   labels=[Label(place, show_axes(declared))])  # fmt: skip


def outside(e: Expressions, span: Span, axis: Axis, value: ast.Expr) -> Mistake:
    """An index or bound beyond the end of an axis."""
    size = axis.size.known
    entries = f"{axis.size}" if size is None else str(size)
    message = f"`{e.text(value.span)}` has {entries} entries along `{axis}`"
    return Mistake("E0214", message, span, "outside of it", notes=("the first entry is number 0",))


def unknown_function(expr: ast.Call, own: Sequence[str]) -> Mistake:
    """A call of something that is no function."""
    from .functions import FUNCTIONS, HABITS

    name = expr.function
    helps = (HABITS[name],) if name in HABITS else did_you_mean(name, [*own, *FUNCTIONS])
    return Mistake("E0204", f"there is no function `{name}`", expr.function_span, "", *helps)


def check_count(call: ast.Call, least: int, most: int, signature: str) -> None:
    """Mistake unless a call has the right number of arguments."""
    count = len(call.args)
    if least <= count <= most:
        return
    wanted = str(least) if least == most else f"{least} or {most}" if most == least + 1 else f"{least} or more"
    plural = "" if wanted == "1" else "s"
    message = f"`{call.function}` takes {wanted} argument{plural}, not {count}"
    raise Mistake("E0205", message, call.span, "", f"write `{signature}`")
