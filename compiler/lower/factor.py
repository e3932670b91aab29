"""Products in the cheapest order: multiplications move to where values are small.

``beta * outer(k, v)`` multiplies a matrix as it is written; ``outer(k, beta * v)`` multiplies a vector. Every
value that is a product of factors, each along some of its axes, possibly summed over others, is an
einsum; its factors are multiplied in the order that takes the fewest operations. Terms of a sum that
share a factor are added first: ``outer(k, v) - outer(k, r)`` becomes ``outer(k, v - r)``. Adjoints, which
are derived operation by operation, gain most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, count

from ..autodiff.reverse import AdjointStep
from ..ir.builder import Builder
from ..ir.program import Body, Program
from ..ir.types import Axes, Axis

MOST_FACTORS = 6
"""Longer products are cut: the search for the best order takes time exponential in their length."""


def factor_program(program: Program, sizes: Mapping[str, int]) -> Program:
    """The same recurrence with its products in the cheapest order at these sizes."""
    body, written = rewrite(program.body, program.roots(), sizes)
    states = tuple(replace(s, next=written[s.next]) for s in program.states)
    outputs = tuple(replace(o, value=written[o.value]) for o in program.outputs)
    return replace(program, states=states, outputs=outputs, body=body)


def factor_adjoint(step: AdjointStep, sizes: Mapping[str, int]) -> AdjointStep:
    """The same adjoint step with its products in the cheapest order; values of the step itself keep their places."""
    weights = {value for _, value in step.params if value is not None}
    body, written = rewrite(step.body, step.roots(), sizes, step.own, weights)

    def rewritten(named: Iterable[tuple[str, int | None]]) -> tuple[tuple[str, int | None], ...]:
        return tuple((name, None if value is None else written[value]) for name, value in named)

    states, inputs, params = rewritten(step.states), rewritten(step.inputs), rewritten(step.params)
    return replace(step, body=body, inputs=inputs, params=params, states=states)


def rewrite(
    body: Body,
    roots: Iterable[int],
    sizes: Mapping[str, int],
    fixed: int = 0,
    weights: Container[int] = (),
) -> tuple[Body, dict[int, int]]:
    """The body with cheaper values behind it, and for each root the value that it becomes.

    A first run counts which products of two factors could serve several values; the second prefers them.
    """
    roots = tuple(roots)
    shared: Counter[_Pair] = Counter()
    for _ in range(2):
        writer = _Writer(body, sizes, fixed, shared)
        written = {root: writer.weight(root) if root in weights else writer.value(root) for root in roots}
        shared = writer.pairs
    return tuple(writer.builder.body), written


@dataclass(frozen=True)
class _Factor:
    """A value whose axes lie along the given labels of a product."""

    value: int
    labels: tuple[int, ...]


_Pair = tuple[tuple[tuple[int, tuple[int, ...]], ...], tuple[int, ...]]
"""Two factors and the labels of their product, whatever the labels are called."""


@dataclass(frozen=True)
class _Product:
    """``sign * sum over labels that are not in out of the product of the factors``; ``axes`` are by label."""

    factors: tuple[_Factor, ...]
    out: tuple[int, ...]
    axes: Mapping[int, Axis]
    negative: bool = False

    @property
    def summed(self) -> frozenset[int]:
        return frozenset(self.axes) - frozenset(self.out)


class _Writer:
    """Rewrites values of a body on demand; what it writes stands behind the body. Values before ``fixed`` stay."""

    def __init__(self, body: Body, sizes: Mapping[str, int], fixed: int, shared: Counter[_Pair]) -> None:
        self.source, self.sizes, self.fixed, self.shared = body, sizes, fixed, shared
        self.builder = Builder(body)
        self.pairs: Counter[_Pair] = Counter()
        self._made: set[_Pair] = set()
        self._is_weight = False
        self._products: dict[int, _Product] = {}
        self._values: dict[int, int] = {}

    def value(self, position: int) -> int:
        """The rewritten value."""
        if position not in self._values:
            self._values[position] = self._write(position)
        return self._values[position]

    def weight(self, position: int) -> int:
        """The rewritten gradient of a param: a product of two values to the end, to be formed of many steps."""
        self._is_weight = True
        value = self.value(position)
        self._is_weight = False
        return value

    def _write(self, position: int) -> int:
        instr = self.source[position]
        if position < self.fixed or instr.op in ("leaf", "const", "size"):
            return position
        previous, self.builder.span = self.builder.span, instr.span
        product = self.product(position)
        if instr.op in ("add", "sub"):
            written = self._sum(position)
        elif self._is_worth(product):
            written = self._einsum(product)
        else:
            written = self.builder.emit(instr.op, tuple(map(self.value, instr.args)), instr.attrs, instr.axes)
        if instr.name is not None:
            self.builder.label(written, instr.name)
        self.builder.span = previous
        return written

    def _is_worth(self, product: _Product) -> bool:
        """Whether factors differ in their axes or are summed: otherwise the author's order is as good."""
        large = [f for f in product.factors if f.labels]
        uneven = any(set(f.labels) != set(product.out) for f in large)
        return len(product.factors) > 1 and bool(large) and (uneven or bool(product.summed))

    # ------------------------------------------------------------ values as products

    def product(self, position: int) -> _Product:
        """A value as a product; of one factor, itself, where it is none."""
        if position not in self._products:
            found = self._product(position)
            if found is None or len(found.factors) > MOST_FACTORS:
                found = self._atom(position)
            self._products[position] = found
        return self._products[position]

    def _atom(self, position: int) -> _Product:
        axes = self.source[position].axes
        labels = tuple(range(len(axes)))
        return _Product((_Factor(position, labels),), labels, dict(enumerate(axes)))

    def _unsummed(self, position: int) -> _Product:
        """A value as a factor of a larger product: sums stay together."""
        product = self.product(position)
        return self._atom(position) if product.summed else product

    def _product(self, position: int) -> _Product | None:
        instr = self.source[position]
        if position < self.fixed and instr.op not in ("mul", "neg", "contract", "broadcast"):
            return None
        match instr.op:
            case "neg":
                inner = self.product(instr.args[0])
                return replace(inner, negative=not inner.negative)
            case "mul":
                labels = tuple(range(len(instr.axes)))
                return _joined([(self._unsummed(arg), labels) for arg in instr.args], labels, instr.axes)
            case "contract":
                left, right, out = instr.attrs
                parts = [(self._unsummed(arg), own) for arg, own in zip(instr.args, (left, right), strict=True)]
                return _joined(parts, out, instr.axes)
            case "broadcast":
                (source,) = instr.attrs
                labels = tuple(range(len(source)))
                own = [0] * len(self.source[instr.args[0]].axes)
                for label, origin in zip(labels, source, strict=True):
                    if origin >= 0:
                        own[origin] = label
                inner = self.product(instr.args[0])
                renames = -1 not in source
                return _joined([(inner if renames else self._unsummed(instr.args[0]), tuple(own))], labels, instr.axes)
            case "sum":
                inner = self.product(instr.args[0])
                (position,) = instr.attrs
                return replace(inner, out=inner.out[:position] + inner.out[position + 1 :])
        return None

    # ------------------------------------------------------------ products as values

    def _einsum(self, product: _Product) -> int:
        """Multiply the factors of a product in the best order."""
        builder = self.builder
        scalars = [self.value(f.value) for f in product.factors if not f.labels]
        factors = [_Factor(self.value(f.value), f.labels) for f in product.factors if f.labels]
        covered = {label for f in factors for label in f.labels}
        scalars += [builder.size(product.axes[label].size) for label in sorted(product.summed - covered)]
        out = tuple(label for label in product.out if label in covered)
        scale = scalars[0] if scalars else None
        for scalar in scalars[1:]:
            scale = builder.mul(scale, scalar)  # type: ignore[arg-type]
        if scale is not None and product.negative:
            scale = builder.apply("neg", scale)
        signed = product.negative and scale is None
        least = min(range(len(factors)), key=lambda i: (self._size(factors[i].labels, product), -i), default=None)
        if least is None:
            assert scale is not None
            return self._shaped(scale, (), product)
        smallest, whole = self._size(factors[least].labels, product), self._size(out, product)
        late = whole <= smallest and not self._is_weight
        if not late:
            value = factors[least].value
            value = builder.mul(value, scale) if scale is not None else value
            factors[least] = replace(factors[least], value=builder.apply("neg", value) if signed else value)
        result = self._best(factors, out, product)
        value = result.value
        if late:
            value = builder.mul(value, scale) if scale is not None else value
            value = builder.apply("neg", value) if signed else value
        return self._shaped(value, result.labels, product)

    def _size(self, labels: Iterable[int], product: _Product) -> int:
        return math.prod(product.axes[label].size.bind(self.sizes) for label in labels)

    def _shaped(self, value: int, labels: tuple[int, ...], product: _Product) -> int:
        """A value along some labels under the axes of the product's result."""
        axes = tuple(product.axes[label] for label in product.out)
        source = tuple(labels.index(label) if label in labels else -1 for label in product.out)
        return self.builder.broadcast(value, axes, source)

    def _best(self, factors: list[_Factor], order: tuple[int, ...], product: _Product) -> _Factor:
        """All factors multiplied and summed: the cheapest tree over subsets, earlier factors first at a tie.

        ``order`` are the labels that stay; the result has them in this order where it can.
        """
        number, out = len(factors), frozenset(order)
        everything = frozenset(range(number))

        def left(subset: frozenset[int]) -> frozenset[int]:
            """Labels of a subset's product that are still needed."""
            inside = {label for i in subset for label in factors[i].labels}
            outside = {label for i in everything - subset for label in factors[i].labels}
            return frozenset(inside & (out | outside))

        best: dict[frozenset[int], tuple[int, tuple[frozenset[int], frozenset[int]] | None]] = {
            frozenset((i,)): (0, None) for i in range(number)
        }
        for size in range(2, number + 1):
            for chosen in combinations(range(number), size):
                subset = frozenset(chosen)
                splits = [
                    (frozenset(part), subset - frozenset(part))
                    for count in range(1, size // 2 + 1)
                    for part in combinations(chosen, count)
                ]
                pair = _pair([factors[i] for i in chosen], left(subset)) if size == 2 else None
                if pair is not None:
                    self.pairs[pair] += 1
                made = pair in self._made
                costs = [
                    (best[a][0] + best[b][0] + (0 if made else self._size(left(a) | left(b), product)), (a, b))
                    for a, b in splits
                ]
                # of equally cheap orders the one that begins with a product that others can use
                wanted = {s: -max(self._use(part, factors, left) for part in s) for _, s in costs}
                best[subset] = min(costs, key=lambda cost: (cost[0], wanted[cost[1]]))

        def build(subset: frozenset[int]) -> _Factor:
            split = best[subset][1]
            if split is None:
                (index,) = subset
                return self._summed(factors[index], left(subset))
            if len(subset) == 2:
                self._made.add(_pair([factors[i] for i in sorted(subset)], left(subset)))
            parts = sorted(split, key=min)
            wanted = order if subset == everything else ()
            return self._multiplied(build(parts[0]), build(parts[1]), left(subset), wanted)

        return build(everything)

    def _use(
        self, part: frozenset[int], factors: list[_Factor], left: Callable[[frozenset[int]], frozenset[int]]
    ) -> int:
        """How many products could use the product of two factors."""
        return self.shared[_pair([factors[i] for i in sorted(part)], left(part))] if len(part) == 2 else 0

    def _summed(self, factor: _Factor, needed: frozenset[int]) -> _Factor:
        """A factor without the labels that nothing else has."""
        value, labels = factor.value, factor.labels
        for position in reversed(range(len(labels))):
            if labels[position] not in needed:
                value = self.builder.sum(value, position)
                labels = labels[:position] + labels[position + 1 :]
        return _Factor(value, labels)

    def _multiplied(self, x: _Factor, y: _Factor, needed: frozenset[int], wanted: tuple[int, ...]) -> _Factor:
        if not x.labels or not y.labels or (x.labels == y.labels and needed == set(x.labels)):
            value = self.builder.mul(x.value, y.value) if self._alike(x, y) else self._renamed_mul(x, y)
            return _Factor(value, x.labels or y.labels)
        first = x if len(x.labels) >= len(y.labels) else y
        second = y if first is x else x
        found = tuple(dict.fromkeys(label for label in (*first.labels, *second.labels) if label in needed))
        out = wanted if set(wanted) == set(found) else found
        alone = [label for label in (*x.labels, *y.labels) if label not in needed]
        lonely = {label for label in alone if (label in x.labels) != (label in y.labels)}
        assert not lonely, "a label of one factor alone is summed before"
        return _Factor(self.builder.contract(x.value, y.value, x.labels, y.labels, out), out)

    def _alike(self, x: _Factor, y: _Factor) -> bool:
        axes = self.builder.axes
        return not x.labels or not y.labels or axes(x.value) == axes(y.value)

    def _renamed_mul(self, x: _Factor, y: _Factor) -> int:
        axes = self.builder.axes(x.value)
        return self.builder.mul(x.value, self.builder.broadcast(y.value, axes, tuple(range(len(axes)))))

    # ------------------------------------------------------------ sums of products

    def _sum(self, position: int) -> int:
        """A sum whose terms share factors, the shared factors taken out; otherwise term by term."""
        builder = self.builder
        instr = self.source[position]
        terms = self._terms(position, False)
        merged = self._merge([(negative, self.product(p)) for negative, p in terms]) if len(terms) > 2 else None
        if merged is None:
            x, y = instr.args
            inner = self.product(y)
            if inner.negative and self._is_worth(inner):
                flipped = self._einsum(replace(inner, negative=False))
                return builder.apply("sub" if instr.op == "add" else "add", self.value(x), flipped)
            return builder.apply(instr.op, self.value(x), self.value(y))
        kept, pairs = merged
        result: int | None = None
        for index, (negative, p) in enumerate(terms):
            if index not in kept:
                continue
            value = self.value(p)
            result = self._plus(result, value, negative)
        for value in pairs:
            result = self._plus(result, value, False)
        assert result is not None
        return result

    def _plus(self, total: int | None, value: int, negative: bool) -> int:
        if total is None:
            return self.builder.apply("neg", value) if negative else value
        return self.builder.apply("sub" if negative else "add", total, value)

    def _terms(self, position: int, negative: bool) -> list[tuple[bool, int]]:
        """The terms of a chain of additions, with signs."""
        instr = self.source[position]
        if instr.op not in ("add", "sub") or position < self.fixed:
            return [(negative, position)]
        x, y = instr.args
        return [*self._terms(x, negative), *self._terms(y, negative != (instr.op == "sub"))]

    def _merge(self, terms: list[tuple[bool, _Product]]) -> tuple[set[int], list[int]] | None:
        """Terms to add as they are, and the outer products that others become; None if no terms share a factor."""
        groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for index, (_, product) in enumerate(terms):
            shared = _outer(product)
            if shared is not None:
                groups.setdefault((shared.value, _places(shared, product)), []).append(index)
        groups = {key: members for key, members in groups.items() if len(members) > 1}
        if not groups:
            return None
        builder, values = self.builder, []
        for members in groups.values():
            total: int | None = None
            for index in members:
                negative, product = terms[index]
                shared = _outer(product)
                assert shared is not None
                rest = tuple(f for f in product.factors if f is not shared)
                out = tuple(label for label in product.out if label not in shared.labels)
                part = _Product(rest, out, {label: product.axes[label] for label in out}, product.negative != negative)
                flipped = total is not None and part.negative
                value = self._einsum(replace(part, negative=part.negative and not flipped))
                total = value if total is None else builder.apply("sub" if flipped else "add", total, value)
            product = terms[members[0]][1]
            shared = _outer(product)
            assert shared is not None and total is not None
            out = tuple(label for label in product.out if label not in shared.labels)
            both = [_Factor(self.value(shared.value), shared.labels), _Factor(total, out)]
            result = self._best(both, product.out, product)
            values.append(self._shaped(result.value, result.labels, product))
        taken = {index for members in groups.values() for index in members}
        return set(range(len(terms))) - taken, values


def _joined(parts: list[tuple[_Product, tuple[int, ...]]], out: tuple[int, ...], axes: Axes) -> _Product:
    """Products multiplied: each comes with the labels that its own axes have in the whole; what it sums over gets
    labels of its own."""
    factors: list[_Factor] = []
    found: dict[int, Axis] = {}
    negative = False
    unused = count(1 + max((*out, *chain.from_iterable(labels for _, labels in parts)), default=0))
    for product, labels in parts:
        names = dict(zip(product.out, labels, strict=True))
        names |= {label: next(unused) for label in sorted(product.summed)}
        found |= {names[label]: axis for label, axis in product.axes.items() if label in names}
        factors += [replace(f, labels=tuple(names[label] for label in f.labels)) for f in product.factors]
        negative ^= product.negative
    return _Product(tuple(factors), out, {**found, **dict(zip(out, axes, strict=True))}, negative)


def _pair(factors: Sequence[_Factor], needed: frozenset[int]) -> _Pair:
    names: dict[int, int] = {}
    ordered = sorted(factors, key=lambda f: f.value)
    for factor in ordered:
        for label in factor.labels:
            names.setdefault(label, len(names))
    described = tuple((f.value, tuple(names[label] for label in f.labels)) for f in ordered)
    return described, tuple(sorted(names[label] for label in needed if label in names))


def _outer(product: _Product) -> _Factor | None:
    """The factor of an outer product that others may share: the only one along its axes, the rest lies along others."""
    large = [f for f in product.factors if f.labels]
    if product.summed or len(large) < 2 or set().union(*(f.labels for f in large)) != set(product.out):
        return None
    for factor in large:
        if all(not set(f.labels) & set(factor.labels) for f in large if f is not factor):
            return factor
    return None


def _places(factor: _Factor, product: _Product) -> tuple[int, ...]:
    return tuple(product.out.index(label) for label in factor.labels)
