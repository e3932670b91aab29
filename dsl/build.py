"""Grammar rules to syntax tree: one method per rule of grammar.lark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lark import Transformer, v_args

from . import ast
from .diagnostics import Diagnostic, Label
from .lexer import Token
from .source import Span

MAX_DEPTH = 100
"""Levels of an expression: the stages that walk one recursively must not run out of stack."""


class Refused(Exception):
    """A statement that the grammar admits and the language does not."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


@dataclass(frozen=True, slots=True)
class Header:
    """The first statement; no name if it could not be read."""

    name: ast.Ident | None
    doc: str


@dataclass(frozen=True, slots=True)
class Axes:
    """``[K, V]`` with its brackets."""

    span: Span
    items: tuple[ast.Ident, ...]


@dataclass(frozen=True, slots=True)
class Init:
    """``init expr``."""

    span: Span
    value: ast.Expr


def _ident(token: Token) -> ast.Ident:
    return ast.Ident(token.span, token.text.removesuffix("'"))


def _items(axes: Axes | None) -> tuple[ast.Ident, ...]:
    return axes.items if axes else ()


def _maybe(axes: Axes | None) -> tuple[ast.Ident, ...] | None:
    return axes.items if axes else None


def _over(*parts: Any) -> Span:
    """From the first part to the last that is there."""
    spans = [part.span for part in parts if part is not None]
    return Span(spans[0].start, spans[-1].end)


def doc_text(written: str) -> str:
    """A docstring without its quotes, the indentation of its further lines and outer blanks."""
    lines = written[3:-3].replace("\r\n", "\n").split("\n")
    margins = [len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()]
    margin = min(margins, default=0)
    return "\n".join([lines[0].strip(), *(line[margin:].rstrip() for line in lines[1:])]).strip()


@v_args(inline=True)
class Builder(Transformer):
    """Makes the nodes of ast.py while the parser reduces rules; a broken statement becomes None."""

    # ------------------------------------------------------------ file

    def start(self, header: Header, *statements: ast.Statement | None) -> tuple[Header, tuple[ast.Statement, ...]]:
        return header, tuple(s for s in statements if s is not None)

    def header(self, line: Header, doc: Token | None) -> Header:
        return replace(line, doc=doc_text(doc.text)) if doc else line

    def header_line(self, first: Token, name: Token | None = None, doc: Token | None = None) -> Header:
        return Header(_ident(name) if name else None, doc_text(doc.text) if doc else "")

    def broken(self, _token: Token) -> None:
        return None

    # ------------------------------------------------------------ declarations

    def dims(self, keyword: Token, *items: ast.Dim) -> ast.Dims:
        return ast.Dims(_over(keyword, *items), items)

    def dim(self, name: Token, factor: ast.Number | ast.Ident | None, alias: Token | None) -> ast.Dim:
        return ast.Dim(_over(name, alias), _ident(name), _ident(alias) if alias else None, factor)

    def factor(self, factor: Token, _star: Token) -> ast.Number | ast.Ident:
        return self.number(factor) if factor.type == "NUMBER" else _ident(factor)

    def const(self, keyword: Token, name: Token, value: ast.Expr) -> ast.Const:
        return ast.Const(_over(keyword, value), _ident(name), _shallow(value))

    def state(self, keyword: Token, *items: ast.StateItem) -> ast.State:
        return ast.State(_over(keyword, *items), items)

    def state_item(self, name: Token, axes: Axes | None, start: ast.Expr | None) -> ast.StateItem:
        value = _shallow(start) if start is not None else None
        return ast.StateItem(_over(name, axes, start), _ident(name), _items(axes), value)

    def input(self, keyword: Token, *items: ast.InputItem) -> ast.Input:
        return ast.Input(_over(keyword, *items), items)

    def input_item(self, name: Token, axes: Axes | None, *properties: ast.Range | Token) -> ast.InputItem:
        _refuse_doubles(("in" if isinstance(p, ast.Range) else "unit", p.span) for p in properties)
        promised = next((p for p in properties if isinstance(p, ast.Range)), None)
        unit = any(isinstance(p, Token) for p in properties)
        return ast.InputItem(_over(name, axes, *properties), _ident(name), _items(axes), promised, unit)

    def param(self, keyword: Token, *items: ast.ParamItem) -> ast.Param:
        return ast.Param(_over(keyword, *items), _distribute(items))

    def param_item(self, name: Token, axes: Axes | None, *properties: Init | Token) -> ast.ParamItem:
        _refuse_doubles(("init" if isinstance(p, Init) else "frozen", p.span) for p in properties)
        init = next((p.value for p in properties if isinstance(p, Init)), None)
        frozen = any(isinstance(p, Token) for p in properties)
        return ast.ParamItem(_over(name, axes, *properties), _ident(name), _items(axes), init, frozen)

    def init(self, keyword: Token, value: ast.Expr) -> Init:
        return Init(_over(keyword, value), _shallow(value))

    def define(self, keyword: Token, name: Token, _open: Token, parameters: tuple[ast.Ident, ...] | None,
               _close: Token, body: ast.Expr) -> ast.Def:  # fmt: skip
        return ast.Def(_over(keyword, body), _ident(name), parameters or (), _shallow(body))

    def parameters(self, *names: Token) -> tuple[ast.Ident, ...]:
        return tuple(map(_ident, names))

    def gate(self, keyword: Token, name: Token, axes: Axes | None, declared: ast.Range | None,
             value: ast.Expr) -> ast.Gate:  # fmt: skip
        return ast.Gate(_over(keyword, value), _ident(name), _maybe(axes), declared, _shallow(value))

    def let(self, keyword: Token, name: Token, axes: Axes | None, value: ast.Expr) -> ast.Let:
        return ast.Let(_over(keyword, value), _ident(name), _maybe(axes), _shallow(value))

    def output(self, keyword: Token, name: Token, axes: Axes | None, value: ast.Expr) -> ast.Output:
        return ast.Output(_over(keyword, value), _ident(name), _items(axes), _shallow(value))

    def axes(self, first: Token, *rest: Token) -> Axes:
        return Axes(_over(first, *rest), tuple(map(_ident, rest[:-1])))

    def range(self, keyword: Token, opener: Token, low: ast.Expr, high: ast.Expr, closer: Token) -> ast.Range:
        return ast.Range(_over(keyword, closer), _shallow(low), _shallow(high), opener.text == "(", closer.text == ")")

    # ------------------------------------------------------------ blocks

    def transition(self, keyword: Token, assign: ast.Assign) -> ast.Transition:
        return ast.Transition(_over(keyword, assign), (assign,), block=False)

    def transition_block(self, keyword: Token, *body: Any) -> ast.Transition:
        return ast.Transition(_over(keyword, body[-1]), _kept(body), block=True)

    def assign(self, name: Token, value: ast.Expr) -> ast.Assign:
        return ast.Assign(_over(name, value), _ident(name), _shallow(value))

    def repeat(self, keyword: Token, variable: Token, _less: Token, bound: ast.Expr, *body: Any) -> ast.Repeat:
        return ast.Repeat(_over(keyword, body[-1]), _ident(variable), _shallow(bound), _kept(body))

    def layer(self, keyword: Token, *body: Any) -> ast.Layer:
        return ast.Layer(_over(keyword, body[-1]), _kept(body))

    def layer_assign(self, *parts: Any) -> ast.LayerAssign:
        *names, value = parts
        return ast.LayerAssign(_over(*parts), tuple(map(_ident, names)), _shallow(value))

    # ------------------------------------------------------------ expressions

    def binary(self, left: ast.Expr, op: Token, right: ast.Expr) -> ast.Binary:
        return ast.Binary(_over(left, right), op.text, left, right, op.span)

    def negative(self, op: Token, operand: ast.Expr) -> ast.Unary:
        return ast.Unary(_over(op, operand), "-", operand)

    def positive(self, op: Token, operand: ast.Expr) -> ast.Expr:
        return replace(operand, span=_over(op, operand))

    def index(self, value: ast.Expr, _open: Token, index: ast.Expr, close: Token) -> ast.Index:
        return ast.Index(_over(value, close), value, index)

    def slice(self, value: ast.Expr, _open: Token, start: ast.Expr | None, _colon: Token,
              stop: ast.Expr | None, close: Token) -> ast.Slice:  # fmt: skip
        return ast.Slice(_over(value, close), value, start, stop)

    def transpose(self, value: ast.Expr, token: Token) -> ast.Transpose:
        return ast.Transpose(_over(value, token), value)

    def number(self, token: Token) -> ast.Number:
        return ast.Number(token.span, float(token.text), token.text)

    def name(self, token: Token) -> ast.Name:
        return ast.Name(token.span, token.text.removesuffix("'"), token.type == "PRIMED")

    def call(self, name: Token, _open: Token, args: tuple[ast.Expr, ...] | None, close: Token) -> ast.Call:
        return ast.Call(_over(name, close), name.text, name.span, args or ())

    def args(self, *args: ast.Expr) -> tuple[ast.Expr, ...]:
        return args

    def group(self, opener: Token, inner: ast.Expr, closer: Token) -> ast.Expr:
        return replace(inner, span=_over(opener, closer))


def _children(node: ast.Expr) -> tuple[ast.Expr | None, ...]:
    match node:
        case ast.Unary(operand=operand):
            return (operand,)
        case ast.Binary(left=left, right=right):
            return left, right
        case ast.Call(args=args):
            return args
        case ast.Index(value=value, index=index):
            return value, index
        case ast.Slice(value=value, start=start, stop=stop):
            return value, start, stop
        case ast.Transpose(value=value):
            return (value,)
    return ()


def _shallow(expr: ast.Expr) -> ast.Expr:
    """The expression itself, if it is no deeper than MAX_DEPTH levels."""
    pending: list[tuple[ast.Expr, int]] = [(expr, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise Refused(_too_deep(expr.span))
        pending += [(child, depth + 1) for child in _children(node) if child is not None]
    return expr


def _too_deep(span: Span) -> Diagnostic:
    return Diagnostic(
        "E0118",
        f"this expression has more than {MAX_DEPTH} levels",
        span,
        notes=("every operator, call and index is one level; a sum of n terms has n",),
        helps=("name its parts with `let`",),
    )


def _kept(body: tuple[Any, ...]) -> tuple[Any, ...]:
    """The items of a block that could be read, without its closing brace."""
    return tuple(item for item in body[:-1] if item is not None)


def _distribute(items: tuple[ast.ParamItem, ...]) -> tuple[ast.ParamItem, ...]:
    """Give an item that says nothing of its own the properties of the next item that does."""
    done: list[ast.ParamItem] = []
    init: ast.Expr | None = None
    frozen = False
    for item in reversed(items):
        if item.init is not None or item.frozen:
            init, frozen = item.init, item.frozen
        done.append(replace(item, init=init, frozen=frozen))
    return tuple(reversed(done))


def _refuse_doubles(properties: Any) -> None:
    seen: dict[str, Span] = {}
    for word, span in properties:
        if word in seen:
            first = (Label(seen[word], "first here"),)
            message = f"`{word}` is given twice"
            raise Refused(Diagnostic("E0116", message, span, "again here", first, (), ("keep one of the two",)))
        seen[word] = span
