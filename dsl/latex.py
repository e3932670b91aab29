"""A recurrence as LaTeX, in the author's order: new state ``S_t``, old state ``S_{t-1}``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import ast

_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split()
)
_FUNCTIONS = {"sigmoid": r"\sigma", "sum": r"\textstyle\sum", "l2norm": r"\operatorname{\ell_2norm}"}
_NATIVE = frozenset("exp log tanh sin cos max min".split())
_COMPARE = {"<": "<", "<=": r"\le", ">": ">", ">=": r"\ge", "==": "=", "!=": r"\ne"}
_ADD, _NEG, _MUL, _POWER, _ATOM = range(1, 6)  # how tightly a printed expression binds


def latex(tree: ast.Recurrence) -> str:
    """The gates, lets, transitions and outputs of a recurrence, as a display of aligned equations."""
    rows = " \\\\\n".join(_Printer(tree).rows())
    return f"$$\n\\begin{{aligned}}\n{rows}\n\\end{{aligned}}\n$$"


class _Printer:
    def __init__(self, tree: ast.Recurrence) -> None:
        self.tree = tree
        self.states: set[str] = set()
        self.timed: set[str] = set()
        for statement in tree.statements:
            match statement:
                case ast.State(items=items):
                    self.states |= {item.name.id for item in items}
                case ast.Input(items=items):
                    self.timed |= {item.name.id for item in items}
                case ast.Gate(name=name) | ast.Let(name=name) | ast.Output(name=name):
                    self.timed.add(name.id)
                case _:
                    pass

    def rows(self) -> Iterator[str]:
        for statement in self.tree.statements:
            match statement:
                case ast.Gate(name=name, value=value) | ast.Let(name=name, value=value):
                    yield self._row(name.id, "=", value)
                case ast.Output(name=name, value=value):
                    yield self._row(name.id, "=", value)
                case ast.Transition(body=body, block=block):
                    yield from self._block(body, r"\leftarrow" if block else "=", "")
                case _:
                    pass

    def _block(self, body: tuple[ast.Assign | ast.Let | ast.Repeat, ...], sign: str, condition: str) -> Iterator[str]:
        for item in body:
            match item:
                case ast.Assign(name=name, value=value):
                    yield f"{self._name(name.id, True)} &{sign} {self.show(value)}{condition}"
                case ast.Let(name=name, value=value):
                    self.timed.add(name.id)
                    yield self._row(name.id, "=", value) + condition
                case ast.Repeat(variable=variable, bound=bound, body=inner):
                    new = rf"{condition}, \quad {_word(variable.id)} = 0, \dots, {self.show(bound)} - 1"
                    yield from self._block(inner, sign, new)

    def _row(self, name: str, sign: str, value: ast.Expr) -> str:
        return f"{self._name(name, False)} &{sign} {self.show(value)}"

    def _name(self, name: str, primed: bool, more: str = "") -> str:
        time = "t" if primed else "t-1" if name in self.states else "t" if name in self.timed else ""
        marks = ", ".join(mark for mark in (time, more) if mark)
        return _word(name, marks)

    def show(self, expr: ast.Expr, least: int = 0) -> str:
        text, binds = self._print(expr)
        return text if binds >= least else rf"\left({text}\right)"

    def _print(self, expr: ast.Expr) -> tuple[str, int]:
        match expr:
            case ast.Number(text=text):
                return (r"\infty" if text == "inf" else text), _ATOM
            case ast.Name(id=name, primed=primed):
                return self._name(name, primed), _ATOM
            case ast.Unary(operand=operand):
                return f"-{self.show(operand, _MUL)}", _NEG
            case ast.Binary(op=op, left=left, right=right):
                return self._binary(op, left, right)
            case ast.Call(function=function, args=args):
                return self._call(function, args)
            case ast.Index(value=ast.Name(id=name, primed=primed), index=index):
                return self._name(name, primed, self.show(index)), _ATOM
            case ast.Index(value=value, index=index):
                return f"{self.show(value, _ATOM)}_{{{self.show(index)}}}", _ATOM
            case ast.Slice(value=value, start=start, stop=stop):
                bounds = ":".join("" if bound is None else self.show(bound) for bound in (start, stop))
                return rf"{self.show(value, _ATOM)}_{{[{bounds}]}}", _ATOM
            case ast.Transpose(value=value):
                return rf"{self.show(value, _ATOM)}^\top", _POWER

    def _binary(self, op: str, left: ast.Expr, right: ast.Expr) -> tuple[str, int]:
        match op:
            case "+" | "-":
                return f"{self.show(left, _ADD)} {op} {self.show(right, _MUL)}", _ADD
            case "*" | "@":
                join = r" \odot " if op == "*" and _plain(left) and _plain(right) else r" \, "
                return f"{self.show(left, _NEG)}{join}{self.show(right, _MUL)}", _MUL
            case "/":
                return rf"\frac{{{self.show(left)}}}{{{self.show(right)}}}", _ATOM
            case "^":
                return f"{self.show(left, _ATOM)}^{{{self.show(right)}}}", _POWER
            case _:
                return f"{self.show(left, _ADD)} {_COMPARE[op]} {self.show(right, _ADD)}", 0

    def _call(self, function: str, args: tuple[ast.Expr, ...]) -> tuple[str, int]:
        shown = [self.show(arg) for arg in args]
        match function, args:
            case "outer", (u, w):
                return rf"{self.show(u, _ATOM)} \, {self.show(w, _ATOM)}^\top", _MUL
            case "householder", (k, beta):
                key = self.show(k, _ATOM)
                return rf"\left(I - {self.show(beta, _MUL)} \, {key} \, {key}^\top\right)", _ATOM
            case "eye", _:
                return "I", _ATOM
            case "sqrt", (_,):
                return rf"\sqrt{{{shown[0]}}}", _ATOM
            case "square", (x,):
                return f"{self.show(x, _ATOM)}^2", _POWER
            case "abs", (_,):
                return rf"\left|{shown[0]}\right|", _ATOM
            case "norm", (_,):
                return rf"\left\lVert {shown[0]} \right\rVert", _ATOM
            case "where", (_, _, _):
                cases = rf"{shown[1]} & {shown[0]} \\ {shown[2]} & \text{{otherwise}}"
                return rf"\begin{{cases}} {cases} \end{{cases}}", _ATOM
        head = _FUNCTIONS.get(function)
        if head is None:
            safe = function.replace("_", r"\_")
            head = rf"\{function}" if function in _NATIVE else rf"\operatorname{{{safe}}}"
        return rf"{head}\left({', '.join(shown)}\right)", _ATOM


def _plain(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.Name | ast.Index | ast.Slice)


def _word(name: str, marks: str = "") -> str:
    """A name with subscripts: ``A_log`` becomes A with a roman log below, greek letters are set as such."""
    head, _, rest = name.partition("_")
    digits = re.fullmatch(r"([A-Za-z]+)(\d+)", head)
    below = [digits[2]] if digits else []
    head = digits[1] if digits else head
    if rest:
        safe = rest.replace("_", r"\_")
        below.append(rest if len(rest) == 1 else rf"\mathrm{{{safe}}}")
    below += [marks] if marks else []
    if head in _GREEK:
        head = "\\" + head
    elif len(head) > 1:
        head = rf"\mathrm{{{head}}}"
    return f"{head or name}_{{{', '.join(below)}}}" if below else (head or name)
