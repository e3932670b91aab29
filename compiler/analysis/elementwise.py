"""Element-wise recurrences that a scan can run: affine in the states, or a running maximum.

Entry i of a new state reads only entry i of old states, and it is ``sum over states of slope * S + constant`` or
``max(S + shift, bound)`` with slopes, constants, shifts and bounds that read no state. Those are written as
values of the body. The same walk finds the adjoint's coefficients: the cotangent of an old state is
affine in the cotangents of the new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..ir.builder import Builder
from ..ir.ops import OPS
from ..ir.program import Instr, Program, live
from ..ir.types import Axes
from .linear import WORDS, Reason

MOST_COUPLED = 2
"""States that are scanned together; their coefficients are a matrix of so many rows and columns."""

Kind = Literal["replaced", "sum", "affine", "complex", "coupled", "max", "min"]


@dataclass(frozen=True)
class Group:
    """States that read each other, and how: values of the body, None for those that are zero.

    * ``replaced``: S' = constant
    * ``sum``: S' = S + constant
    * ``affine``: S' = slope * S + constant
    * ``complex``: two states, real and imaginary part, times one complex number: slopes [[a, -b], [b, a]]
    * ``coupled``: two states with any slopes: new state i has ``slopes[i][j]`` for old state j
    * ``max``, ``min``: S' = max(S + slope, constant)
    """

    kind: Kind
    states: tuple[str, ...]
    slopes: tuple[tuple[int | None, ...], ...]
    constants: tuple[int | None, ...]

    def values(self) -> tuple[int, ...]:
        """All coefficients that are not zero."""
        found = (*(value for row in self.slopes for value in row), *self.constants)
        return tuple(value for value in found if value is not None)


Leaves = Mapping[tuple[str, str], tuple[str, Axes]]
"""The leaves in which values are affine, each with the name of its state and its axes."""

Roots = Mapping[str, int | None]
"""By state the value that becomes of it; None is zero."""


@dataclass(frozen=True)
class _Slope:
    """A factor of a state's entries; ``places`` are the value's axes along which the state's axes lie."""

    value: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class _Form:
    """A value as a function of states: ``constant + sum of slopes * states``, or an extreme of
    ``state + slope`` and the constant (then slopes hold that one shift). A constant of None is 0, in an extreme
    none at all."""

    constant: int | None
    slopes: Mapping[str, _Slope] = field(default_factory=dict)
    extreme: Literal["max", "min"] | None = None


def step_groups(builder: Builder, program: Program) -> tuple[Group, ...] | Reason:
    """The groups of a step's states, or why no scan can run it. ``builder`` has the program's body in front.

    A step whose gradient is clipped on its way through a state is refused too.
    """
    leaves = {("state", s.name): (s.name, s.axes) for s in program.states}
    return _groups(builder, leaves, {s.name: s.next for s in program.states})


def adjoint_groups(builder: Builder, program: Program, cotangents: Roots) -> tuple[Group, ...] | Reason:
    """The groups of an adjoint step: cotangents of old states, by state, in those of the new states."""
    leaves = {("cotangent", f"{s.name}'"): (s.name, s.axes) for s in program.states}
    return _groups(builder, leaves, cotangents)


def _groups(builder: Builder, leaves: Leaves, roots: Roots) -> tuple[Group, ...] | Reason:
    walk = _Walk(builder, leaves, [value for value in roots.values() if value is not None])
    axes = dict(leaves.values())
    found: dict[str, _Form] = {}
    for name, value in roots.items():
        form = _Form(None) if value is None else walk.forms[value]
        if isinstance(form, Reason):
            return form
        whole = tuple(range(len(axes[name])))
        for state, slope in form.slopes.items():
            if slope.places != whole or axes[state] != axes[name]:
                return Reason(f"entries of `{state}` are moved", None if value is None else builder.body[value].span)
        found[name] = form
    groups = []
    for names in _components({name: form.slopes for name, form in found.items()}):
        if len(names) > MOST_COUPLED:
            span = builder.body[roots[names[0]] or 0].span
            return Reason(f"{_listed(names)} read each other, more than {MOST_COUPLED} states", span)
        mixed = next((name for name in names if found[name].extreme and len(names) > 1), None)
        if mixed is not None:
            span = builder.body[roots[mixed] or 0].span
            others = _listed(name for name in names if name != mixed)
            return Reason(f"`{mixed}` is an extreme and stands in one sum with {others}", span)
        groups.append(_group(builder, names, found))
    return tuple(groups)


def _components(reads: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """Names in classes of those that read each other, in the order given."""
    classes = {name: {name} for name in reads}
    for name, others in reads.items():
        for other in others:
            joined = classes[name] | classes[other]
            classes.update(dict.fromkeys(joined, joined))
    return list(dict.fromkeys(tuple(name for name in reads if name in classes[first]) for first in reads))


def _group(builder: Builder, names: tuple[str, ...], found: Mapping[str, _Form]) -> Group:
    forms = [found[name] for name in names]
    slopes = tuple(
        tuple(form.slopes[other].value if other in form.slopes else None for other in names) for form in forms
    )
    group = Group("coupled", names, slopes, tuple(form.constant for form in forms))
    if len(names) == 2:
        return replace(group, kind="complex") if _is_complex(builder, slopes) else group
    ((slope,),), (form,) = slopes, forms
    kind: Kind = form.extreme or "affine"
    if slope is None:
        kind = "replaced"
    elif kind == "affine" and builder.is_const(slope, 1.0):
        kind = "sum"
    return replace(group, kind=kind)


def _is_complex(builder: Builder, slopes: tuple[tuple[int | None, ...], ...]) -> bool:
    (a, b), (c, d) = slopes
    return a == d and b is not None and c is not None and _negated(builder, b) == c


def _negated(builder: Builder, value: int) -> int:
    instr = builder.body[value]
    if instr.op == "neg":
        return instr.args[0]
    if instr.op == "const":
        return builder.const(-instr.attrs[0])
    if instr.op == "broadcast" and builder.body[instr.args[0]].op == "const":
        return builder.spread(_negated(builder, instr.args[0]), instr.axes)
    return builder.apply("neg", value)


class _Walk:
    """Forms of all values that the roots need."""

    def __init__(self, builder: Builder, leaves: Leaves, roots: Iterable[int]) -> None:
        self.builder, self.leaves = builder, leaves
        self.forms: dict[int, _Form | Reason] = {}
        body, span = tuple(builder.body), builder.span
        for position in sorted(live(body, roots)):
            builder.span = body[position].span
            self.forms[position] = self._form(position, body[position])
        builder.span = span

    def _form(self, position: int, instr: Instr) -> _Form | Reason:
        if instr.op == "leaf":
            if instr.attrs not in self.leaves:
                return _Form(position)
            one = self.builder.spread(self.builder.const(1.0), instr.axes)
            return _Form(None, {self.leaves[instr.attrs][0]: _Slope(one, tuple(range(len(instr.axes))))})
        args: list[_Form] = []
        for arg in instr.args:
            form = self.forms[arg]
            if isinstance(form, Reason):
                return form
            args.append(form)
        if all(not form.slopes and form.constant == arg for form, arg in zip(args, instr.args, strict=True)):
            return _Form(position)
        if instr.op == "stop_grad":
            return args[0]
        if instr.op in ("max", "min", "relu"):
            return self._extreme(instr, args)
        if instr.op in ("broadcast", "contract"):
            return self._moved(instr, args)
        if any(form.extreme for form in args):
            return self._shifted(instr, args)
        return self._affine(instr, args)

    # ------------------------------------------------------------ sums

    def _affine(self, instr: Instr, args: Sequence[_Form]) -> _Form | Reason:
        match instr.op:
            case "neg":
                return self._each(args[0], lambda value: _negated(self.builder, value))
            case "add":
                return self._sum(instr, args[0], args[1])
            case "sub":
                return self._sum(instr, args[0], self._each(args[1], lambda value: _negated(self.builder, value)))
            case "mul" if not args[0].slopes or not args[1].slopes:
                scaled, factor = (args[0], args[1]) if not args[1].slopes else (args[1], args[0])
                if factor.constant is None:
                    return _Form(None)
                by = factor.constant
                return self._each(scaled, lambda value: self._product(value, by))
            case "div" if not args[1].slopes:
                by = self._number(args[1], instr)
                return self._each(args[0], lambda value: self.builder.div(value, by))
            case "where" if not args[0].slopes and args[0].constant == instr.args[0]:
                return self._choice(instr, args)
        return self._refusal(instr, args)

    def _each(self, form: _Form, change: Callable[[int], int]) -> _Form:
        slopes = {name: replace(slope, value=change(slope.value)) for name, slope in form.slopes.items()}
        return _Form(None if form.constant is None else change(form.constant), slopes)

    def _sum(self, instr: Instr, left: _Form, right: _Form) -> _Form | Reason:
        slopes = dict(left.slopes)
        for name, slope in right.slopes.items():
            if name not in slopes:
                slopes[name] = slope
            elif slopes[name].places != slope.places:
                return Reason(f"entries of `{name}` are moved", instr.span)
            else:
                slopes[name] = replace(slope, value=self._added(slopes[name].value, slope.value))
        constants = [form.constant for form in (left, right) if form.constant is not None]
        return _Form(self._added(*constants) if len(constants) == 2 else next(iter(constants), None), slopes)

    def _added(self, x: int, y: int) -> int:
        negative = self.builder.body[y].op == "neg"
        return self.builder.sub(x, self.builder.body[y].args[0]) if negative else self.builder.add(x, y)

    def _product(self, x: int, y: int) -> int:
        """A product whose sign stands in front, so that equal factors are equal values."""
        builder = self.builder
        for one, other in ((x, y), (y, x)):
            if builder.body[one].op == "neg":
                return _negated(builder, self._product(builder.body[one].args[0], other))
            if builder.is_const(one, -1.0):
                return _negated(builder, other)
        return builder.mul(x, y)

    def _number(self, form: _Form, instr: Instr) -> int:
        """A form without slopes as a value with the operation's axes."""
        return self.builder.spread(self.builder.const(0.0), instr.axes) if form.constant is None else form.constant

    def _choice(self, instr: Instr, args: Sequence[_Form]) -> _Form | Reason:
        """``where(condition, x, y)`` with a condition that is given, coefficient by coefficient."""
        condition, zero = instr.args[0], self.builder.const(0.0)

        def pick(x: int | None, y: int | None) -> int | None:
            if x is None and y is None:
                return None
            return self.builder.apply("where", condition, zero if x is None else x, zero if y is None else y)

        slopes = {}
        for name in dict.fromkeys((*args[1].slopes, *args[2].slopes)):
            parts = [form.slopes.get(name) for form in args[1:]]
            places = {part.places for part in parts if part is not None}
            value = pick(*(None if part is None else part.value for part in parts))
            if len(places) > 1 or value is None:
                return Reason(f"entries of `{name}` are moved", instr.span)
            slopes[name] = _Slope(value, places.pop())
        return _Form(pick(args[1].constant, args[2].constant), slopes)

    # ------------------------------------------------------------ maxima

    def _extreme(self, instr: Instr, args: Sequence[_Form]) -> _Form | Reason:
        """The maximum or minimum of forms in which at most one state stands, unscaled."""
        kind: Literal["max", "min"] = "min" if instr.op == "min" else "max"
        parts = [*args, _Form(self.builder.spread(self.builder.const(0.0), instr.axes))][:2]
        slopes: dict[str, _Slope] = {}
        bounds: list[int] = []
        for form in parts:
            if not form.slopes:
                bounds.append(self._number(form, instr))
                continue
            shifted = form if form.extreme else self._as_shift(form, instr)
            if shifted is None or shifted.extreme not in (None, kind):
                return self._refusal(instr, args)
            ((name, slope),) = shifted.slopes.items()
            if shifted.constant is not None:
                bounds.append(shifted.constant)
            if slopes and (name not in slopes or slopes[name].places != slope.places):
                return self._refusal(instr, args)
            if slopes:
                slope = replace(slope, value=self._larger(kind, slopes[name].value, slope.value))
            slopes[name] = slope
        bound = None
        for value in bounds:
            bound = value if bound is None else self._larger(kind, bound, value)
        return _Form(bound, slopes, kind)

    def _larger(self, kind: str, x: int, y: int) -> int:
        return x if x == y else self.builder.apply(kind, x, y)

    def _as_shift(self, form: _Form, instr: Instr) -> _Form | None:
        """``S + constant`` as an extreme without a bound."""
        if len(form.slopes) != 1:
            return None
        ((name, slope),) = form.slopes.items()
        if not self.builder.is_const(slope.value, 1.0):
            return None
        return _Form(None, {name: replace(slope, value=self._number(replace(form, slopes={}), instr))})

    def _shifted(self, instr: Instr, args: Sequence[_Form]) -> _Form | Reason:
        """An extreme plus or minus what is given."""
        extremes = [form for form in args if form.slopes]
        if instr.op not in ("add", "sub") or len(extremes) > 1 or (instr.op == "sub" and not args[0].extreme):
            return self._refusal(instr, args)
        (extreme,) = extremes
        (given,) = (form for form in args if not form.slopes)
        value = self._number(given, instr)
        change = self.builder.add if instr.op == "add" else self.builder.sub
        return replace(self._each(extreme, lambda part: change(part, value)), extreme=extreme.extreme)

    # ------------------------------------------------------------ axes

    def _moved(self, instr: Instr, args: Sequence[_Form]) -> _Form | Reason:
        """Axes that are spread and exchanged, and products that sum over nothing."""
        if sum(bool(form.slopes) for form in args) > 1:
            return self._refusal(instr, args)
        which = next((i for i, form in enumerate(args) if form.slopes), 0)
        form = args[which]
        others = [self.forms[arg] for i, arg in enumerate(instr.args) if i != which]
        if any(isinstance(other, _Form) and other.constant is None for other in others):
            return _Form(None)
        if instr.op == "contract":
            mine, out = instr.attrs[which], instr.attrs[2]
            if form.extreme:
                return self._refusal(instr, args)
            own = self.builder.axes(instr.args[which])
            summed = [axis.name for axis, label in zip(own, mine, strict=True) if label not in out]
            if summed and form.slopes:
                return Reason(f"entries of {_listed(form.slopes)} mix along {summed[0]}", instr.span)
            places = [out.index(label) if label in out else -1 for label in mine]
        else:
            places = [instr.attrs[0].index(position) for position in range(len(self.builder.axes(instr.args[0])))]
        given = [other.constant if isinstance(other, _Form) else None for other in others]

        def change(value: int) -> int:
            operands = [*given[:which], value, *given[which:]]
            return self.builder.emit(instr.op, tuple(x for x in operands if x is not None), instr.attrs, instr.axes)

        moved = self._each(form, change)
        slopes = {
            name: replace(slope, places=tuple(places[p] for p in form.slopes[name].places))
            for name, slope in moved.slopes.items()
        }
        return _Form(moved.constant, slopes, form.extreme)

    def _refusal(self, instr: Instr, args: Sequence[_Form]) -> Reason:
        names = [name for form in args for name in form.slopes] or ["the state"]
        word = {**WORDS, "mul": "*", "add": "+", "sub": "-", "neg": "-"}.get(instr.op, instr.op)
        match OPS[instr.op].kind:
            case "reduce":
                axis = self.builder.axes(instr.args[0])[instr.attrs[0]].name
                return Reason(f"entries of {_listed(names)} mix along {axis}", instr.span)
            case "move":
                return Reason(f"entries of {_listed(names)} are moved", instr.span)
        if instr.op in ("mul", "contract") and sum(bool(form.slopes) for form in args) > 1:
            first, second = (_listed(form.slopes) for form in args)
            return Reason(f"product of {first} and {'itself' if first == second else second}", instr.span)
        return Reason(f"`{word}` of {_listed(names)}", instr.span)


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in dict.fromkeys(names))
