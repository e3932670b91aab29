"""Values as sums of products: what is linear in a state, with its coefficients as values of the IR.

A term is an einsum of factors of which at most one is a *basis* value (a state, or a matrix made of it). Products are
taken apart down to values that are none, so ``beta * outer(kn, v)`` and ``outer(beta * kn, v)`` have the same term.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..ir.builder import Builder
from ..ir.program import Instr, live
from ..ir.types import Axes, Axis
from .linear import WORDS, Reason

MAX_TERMS = 64

Labels = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """A value whose axes lie along the given labels of a term."""

    value: int
    labels: Labels


@dataclass(frozen=True, slots=True)
class Term:
    """``sign * sum over labels that are not in out of basis * product of factors``.

    ``basis`` is the factor that is linear in the state, None in a term without it; ``axes`` gives the axis of
    every label.
    """

    basis: Factor | None
    factors: tuple[Factor, ...]
    out: Labels
    axes: Mapping[int, Axis]
    negative: bool = False

    @property
    def labels(self) -> frozenset[int]:
        """All labels, summed ones included."""
        return frozenset(self.axes)


class NotLinear(Exception):
    """A value is not linear in the basis; ``reason`` says what it is and where that was written."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


class WrongAxis(NotLinear):
    """The same about one of the axes along which a state could be mixed."""


class Terms:
    """The terms of values of a body, in the basis values given; values that depend on none of them are coefficients.

    New values (reciprocals) are appended through ``builder``, whose body begins with the given one.
    """

    def __init__(self, builder: Builder, basis: Mapping[int, str]) -> None:
        self.builder, self.basis = builder, basis
        self.varies = self._dependents()
        self._known: dict[int, tuple[Term, ...]] = {}

    def _dependents(self) -> list[bool]:
        result: list[bool] = []
        for position, instr in enumerate(self.builder.body):
            result.append(position in self.basis or any(result[arg] for arg in instr.args))
        return result

    def depends(self, position: int) -> bool:
        """Whether a value depends on a basis value; what was appended since does not."""
        return position < len(self.varies) and self.varies[position]

    def of(self, position: int) -> tuple[Term, ...]:
        """The terms of a value (NotLinear if it is not linear)."""
        if position not in self._known:
            found = self._find(position)
            if len(found) > MAX_TERMS:
                raise NotLinear(Reason("more terms than are told apart", self.builder.body[position].span))
            self._known[position] = found
        return self._known[position]

    def _find(self, position: int) -> tuple[Term, ...]:
        instr = self.builder.body[position]
        if position in self.basis:
            labels = tuple(range(len(instr.axes)))
            return (Term(Factor(position, labels), (), labels, dict(enumerate(instr.axes))),)
        given = not self.depends(position)
        if given and not _is_product(instr, self.builder.body):
            return (self._atom(position),)
        match instr.op:
            case "neg":
                return tuple(replace(t, negative=not t.negative) for t in self.of(instr.args[0]))
            case "add":
                return (*self.of(instr.args[0]), *self.of(instr.args[1]))
            case "sub":
                return (*self.of(instr.args[0]), *(replace(t, negative=not t.negative) for t in self.of(instr.args[1])))
            case "mul":
                labels = tuple(range(len(instr.axes)))
                return self._products(instr, labels, labels, labels)
            case "div" if given or not self.depends(instr.args[1]):
                labels = tuple(range(len(instr.axes)))
                return self._joined(self.of(instr.args[0]), self._inverse(instr.args[1]), labels, labels, labels, instr)
            case "contract":
                return self._products(instr, *instr.attrs)
            case "broadcast":
                return self._spread(instr)
            case "sum":
                (at,) = instr.attrs
                return tuple(replace(t, out=t.out[:at] + t.out[at + 1 :]) for t in self.of(instr.args[0]))
        raise NotLinear(self._reason(instr))

    def _reason(self, instr: Instr) -> Reason:
        names = dict.fromkeys(name for arg in instr.args for name in self._names(arg))
        listed = " and ".join(f"`{name}`" for name in names)
        if instr.op in ("index", "place", "slice", "pad", "concat"):
            return Reason(f"entries of {listed} are moved", instr.span)
        if instr.op in ("stop_grad", "clip_grad"):
            return Reason(f"`{instr.op}` of {listed} changes its gradient", instr.span)
        return Reason(f"`{WORDS.get(instr.op, instr.op)}` of {listed}", instr.span)

    def _names(self, position: int) -> Iterable[str]:
        """The states that a value reads."""
        if position in self.basis:
            return (self.basis[position],)
        if not self.depends(position):
            return ()
        return dict.fromkeys(name for arg in self.builder.body[position].args for name in self._names(arg))

    def _atom(self, position: int) -> Term:
        instr = self.builder.body[position]
        labels = tuple(range(len(instr.axes)))
        negative = instr.op == "const" and instr.attrs[0] < 0
        if negative:
            position = self.builder.const(-instr.attrs[0])
        one = self.builder.is_const(position, 1.0) and not instr.axes
        return Term(None, () if one else (Factor(position, labels),), labels, dict(enumerate(instr.axes)), negative)

    def _inverse(self, position: int) -> tuple[Term, ...]:
        """The reciprocal of a coefficient; of one that is repeated it is repeated, too."""
        instr = self.builder.body[position]
        if instr.op == "broadcast":
            (source,) = instr.attrs
            own = tuple(source.index(i) for i in range(len(source) - source.count(-1)))
            return tuple(_repeated(t, own, instr.axes) for t in self._inverse(instr.args[0]))
        return (self._atom(self.builder.div(self.builder.const(1.0), position)),)

    def _products(self, instr: Instr, left: Labels, right: Labels, out: Labels) -> tuple[Term, ...]:
        return self._joined(self.of(instr.args[0]), self.of(instr.args[1]), left, right, out, instr)

    def _joined(
        self, xs: Sequence[Term], ys: Sequence[Term], left: Labels, right: Labels, out: Labels, instr: Instr
    ) -> tuple[Term, ...]:
        result = []
        axes = dict(zip(out, instr.axes, strict=True))
        for x in xs:
            for y in ys:
                if x.basis is not None and y.basis is not None:
                    names = [f"`{self.basis[f.value]}`" for f in (x.basis, y.basis)]
                    what = f"product of {names[0]} and {names[1]}" if names[0] != names[1] else f"square of {names[0]}"
                    raise NotLinear(Reason(what, instr.span))
                result.append(_join(x, y, left, right, out, axes))
        return tuple(result)

    def _spread(self, instr: Instr) -> tuple[Term, ...]:
        (source,) = instr.attrs
        own = tuple(source.index(i) for i in range(len(source) - source.count(-1)))
        return tuple(_repeated(t, own, instr.axes) for t in self.of(instr.args[0]))


def _is_product(instr: Instr, body: Sequence[Instr]) -> bool:
    """Whether a coefficient is taken apart: products always, sums and outer products where they are matrices."""
    match instr.op:
        case "mul":
            return not _is_normed(instr, body)
        case "neg" | "broadcast":
            return True
        case "add" | "sub" | "div":
            return len(instr.axes) >= 2
        case "contract":
            return len(instr.axes) > max(len(body[arg].axes) for arg in instr.args)
    return False


def _is_normed(instr: Instr, body: Sequence[Instr]) -> bool:
    """Whether a product is a vector over its own norm: it stays whole, as its parts can be of any size."""
    for x, factor in (instr.args, instr.args[::-1]):
        root = body[factor].args[0] if body[factor].op == "broadcast" else factor
        if body[root].op == "rsqrt" and x in live(body, (root,)):
            return True
    return False


def _join(x: Term, y: Term, left: Labels, right: Labels, out: Labels, axes: Mapping[int, Axis]) -> Term:
    """The product of two terms whose own axes have the given labels; summed labels get names of their own."""
    found: dict[int, Axis] = dict(axes)
    factors: list[Factor] = []
    bases: list[Factor] = []
    used = {*left, *right, *out}
    for term, outer in sorted(((x, left), (y, right)), key=lambda pair: pair[0].basis is None):
        names = dict(zip(term.out, outer, strict=True))
        for label, axis in term.axes.items():
            if label not in names:
                names[label] = max(used, default=-1) + 1
                used.add(names[label])
            found.setdefault(names[label], axis)
        factors += [_renamed(f, names) for f in term.factors]
        bases += [_renamed(term.basis, names)] if term.basis is not None else []
    return Term(bases[0] if bases else None, tuple(factors), out, found, x.negative != y.negative)


def placed(builder: Builder, term: Term, axes: Axes) -> Term:
    """The same term with all factors along axes of the same names: ``axes`` where the term itself has some, then those
    of the basis. An axis can go by another name where it only has the same size (``concat``)."""
    known = dict(term.axes) | dict(zip(term.out, axes, strict=True))
    if term.basis is not None:
        known |= dict(zip(term.basis.labels, builder.axes(term.basis.value), strict=True))
    factors = (
        replace(f, value=builder.broadcast(f.value, tuple(known[x] for x in f.labels), tuple(range(len(f.labels)))))
        for f in term.factors
    )
    return replace(term, factors=tuple(factors), axes=known)


def _repeated(term: Term, own: Labels, axes: Axes) -> Term:
    """A term along more axes; ``own`` says where its own ones are among them."""
    labels = tuple(range(len(axes)))
    return _join(term, Term(None, (), (), {}), own, (), labels, dict(zip(labels, axes, strict=True)))


def _renamed(factor: Factor, names: Mapping[int, int]) -> Factor:
    return Factor(factor.value, tuple(names[label] for label in factor.labels))


class Signatures:
    """A short text for every value that says how it is computed from leaves, whatever its position: equal values have
    equal ones, and sorting by them gives the same order however a spec was written."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._known: dict[int, str] = {}

    def __call__(self, value: int) -> str:
        if value not in self._known:
            instr = self.builder.body[value]
            parts = (instr.op, str(instr.attrs), str([str(a) for a in instr.axes]), *map(self, instr.args))
            self._known[value] = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        return self._known[value]
