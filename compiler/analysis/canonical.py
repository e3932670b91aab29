"""Values as polynomials with one normal form each, so that equal values can be seen to be equal.

Sums, products and moves are expanded. Everything else (``tanh``, ``where``, a reciprocal) is a symbol of its own per
function and operands: the same for equal operands, without any further meaning. What comes out equal *is* equal,
whatever numbers the leaves are; what comes out different may still be equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..ir.program import Body, Instr, live
from ..ir.types import Axes, Interval
from .symbolic import Value, apply, entries

RING = frozenset("const size neg add sub mul square broadcast sum contract index place slice pad concat".split())
"""Operations that are polynomials of their operands."""


PLAIN = {"power_exp": False, "power_base": False, "log": False, "basic": False}
"""There is nothing but sums, products and powers to expand: SymPy need not look for more."""


class Canonical:
    """The canonical polynomials of bodies whose leaves and sizes are shared.

    Three identities of exponentials are known, because decays are written with logarithms and without:
    ``exp(x + y) = exp(x) exp(y)``, ``exp(log(x)) = x`` where ``bounds`` say that x is not negative, and
    ``exp(logsigmoid(x)) = sigmoid(x)``. The logarithm of a constant is the constant that :func:`math.log` makes of
    it, one rounding from the truth, and counts as exact.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self._symbols: dict[tuple[Any, ...], Any] = {}
        self._names: set[str] = set()
        self._exponentials: dict[Any, Any] = {}
        self._folds: list[tuple[Any, Any]] = []

    def leaf(self, name: str, axes: Axes) -> Value:
        """A value of which nothing is known: a symbol per entry, the same for the same name."""
        return {
            at: self._symbol(("leaf", name, at), f"{name}{list(at) if at else ''}") for at in entries(axes, self.sizes)
        }

    def values(
        self,
        body: Body,
        wanted: Iterable[int],
        leaves: Mapping[tuple[str, str], Value],
        bounds: Sequence[Interval],
    ) -> dict[int, Value]:
        """The wanted values of a body; ``leaves`` gives the leaves by (kind, name), ``bounds`` every value's range."""
        wanted = tuple(wanted)
        found: dict[int, Value] = {}
        logarithms = _logarithms(body)
        for position in sorted(live(body, wanted)):
            instr = body[position]
            args = [found[arg] for arg in instr.args]
            if instr.op == "leaf":
                found[position] = leaves[instr.attrs]
            elif instr.op == "const" and instr.attrs[0] in logarithms:
                found[position] = {(): self._log(self._number(logarithms[instr.attrs[0]]), True)}
            elif instr.op in RING and not (instr.op == "const" and not math.isfinite(instr.attrs[0])):
                made = apply(instr, args, body, self.sizes)
                found[position] = {at: self.expanded(entry) for at, entry in made.items()}
            else:
                found[position] = self._opaque(instr, args, body, bounds)
        return {position: found[position] for position in wanted}

    def expanded(self, expression: Any) -> Any:
        """An expression of canonical ones, made canonical: ``abs(x) * sign(x)`` is x."""
        import sympy

        result = sympy.expand(expression, **PLAIN)
        for product, whole in self._folds:
            result = result.subs(product, whole)
        return sympy.expand(result, **PLAIN) if self._folds else result

    def exponential(self, exponent: Any) -> Any:
        """The exponential of a canonical expression: one factor per term of it."""
        import sympy

        result = sympy.Integer(1)
        for term in sympy.Add.make_args(exponent):
            factor, _ = term.as_coeff_Mul()
            times = abs(factor) if factor.is_Integer else 1
            if times:
                base = term / times
                known = self._exponentials.get(base)
                result *= (self._call("exp", [base]) if known is None else known) ** times
        return self.expanded(result)

    # ------------------------------------------------------------ everything that is no polynomial

    def _opaque(self, instr: Instr, args: Sequence[Value], body: Body, bounds: Sequence[Interval]) -> Value:
        where = entries(instr.axes, self.sizes)
        match instr.op:
            case "exp":
                return {at: self.exponential(args[0][at]) for at in where}
            case "log":
                return {at: self._log(args[0][at], bounds[instr.args[0]].low >= 0) for at in where}
            case "logsigmoid":
                return {at: self._logsigmoid(args[0][at]) for at in where}
            case "abs" | "sign":
                return {at: self._magnitude(args[0][at])[instr.op == "sign"] for at in where}
            case "div":
                return {at: self.expanded(args[0][at] * self._inverse(args[1][at])) for at in where}
            case "amax":
                (axis,) = instr.attrs
                size = range(body[instr.args[0]].axes[axis].size.bind(self.sizes))
                return {at: self._call("max", [args[0][(*at[:axis], j, *at[axis:])] for j in size]) for at in where}
        return {at: self._call(instr.op, [arg[at] for arg in args], instr.attrs) for at in where}

    def _call(self, name: str, operands: Sequence[Any], attrs: tuple[Any, ...] = ()) -> Any:
        shown = f"{name}({', '.join(map(str, (*operands, *attrs)))})"
        return self._symbol((name, attrs, *operands), shown)

    def _log(self, x: Any, real: bool) -> Any:
        result = self._call("log", [x])
        if real:
            self._exponentials[result] = x
        return result

    def _logsigmoid(self, x: Any) -> Any:
        result = self._call("logsigmoid", [x])
        self._exponentials[result] = self._call("sigmoid", [x])
        return result

    def _magnitude(self, x: Any) -> tuple[Any, Any]:
        parts = self._call("abs", [x]), self._call("sign", [x])
        if (parts[0] * parts[1], x) not in self._folds:
            self._folds.append((parts[0] * parts[1], x))
        return parts

    def _inverse(self, x: Any) -> Any:
        import sympy

        return sympy.Integer(1) / x if x.is_Rational and x != 0 else self._call("inverse", [x])

    def _number(self, number: float) -> Any:
        import sympy

        return sympy.Rational(repr(number))

    def _symbol(self, key: tuple[Any, ...], shown: str) -> Any:
        """The symbol for a key; what it is called is only for people."""
        import sympy

        if key not in self._symbols:
            name = shown if len(shown) <= 40 else f"{shown[:36]}...)"
            while name in self._names:
                name += "'"
            self._names.add(name)
            self._symbols[key] = sympy.Symbol(name)
        return self._symbols[key]


def _logarithms(body: Body) -> dict[float, float]:
    """Constants of a body that are logarithms of others, with those; 0 and 1 are no one's."""
    numbers = [abs(instr.attrs[0]) for instr in body if instr.op == "const" and math.isfinite(instr.attrs[0])]
    return {math.log(x): x for x in numbers if x not in (0.0, 1.0)} | {-math.inf: 0.0}
