"""Numbers of exact expressions: values and gradients to any number of digits.

Expressions share most of their parts, which SymPy's own ``evalf`` and ``diff`` visit again and
again; here each part is visited once. Rational parts stay rational, so ties are seen exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        # Constants stay in the pattern: the derivative of x**2 is defined at 0, that of x**y is not.
        pattern = tuple(None if child.free_symbols else child for child in part.args)
        key = (part.func, pattern)
        if key not in self._slopes:
            names = [sp.Dummy(real=True) if child is None else child for child in pattern]
            whole = part.func(*names)
            self._slopes[key] = [(i, names, whole.diff(name)) for i, name in enumerate(names) if pattern[i] is None]
        return [
            (part.args[i], self._at(slope, dict(zip(names, (self(c) for c in part.args), strict=True))))
            for i, names, slope in self._slopes[key]
        ]

    def _at(self, slope: Any, values: Mapping[Any, Any]) -> Any:
        return Numbers({name: value for name, value in values.items() if name.is_Dummy}, self._digits)(slope)


def as_float(number: Any) -> float:
    """A number as the nearest float; what is not real is nan."""
    import sympy as sp

    number = sp.sympify(number)
    return float(number) if number.is_extended_real else float("nan")
