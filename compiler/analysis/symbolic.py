"""The exact reference: walks the typed IR with SymPy expressions, at sizes small enough to read.

A value is a mapping from entries (tuples of indices) to expressions. Functions with a kink are
written so that SymPy's derivative of them follows the conventions of ``ir/ops.py``: the tie is a
branch of its own, whose slope is the one agreed on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..ir.program import Body, Instr, Program, live
from ..ir.types import EVERYTHING, Axes, Interval
from .exact import derivative, piecewise

Entry = tuple[int, ...]
Value = Mapping[Entry, Any]
Key = tuple[str, "int | None", Entry]
"""A leaf's entry: name, step (None for params and start states), indices."""


class NotExact(ValueError):
    """Why SymPy cannot answer for a recurrence."""


@dataclass(frozen=True)
class Trajectory:
    """The first steps of a recurrence, for one sequence and head.

    ``outputs`` and ``states`` give, by name, one value for each step (states after it); ``symbols``
    the symbols that stand for the leaves' entries. ``refusal`` says why there are no gradients.
    """

    outputs: Mapping[str, tuple[Value, ...]]
    states: Mapping[str, tuple[Value, ...]]
    symbols: Mapping[Key, Any]
    refusal: str | None

    def gradient(self, expression: Any, symbol: Any) -> Any:
        """The exact derivative of an expression of outputs and states (NotExact where refused)."""
        if self.refusal is not None:
            raise NotExact(self.refusal)
        return derivative(expression, symbol)


def trajectory(
    program: Program,
    steps: int,
    sizes: Mapping[str, int],
    values: Mapping[Key, Any] | None = None,
    *,
    initial: Iterable[str] = (),
) -> Trajectory:
    """Outputs and states of the first steps as exact expressions of the leaves.

    Input ``q`` at step 0, entry 1 is the symbol ``q_0_1``, param ``W``'s first entry ``W_0_0``.
    ``values`` puts exact numbers in their place. The states named in ``initial`` start as symbols,
    the others as declared.
    """
    symbols = _Symbols(values or {})
    ranges = program.leaf_ranges()
    params = {("param", p.name): symbols.value(p.name, None, p.axes, sizes, EVERYTHING) for p in program.params}
    start = evaluate(program.body, [s.start for s in program.states], {}, sizes)
    chosen = set(initial)
    current = {
        s.name: symbols.value(s.name, None, s.axes, sizes, EVERYTHING)
        if s.name in chosen
        else {entry: start[s.start][()] for entry in entries(s.axes, sizes)}
        for s in program.states
    }
    outputs: dict[str, list[Value]] = {o.name: [] for o in program.outputs}
    states: dict[str, list[Value]] = {s.name: [] for s in program.states}
    for step in range(steps):
        leaves = dict(params)
        for i in program.inputs:
            promised = ranges.get(("input", i.name), EVERYTHING)
            leaves["input", i.name] = symbols.value(i.name, step, i.axes, sizes, promised)
        leaves.update({("state", name): value for name, value in current.items()})
        found = evaluate(program.body, program.roots(), leaves, sizes)
        current = {s.name: found[s.next] for s in program.states}
        for s in program.states:
            states[s.name].append(current[s.name])
        for o in program.outputs:
            outputs[o.name].append(found[o.value])
    return Trajectory(
        {name: tuple(v) for name, v in outputs.items()},
        {name: tuple(v) for name, v in states.items()},
        symbols.made,
        _refusal(program),
    )


def _refusal(program: Program) -> str | None:
    used = {program.body[p].op for p in live(program.body, program.roots())}
    for op in ("stop_grad", "clip_grad"):
        if op in used:
            return f"{program.name} uses {op}, whose gradient is not the derivative of what it computes"
    return None


class _Symbols:
    """Makes the symbols of leaves, no two alike, unless a number is given for an entry."""

    def __init__(self, values: Mapping[Key, Any]) -> None:
        self.values = values
        self.made: dict[Key, Any] = {}
        self._names: set[str] = set()

    def value(self, name: str, step: int | None, axes: Axes, sizes: Mapping[str, int], range: Interval) -> Value:
        return {entry: self._entry((name, step, entry), range) for entry in entries(axes, sizes)}

    def _entry(self, key: Key, range: Interval) -> Any:
        import sympy

        if key in self.values:
            return sympy.sympify(self.values[key])
        name, step, entry = key
        word = "_".join(map(str, (name, *(() if step is None else (step,)), *entry)))
        while word in self._names:
            word += "_"
        self._names.add(word)
        positive = True if range.low > 0 or (range.low == 0 and range.low_open) else None
        self.made[key] = sympy.Symbol(word, real=True, positive=positive)
        return self.made[key]


def entries(axes: Axes, sizes: Mapping[str, int]) -> Iterator[Entry]:
    """All indices of a value, the last axis fastest."""
    return product(*(range(axis.size.bind(sizes)) for axis in axes))


def evaluate(
    body: Body, wanted: Iterable[int], leaves: Mapping[tuple[str, str], Value], sizes: Mapping[str, int]
) -> dict[int, Value]:
    """The wanted values of a body, exactly; ``leaves`` gives the leaves by (kind, name)."""
    wanted = tuple(wanted)
    values: dict[int, Value] = {}
    for position in sorted(live(body, wanted)):
        instr = body[position]
        if instr.op == "leaf":
            values[position] = leaves[instr.attrs]
        else:
            values[position] = apply(instr, [values[arg] for arg in instr.args], body, sizes)
    return {position: values[position] for position in wanted}


def apply(instr: Instr, args: Sequence[Value], body: Body, sizes: Mapping[str, int]) -> Value:
    """One value of a body, given those of its operands."""
    import sympy

    where = list(entries(instr.axes, sizes))
    zero = sympy.Integer(0)
    match instr.op:
        case "const":
            return {(): _exact(instr.attrs[0])}
        case "size":
            return {(): sympy.Integer(sizes[instr.attrs[0]])}
        case "broadcast":
            (source,) = instr.attrs
            places = [source.index(i) for i in range(len(source) - source.count(-1))]
            return {e: args[0][tuple(e[p] for p in places)] for e in where}
        case "sum" | "amax":
            (position,) = instr.attrs
            size = body[instr.args[0]].axes[position].size.bind(sizes)
            reduce = _amax if instr.op == "amax" else _total
            return {e: reduce([args[0][(*e[:position], j, *e[position:])] for j in range(size)]) for e in where}
        case "contract":
            return _contract(instr, args, body, sizes)
        case "index":
            position, i = instr.attrs
            return {e: args[0][(*e[:position], i, *e[position:])] for e in where}
        case "place":
            position, i = instr.attrs
            return {e: args[0][e[:position] + e[position + 1 :]] if e[position] == i else zero for e in where}
        case "slice" | "pad":
            position = instr.attrs[0]
            shift = instr.attrs[1].bind(sizes) * (1 if instr.op == "slice" else -1)
            return {e: args[0].get(_moved(e, position, shift), zero) for e in where}
        case "concat":
            (position,) = instr.attrs
            first = body[instr.args[0]].axes[position].size.bind(sizes)
            return {e: args[0][e] if e[position] < first else args[1][_moved(e, position, -first)] for e in where}
        case "clip_grad" | "stop_grad":
            return args[0]
        case _:
            function = _functions()[instr.op]
            return {e: function(*(arg[e] for arg in args)) for e in where}


def _exact(number: float) -> Any:
    """A constant as the decimal number that its author wrote."""
    import sympy

    if math.isinf(number):
        return sympy.oo if number > 0 else -sympy.oo
    return sympy.nan if math.isnan(number) else sympy.Rational(repr(number))


def _moved(entry: Entry, position: int, by: int) -> Entry:
    return (*entry[:position], entry[position] + by, *entry[position + 1 :])


def _contract(instr: Instr, args: Sequence[Value], body: Body, sizes: Mapping[str, int]) -> Value:
    left, right, out = instr.attrs
    size = {}
    for labels, arg in zip((left, right), instr.args, strict=True):
        size.update({label: axis.size.bind(sizes) for label, axis in zip(labels, body[arg].axes, strict=True)})
    summed = [label for label in size if label not in out]
    result = {}
    for entry in product(*(range(size[label]) for label in out)):
        terms = []
        for inner in product(*(range(size[label]) for label in summed)):
            at = dict(zip((*out, *summed), (*entry, *inner), strict=True))
            terms.append(args[0][tuple(at[x] for x in left)] * args[1][tuple(at[x] for x in right)])
        result[entry] = _total(terms)
    return result


def _total(terms: Sequence[Any]) -> Any:
    import sympy

    return sympy.Add(*terms)


def _functions() -> dict[str, Callable[..., Any]]:
    """The element-wise operations, each the plain mathematical definition."""
    import sympy as sp

    one, half = sp.Integer(1), sp.Rational(1, 2)

    def exp(x: Any) -> Any:
        """SymPy looks for logarithms to cancel, which takes minutes on long sums: numbers only."""
        return sp.exp(x) if x.is_Atom else sp.exp(x, evaluate=False)

    return {
        "neg": lambda x: -x,
        "exp": exp,
        "log": sp.log,
        "log1p": lambda x: sp.log(one + x),
        "expm1": lambda x: exp(x) - one,
        "sqrt": lambda x: piecewise((sp.Integer(0), relation("eq", x, 0)), (sp.sqrt(x), True)),
        "rsqrt": lambda x: one / sp.sqrt(x),
        "square": lambda x: x**2,
        "abs": lambda x: piecewise((x, relation("lt", 0, x)), (-x, relation("lt", x, 0)), (sp.Integer(0), True)),
        "sign": lambda x: piecewise((one, relation("lt", 0, x)), (-one, relation("lt", x, 0)), (sp.Integer(0), True)),
        "sigmoid": lambda x: one / (one + exp(-x)),
        "logsigmoid": lambda x: -sp.log(one + exp(-x)),
        "tanh": sp.tanh,
        "relu": lambda x: piecewise((x, relation("lt", 0, x)), (sp.Integer(0), True)),
        "silu": lambda x: x / (one + exp(-x)),
        "softplus": lambda x: sp.log(one + exp(x)),
        "gelu": lambda x: x * half * (one + sp.erf(x / sp.sqrt(2))),
        "erf": sp.erf,
        "sin": sp.sin,
        "cos": sp.cos,
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x / y,
        "pow": lambda x, y: x**y,
        "max": _max,
        "min": lambda x, y: -_max(-x, -y),
        "lt": lambda x, y: relation("lt", x, y),
        "le": lambda x, y: relation("le", x, y),
        "eq": lambda x, y: relation("eq", x, y),
        "ne": lambda x, y: relation("ne", x, y),
        "where": lambda condition, x, y: piecewise((x, condition), (y, True)),
        "clamp": lambda x, low, high: piecewise(
            (high, relation("lt", high, x)), (high, relation("lt", high, low)), (low, relation("lt", x, low)), (x, True)
        ),
    }


def relation(op: str, x: Any, y: Any) -> Any:
    """A comparison, decided where both sides are numbers or one is infinite, else left as it stands."""
    import sympy as sp

    x, y = sp.sympify(x), sp.sympify(y)
    kind = {"lt": sp.Lt, "le": sp.Le, "eq": sp.Eq, "ne": sp.Ne}[op]
    decide = (x.is_Number and y.is_Number) or {x, y} & {sp.oo, -sp.oo}
    # SymPy would try to solve or simplify what it cannot decide at once.
    return kind(x, y) if decide else kind(x, y, evaluate=False)


def _max(x: Any, y: Any) -> Any:
    return piecewise((x, relation("lt", y, x)), ((x + y) / 2, relation("eq", x, y)), (y, True))


def _amax(terms: Sequence[Any]) -> Any:
    """The largest term, written as the mean of all that attain it."""
    if len(terms) == 1:
        return terms[0]
    largest = terms[0]
    for term in terms[1:]:
        largest = piecewise((largest, relation("lt", term, largest)), (term, True))
    attains = [relation("eq", term, largest) for term in terms]
    count = _total([piecewise((1, hit), (0, True)) for hit in attains])
    return _total([piecewise((term, hit), (0, True)) for term, hit in zip(terms, attains, strict=True)]) / count
