"""Products of values and sums of them, as sorted tuples: equal ones are seen to be equal, whoever wrote them how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..ir.builder import Builder
from ..ir.program import depends_on
from .terms import Signatures, Terms

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
            scalars, vector = without(product.scalars, whole.scalars), without(product.vector, whole.vector)
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


def without(values: tuple[int, ...], less: tuple[int, ...]) -> tuple[int, ...] | None:
    """Factors less others, None where those are not all among them."""
    left = Counter(values)
    left.subtract(Counter(less))
    if min(left.values(), default=0) < 0:
        return None
    return tuple(value for value in values if left[value] > 0 and not left.subtract([value]))


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
