"""One sub-step of a state's transition as decay plus low rank, and how consecutive sub-steps become one.

A link takes a matrix ``X`` to ``diag(d) X + sum_i k_i n_i^T`` with ``n_i = z_i + c_i (r_i^T X)``: pair i writes along
``k_i`` what it was given (``z_i``) and what it read under ``r_i``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...dsl.source import Span
from .linear import Reason
from .products import ONE, Algebra, Product, Sum, Vector, value_of, without
from .terms import Factor, NotLinear, Term, WrongAxis

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
    scales = [without(product.scalars, decay.scalars) for product in pair.scale]
    read = without(pair.read, decay.vector)
    if read is None or any(scalars is None for scalars in scales):
        return pair
    scale = tuple(
        replace(product, scalars=scalars or (), negative=product.negative != decay.negative)
        for product, scalars in zip(pair.scale, scales, strict=True)
    )
    return replace(pair, read=algebra.sorted(read), scale=scale, post=True)


def merged(algebra: Algebra, links: Sequence[RawLink], axis_size: int, early: bool = False) -> list[RawLink]:
    """The same chain in as few links as reads allow, whatever the links were.

    Scalar decays commute with reads and come first. What is written joins the link before it. A decay along the mixed
    axis between two reads is the second one's, unless something is written between them; with ``early`` always the
    first one's.
    """
    done: list[RawLink] = []
    decay = RawLink(ONE, ())
    for part in _scalars_first(algebra, [part for link in links for part in _parts(link)]):
        if not part.pairs and done and not early:
            decay = RawLink(algebra.times(decay.decay, part.decay), ())
            continue
        if decay.decay != ONE:
            if part.reads and done[-1].reads:
                part = _merge(algebra, decay, part, axis_size)
            else:
                done[-1] = _merge(algebra, done[-1], decay, axis_size)
            decay = RawLink(ONE, ())
        if done and not (done[-1].reads and part.reads):
            done[-1] = _merge(algebra, done[-1], part, axis_size)
        else:
            done.append(part)
    if decay.decay != ONE:
        done[-1] = _merge(algebra, done[-1], decay, axis_size)
    return done


def _parts(link: RawLink) -> list[RawLink]:
    """A link as decay, reads and writes, as far as one can come after the other."""
    reads = tuple(replace(pair, value=()) for pair in link.pairs if pair.read is not None)
    given = tuple(RawPair(pair.key, pair.value) for pair in link.pairs if pair.value)
    apart = all(pair.post for pair in reads)
    found = [RawLink(link.decay, ())] if apart else []
    if reads:
        found.append(RawLink(ONE if apart else link.decay, reads))
    return [*found, RawLink(ONE, given)] if given else found


def _scalars_first(algebra: Algebra, parts: Sequence[RawLink]) -> list[RawLink]:
    """The parts with the scalars of all decays in front; what was written before a decay is scaled instead."""
    found: list[RawLink] = []
    factor = ONE
    for part in reversed(parts):
        if part.reads:
            found.append(part)
        elif part.pairs:
            scaled = [replace(pair, value=algebra.all_times(pair.value, factor)) for pair in part.pairs]
            found.append(RawLink(ONE, tuple(scaled)))
        else:
            factor = algebra.times(factor, replace(part.decay, vector=()))
            found.append(RawLink(Product((), part.decay.vector), ()))
    return [RawLink(factor, ()), *reversed(found)]


def _merge(algebra: Algebra, first: RawLink, second: RawLink, axis_size: int) -> RawLink:
    """Two consecutive links as one; at most one of them reads."""
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
