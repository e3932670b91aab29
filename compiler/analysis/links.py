"""One sub-step of a state's transition as decay plus low rank, and how consecutive sub-steps become one.

A link takes a matrix ``X`` to ``diag(d) X + sum_i k_i n_i^T`` with ``n_i = z_i + c_i (r_i^T X)``: pair i writes along
``k_i`` what it was given (``z_i``) and what it read under ``r_i``. Vectors are products of values along one axis and
scalars are products of scalars, both as sorted tuples, so that equal ones are seen to be equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...dsl.source import Span
from ..ir.builder import Builder
from ..ir.program import depends_on
from .linear import Reason
from .terms import Factor, NotLinear, Signatures, Term, Terms, WrongAxis

Vector = tuple[int, ...]
"""A product of values along one axis; () is a vector of ones."""


@dataclass(frozen=True, slots=True)
class Product:
    """``sign * product of scalars * product of vectors``."""

    scalars: tuple[int, ...] = ()
    vector: Vector = ()
    negative: bool = False


Sum = tuple[Product, ...]

ONE = Product()

DENSE = "{} is multiplied by a matrix that is no outer product"


@dataclass(frozen=True, slots=True)
class RawPair:
    """A write along ``key`` (the mixed axis) of ``value`` (the other axis) plus ``scale * (read @ X)``.

    ``read`` is None where nothing is read. ``post`` reads see X after the link's decay.
    """

    key: Vector
    value: Sum
    read: Vector | None = None
    scale: Sum = ()
    post: bool = True


@dataclass(frozen=True, slots=True)
class RawLink:
    """Decay (along the mixed axis, or a scalar), then pairs, which all read before any of them writes."""

    decay: Product
    pairs: tuple[RawPair, ...]

    @property
    def reads(self) -> bool:
        return any(pair.read is not None for pair in self.pairs)


class Algebra:
    """Products and vectors over one builder: sorted by how they are computed, so that order does not matter."""

    def __init__(self, builder: Builder) -> None:
        self.builder, self.signature = builder, Signatures(builder)
        self._wholes = tuple(self._named())

    def _named(self) -> Iterable[tuple[Product, int]]:
        """Products that the author gave a name, those of most factors first."""
        body = tuple(self.builder.body)
        of_state = depends_on(body, ("state",))
        terms = Terms(self.builder, {})
        found = []
        for position, instr in enumerate(body):
            if instr.name is None or of_state[position] or len(instr.axes) > 1 or instr.op != "mul":
                continue
            (term, *others) = terms.of(position)
            if others or term.negative or term.labels != set(term.out):
                continue
            scalars = self.sorted(f.value for f in term.factors if not f.labels)
            vector = self.sorted(f.value for f in term.factors if f.labels)
            if len(scalars) + len(vector) > 1:
                found.append((Product(scalars, vector), position))
        return sorted(found, key=lambda pair: -len(pair[0].scalars) - len(pair[0].vector))

    def folded(self, product: Product) -> Product:
        """A product in the author's names: factors that have one together are that value."""
        for whole, position in self._wholes:
            scalars, vector = _without(product.scalars, whole.scalars), _without(product.vector, whole.vector)
            if scalars is None or vector is None:
                continue
            if whole.vector:
                vector = self.sorted((*vector, position))
            else:
                scalars = self.sorted((*scalars, position))
            product = replace(product, scalars=scalars, vector=vector)
        return product

    def sorted(self, values: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted(values, key=lambda value: (self.signature(value), value)))

    def times(self, x: Product, y: Product) -> Product:
        return Product(
            self.sorted((*x.scalars, *y.scalars)), self.sorted((*x.vector, *y.vector)), x.negative != y.negative
        )

    def ordered(self, products: Iterable[Product]) -> Sum:
        """A sum in an order that does not depend on how the spec was written, what is subtracted last."""

        def rank(product: Product) -> tuple[bool, int, list[str]]:
            factors = (*product.scalars, *product.vector)
            return product.negative, len(factors), [self.signature(value) for value in factors]

        return tuple(sorted(products, key=rank))

    def all_times(self, sum_: Sum, y: Product) -> Sum:
        return tuple(self.times(x, y) for x in sum_)

    def dot(self, x: Vector, y: Vector, axis_size: int) -> int:
        """The scalar product of two vectors along one axis (``axis_size`` is the axis' length as a value)."""
        left, right = (self.vector_value(v) for v in (x, y))
        if left is None and right is None:
            return axis_size
        if left is None or right is None:
            only = left if left is not None else right
            assert only is not None
            return self.builder.sum(only, 0)
        return self.builder.contract(left, right, (0,), (0,), ())

    def vector_value(self, vector: Vector) -> int | None:
        """A product of vectors as a value, None for ones."""
        result: int | None = None
        for value in self.folded(Product((), vector)).vector:
            result = value if result is None else self.builder.mul(result, value)
        return result


# ---------------------------------------------------------------- one link


@dataclass(frozen=True)
class Subject:
    """What a link is made of, for reasons: the state, the names of its axes and where the value was written."""

    state: str
    axes: tuple[str, ...]
    span: Span | None

    def others(self, mixed: int) -> str:
        return " and ".join(name for i, name in enumerate(self.axes) if i != mixed)

    def reason(self, text: str) -> Reason:
        return Reason(text.format(f"`{self.state}`"), self.span)


def link_of(algebra: Algebra, terms: Sequence[Term], mixed: int, subject: Subject) -> RawLink:
    """The link that the terms of a new matrix (or vector) are, mixed along the axis at position ``mixed``.

    NotLinear with the reason if they are no diagonal plus low rank along that axis.
    """
    decays: list[Product] = []
    pairs: list[RawPair] = []
    for term in terms:
        parts = _components(algebra, term, subject)
        if term.basis is None:
            pairs.append(_given(parts, term, mixed, subject))
        elif term.basis.labels == term.out:
            decays.append(_decay(parts, term, mixed, subject))
        else:
            pairs.append(_read(parts, term, mixed, subject))
    if len(decays) > 1:
        decay = _summed(algebra, decays)
    elif decays:
        decay = decays[0]
    else:
        decay = Product((algebra.builder.const(0.0),))
    return tidy(algebra, RawLink(decay, tuple(pairs)))


@dataclass(frozen=True)
class _Parts:
    """The factors of a term by what they lie along: a label each, or nothing (``scalars``)."""

    scalars: tuple[int, ...]
    vectors: dict[int, tuple[int, ...]]
    mixed: tuple[Factor, ...]


def _components(algebra: Algebra, term: Term, subject: Subject) -> _Parts:
    """Factors sorted by label; labels that only coefficients share are summed away."""
    builder = algebra.builder
    kept = set(term.out) | (set(term.basis.labels) if term.basis else set())
    factors = list(term.factors)
    for label in sorted(term.labels - kept):
        touching = [f for f in factors if label in f.labels]
        others = sorted({other for f in touching for other in f.labels if other != label})
        if len(others) > 1:
            raise NotLinear(subject.reason(DENSE))
        factors = [f for f in factors if label not in f.labels]
        factors.append(_contracted(algebra, touching, label, others, term))
    scalars = tuple(f.value for f in factors if not f.labels)
    vectors: dict[int, tuple[int, ...]] = {}
    for factor in factors:
        if len(factor.labels) == 1:
            vectors[factor.labels[0]] = algebra.sorted((*vectors.get(factor.labels[0], ()), factor.value))
    mixed = tuple(f for f in factors if len(f.labels) > 1)
    return _Parts(algebra.sorted(v for v in scalars if not builder.is_const(v, 1.0)), vectors, mixed)


def _contracted(algebra: Algebra, factors: Sequence[Factor], label: int, others: Sequence[int], term: Term) -> Factor:
    """The sum over a label of a product: a scalar product of vectors, or a matrix times a vector."""
    builder = algebra.builder
    vector = algebra.vector_value(algebra.sorted(f.value for f in factors if len(f.labels) == 1))
    matrices = [f for f in factors if len(f.labels) > 1]
    if not matrices:
        size = builder.size(term.axes[label].size)
        plain = [f.value for f in factors]
        if len(plain) < 2:
            return Factor(size if vector is None else builder.sum(vector, 0), ())
        half = algebra.sorted(plain)
        left, right = half[:1], half[1:]
        return Factor(algebra.dot(left, right, size), ())
    whole = matrices[0].value
    for other in matrices[1:]:
        order = tuple(other.labels.index(at) for at in matrices[0].labels)
        whole = builder.mul(whole, builder.broadcast(other.value, builder.axes(whole), order))
    labels = matrices[0].labels
    at = labels.index(label)
    if vector is None:
        return Factor(builder.sum(whole, at), tuple(others))
    return Factor(builder.contract(whole, vector, (0, 1), (at,), (1 - at,)), tuple(others))


def _given(parts: _Parts, term: Term, mixed: int, subject: Subject) -> RawPair:
    if parts.mixed:
        raise NotLinear(subject.reason("what is written to {} is a matrix that is no outer product"))
    others = [label for i, label in enumerate(term.out) if i != mixed]
    value = Product(parts.scalars, parts.vectors.get(others[0], ()) if others else (), term.negative)
    return RawPair(parts.vectors.get(term.out[mixed], ()), (value,))


def _decay(parts: _Parts, term: Term, mixed: int, subject: Subject) -> Product:
    if parts.mixed:
        raise NotLinear(subject.reason("every entry of {} has a decay of its own"))
    if any(parts.vectors.get(label) for i, label in enumerate(term.out) if i != mixed):
        raise WrongAxis(subject.reason(f"the decay of {{}} varies along {subject.others(mixed)}"))
    return Product(parts.scalars, parts.vectors.get(term.out[mixed], ()), term.negative)


def _read(parts: _Parts, term: Term, mixed: int, subject: Subject) -> RawPair:
    basis = term.basis
    assert basis is not None
    moved = [i for i, label in enumerate(term.out) if basis.labels[i] != label]
    if any(basis.labels[i] in term.out for i in moved):
        raise NotLinear(subject.reason("{} is transposed"))
    if parts.mixed:
        raise NotLinear(subject.reason(DENSE))
    if moved != [mixed]:
        raise WrongAxis(subject.reason(f"{{}} is mixed along {' and '.join(subject.axes[i] for i in moved)}"))
    if any(parts.vectors.get(label) for i, label in enumerate(term.out) if i != mixed):
        raise WrongAxis(subject.reason(f"what is read of {{}} is scaled along {subject.others(mixed)}"))
    read = parts.vectors.get(basis.labels[mixed], ())
    key = parts.vectors.get(term.out[mixed], ())
    return RawPair(key, (), read, (Product(parts.scalars, (), term.negative),), post=False)


def _summed(algebra: Algebra, decays: Sequence[Product]) -> Product:
    """A decay that is a sum, ``(1 - b) * S`` written out: one value."""
    total = value_of(algebra, algebra.ordered(decays), ())
    return Product((), (total,)) if algebra.builder.axes(total) else Product((total,))


# ---------------------------------------------------------------- links that become one


def tidy(algebra: Algebra, link: RawLink) -> RawLink:
    """Pairs with one key are one pair; reads see the decayed matrix where that is how they can be said."""
    pairs = [_as_post(algebra, pair, link.decay) for pair in link.pairs]
    merged: list[RawPair] = []
    for pair in pairs:
        for index, other in enumerate(merged):
            joined = _same_key(pair, other)
            if joined is not None:
                merged[index] = joined
                break
        else:
            merged.append(pair)
    return RawLink(link.decay, tuple(merged))


def _same_key(x: RawPair, y: RawPair) -> RawPair | None:
    if x.key != y.key or (x.read is not None and y.read is not None and (x.read, x.post) != (y.read, y.post)):
        return None
    reader = x if x.read is not None else y
    return replace(reader, value=(*y.value, *x.value), scale=(*y.scale, *x.scale))


def _as_post(algebra: Algebra, pair: RawPair, decay: Product) -> RawPair:
    """A read before the decay is one after it where its coefficient holds the decay as a factor."""
    if pair.read is None or pair.post:
        return pair
    scales = [_without(product.scalars, decay.scalars) for product in pair.scale]
    read = _without(pair.read, decay.vector)
    if read is None or any(scalars is None for scalars in scales):
        return pair
    scale = tuple(
        replace(product, scalars=scalars or (), negative=product.negative != decay.negative)
        for product, scalars in zip(pair.scale, scales, strict=True)
    )
    return replace(pair, read=algebra.sorted(read), scale=scale, post=True)


def _without(values: tuple[int, ...], less: tuple[int, ...]) -> tuple[int, ...] | None:
    left = Counter(values)
    left.subtract(Counter(less))
    if min(left.values(), default=0) < 0:
        return None
    return tuple(value for value in values if left[value] > 0 and not left.subtract([value]))


def merge(algebra: Algebra, first: RawLink, second: RawLink, axis_size: int) -> RawLink | None:
    """Two consecutive links as one, None where both read."""
    if first.reads and second.reads:
        return None
    decay = algebra.times(first.decay, second.decay)
    written = tuple(_decayed(algebra, pair, first.decay, second.decay) for pair in first.pairs)
    if first.reads:
        return tidy(algebra, RawLink(decay, (*written, *second.pairs)))
    read = []
    for pair in second.pairs:
        if pair.read is None:
            read.append(pair)
            continue
        seen = second.decay if pair.post else ONE  # how what the first link wrote has decayed when it is read
        if pair.post or second.decay == ONE:
            moved = replace(pair, post=True)
        else:
            vector = algebra.sorted((*pair.read, *first.decay.vector))
            scale = algebra.all_times(pair.scale, replace(first.decay, vector=()))
            moved = replace(pair, read=vector, scale=scale)
        value = list(pair.value)
        for other in first.pairs:
            key = algebra.sorted((*other.key, *seen.vector))
            overlap = Product((algebra.dot(pair.read, key, axis_size),), (), seen.negative)
            factor = algebra.times(overlap, Product(seen.scalars))
            value += [algebra.times(algebra.times(c, factor), z) for c in pair.scale for z in other.value]
        read.append(replace(moved, value=tuple(value)))
    return tidy(algebra, RawLink(decay, (*written, *read)))


def _decayed(algebra: Algebra, pair: RawPair, before: Product, after: Product) -> RawPair:
    """A pair whose write decays afterwards, in a link whose decay includes that."""
    key = algebra.sorted((*pair.key, *after.vector))
    scalar = replace(after, vector=())
    value = algebra.all_times(pair.value, scalar)
    if pair.read is None:
        return replace(pair, key=key, value=value)
    if not after.vector and pair.post:
        return replace(pair, value=value)  # what it reads has decayed as well: the factor is in there
    scale = algebra.all_times(pair.scale, scalar)
    if not pair.post:
        return replace(pair, key=key, value=value, scale=scale)
    read = algebra.sorted((*pair.read, *before.vector))
    scale = algebra.all_times(scale, replace(before, vector=()))
    return replace(pair, key=key, value=value, read=read, scale=scale, post=False)


# ---------------------------------------------------------------- values


def value_of(algebra: Algebra, products: Sum, shape: Sequence[int]) -> int:
    """A sum of products as one value; ``shape`` are values whose axes it has at least (for ones)."""
    builder = algebra.builder
    total: int | None = None
    for product in map(algebra.folded, products):
        value: int | None = None
        for scalar in product.scalars:
            value = scalar if value is None else builder.mul(value, scalar)
        vector = algebra.vector_value(product.vector)
        if vector is not None:
            value = vector if value is None else builder.mul(value, vector)
        value = builder.const(1.0) if value is None else value
        if total is None:
            total = builder.apply("neg", value) if product.negative else value
        else:
            total = builder.apply("sub" if product.negative else "add", total, value)
    result = builder.const(0.0) if total is None else total
    for like in shape:
        result = builder.spread(result, builder.axes(like))
    return result
