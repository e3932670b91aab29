"""Numbers of exact expressions: values and gradients to any number of digits.

Expressions share most of their parts, which SymPy's own ``evalf`` and ``diff`` visit again and
again; here each part is visited once. Rational parts stay rational, so ties are seen exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

DIGITS = 60


class Numbers:
    """Evaluates expressions at given values of their symbols, each shared part once."""

    def __init__(self, values: Mapping[Any, Any], digits: int = DIGITS) -> None:
        self._known: dict[Any, Any] = dict(values)
        self._digits = digits
        self._slopes: dict[Any, Any] = {}

    def __call__(self, expression: Any) -> Any:
        """The number that an expression is: a Rational, a Float, an infinity, nan or a truth value."""
        import sympy as sp

        expression = sp.sympify(expression)
        if expression in self._known:
            return self._known[expression]
        if isinstance(expression, sp.Piecewise):
            result = self(self._branch(expression))
        elif not expression.args:
            result = expression if expression.is_Rational else self._rounded(expression)
        else:
            result = self._rounded(expression.func(*(self(arg) for arg in expression.args)))
        self._known[expression] = result
        return result

    def _rounded(self, number: Any) -> Any:
        if getattr(number, "is_Number", True) or number.is_Boolean:
            return number
        return number.evalf(self._digits)

    def _branch(self, piecewise: Any) -> Any:
        """The branch that holds; the others are not looked at, as they may be undefined there."""
        import sympy as sp

        return next((value for value, condition in piecewise.args if self(condition) == sp.true), sp.nan)

    def gradient(self, expression: Any) -> dict[Any, Any]:
        """The derivative by every symbol that matters: SymPy's own for each part, chained backward."""
        import sympy as sp

        slopes: dict[Any, Any] = {expression: sp.Integer(1)}
        result: dict[Any, Any] = {}
        for part in reversed(self._parts(expression)):
            slope = slopes.pop(part, sp.Integer(0))
            if part.is_Symbol:
                result[part] = slope
                continue
            for child, factor in self._local(part):
                slopes[child] = slopes.get(child, sp.Integer(0)) + slope * factor
        return result

    def _parts(self, expression: Any) -> list[Any]:
        """The parts that hold symbols, each after its own parts; of a Piecewise only what holds."""
        order: dict[Any, None] = {}
        stack = [(expression, False)]
        while stack:
            part, done = stack.pop()
            if done:
                order[part] = None
            elif part not in order and part.free_symbols:
                stack.append((part, True))
                stack.extend((child, False) for child in self._children(part))
        return list(order)

    def _children(self, part: Any) -> Iterable[Any]:
        import sympy as sp

        return (self._branch(part),) if isinstance(part, sp.Piecewise) else part.args

    def _local(self, part: Any) -> list[tuple[Any, Any]]:
        """Each child that holds symbols, with the derivative of the part by it."""
        import sympy as sp

        if isinstance(part, (sp.Add, sp.Piecewise)):
            return [(child, sp.Integer(1)) for child in self._children(part) if child.free_symbols]
        key = _pattern(part)
        if key not in self._slopes:
            self._slopes[key] = _slopes(*key)
        names, slopes = self._slopes[key]
        at = {name: self(arg) for name, arg in zip(names, part.args, strict=True) if name.is_Dummy}
        return [(part.args[i], Numbers(at, self._digits)(slope)) for i, slope in slopes]


def _pattern(part: Any) -> tuple[Any, tuple[Any, ...]]:
    """The function of a part and its constants, None for arguments that hold symbols.

    Constants belong to it as the derivative of x**2 is defined at 0, that of x**y is not.
    """
    return part.func, tuple(None if arg.free_symbols else arg for arg in part.args)


def _slopes(function: Any, pattern: tuple[Any, ...]) -> tuple[list[Any], list[tuple[int, Any]]]:
    """Names for a pattern's arguments, and SymPy's derivative by each that is not constant."""
    import sympy as sp

    names = [sp.Dummy(real=True) if arg is None else arg for arg in pattern]
    whole = function(*names)
    return names, [(i, whole.diff(names[i])) for i, arg in enumerate(pattern) if arg is None]


def piecewise(*branches: tuple[Any, Any]) -> Any:
    """The first of (value, condition) whose condition holds; the last condition is True."""
    return _piecewise()(*branches)


@cache
def _piecewise() -> Any:
    """SymPy's Piecewise, less its rewriting: it folds and solves conditions that hold branches
    themselves, which takes minutes for a running maximum, and moves powers into branches."""
    import sympy as sp
    from sympy.functions.elementary.piecewise import ExprCondPair

    class Piecewise(sp.Piecewise):
        def __new__(cls, *branches: tuple[Any, Any], **_: Any) -> Any:
            pairs = []
            for value, condition in branches:
                if sp.sympify(condition) != sp.false:
                    pairs.append(sp.Tuple.__new__(ExprCondPair, sp.sympify(value), sp.sympify(condition)))
                if sp.sympify(condition) == sp.true:
                    break
            return pairs[0].expr if pairs[0].cond == sp.true else sp.Basic.__new__(cls, *pairs)

        def _eval_power(self, exponent: Any) -> None:
            return None

    return Piecewise


def derivative(expression: Any, symbol: Any) -> Any:
    """The exact derivative by one symbol, each shared part once.

    SymPy's own is used for every part but branches: it would try to solve their conditions.
    """
    import sympy as sp

    known: dict[Any, Any] = {symbol: sp.Integer(1)}

    def of(part: Any) -> Any:
        if part in known:
            return known[part]
        if symbol not in part.free_symbols:
            result = sp.Integer(0)
        elif isinstance(part, sp.Piecewise):
            branches = [(of(value), condition) for value, condition in part.args]
            same = all(value == branches[0][0] for value, _ in branches)
            result = branches[0][0] if same else piecewise(*branches)
        elif isinstance(part, sp.Add):
            result = sp.Add(*(of(arg) for arg in part.args))
        else:
            names, slopes = _slopes(*_pattern(part))
            at = {name: arg for name, arg in zip(names, part.args, strict=True) if name.is_Dummy}
            result = sp.Add(*(slope.xreplace(at) * of(part.args[i]) for i, slope in slopes))
        known[part] = result
        return result

    return of(expression)


def as_float(number: Any) -> float:
    """A number as the nearest float; what is not real is nan."""
    import sympy as sp

    number = sp.sympify(number)
    return float(number) if number.is_extended_real else float("nan")
