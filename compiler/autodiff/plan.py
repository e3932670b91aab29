"""What the backward pass keeps from the forward pass, and what it computes again.

States before each step come back from a trajectory that is rebuilt chunk by chunk. Everything else
of the step is recomputed from them, except products of the state with a matrix of the params: they
are kept, because they cost most, and because without them only one orientation of the matrix has to
stay on chip. Where memory near the processor is ample, what takes long to compute is kept as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..ir.program import Body, depends_on, live
from ..ir.types import Axes
from .reverse import AdjointStep


@dataclass(frozen=True)
class Saved:
    """A value of the step that the forward side writes down for the adjoint: leaf ("saved", name)."""

    name: str
    value: int
    axes: Axes


@dataclass(frozen=True)
class Product:
    """A param's gradient as a sum over steps of products of two values, formed after the loop.

    ``left`` and ``right`` are values of the adjoint body; the labels are those of an einsum.
    """

    param: str
    left: int
    right: int
    labels: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """An adjoint step in which kept values are leaves."""

    body: Body
    saved: tuple[Saved, ...]
    inputs: tuple[tuple[str, int | None], ...]
    params: tuple[tuple[str, int | None], ...]
    states: tuple[tuple[str, int | None], ...]
    products: tuple[Product, ...]

    def wanted(self) -> tuple[int, ...]:
        """All values that the adjoint step has to produce."""
        values = [value for _, value in (*self.inputs, *self.params, *self.states) if value is not None]
        return (*values, *(value for p in self.products for value in (p.left, p.right)))


DEAR = frozenset("exp expm1 log log1p tanh sigmoid logsigmoid softplus erf sin cos pow sqrt rsqrt".split())
"""Operations that take ten times as long as an addition, or longer."""

_SUMS = frozenset(("contract", "sum", "amax"))


def plan(step: AdjointStep, *, keep_dear: bool = False, keep_products: bool = True) -> Plan:
    """Decide what is kept and which gradients are formed after the loop.

    Products of the state with matrices of the params are kept unless told otherwise; with ``keep_dear`` also
    results of ``DEAR`` operations and sums that the new states need anyway.
    """
    body = step.body
    products: list[Product] = []
    params: list[tuple[str, int | None]] = []
    for name, value in step.params:
        found = products_of(body, name, value) if value is not None else None
        if found is None or any(set(p.labels[0]) & set(p.labels[1]) for p in found):
            params.append((name, value))
        else:
            products += found
            params.append((name, None))
    wanted = [v for _, v in (*step.inputs, *params, *step.states) if v is not None]
    wanted += [value for p in products for value in (p.left, p.right)]
    kept = _dear(step) if keep_dear else frozenset()
    body, saved = _keep(body, step.own, wanted, kept | (_products(step) if keep_products else frozenset()))
    return Plan(body, saved, step.inputs, tuple(params), step.states, tuple(products))


def products_of(body: Body, param: str, value: int) -> list[Product] | None:
    """The contractions that the cotangent of a matrix is a sum of, or None if it is anything else."""
    instr = body[value]
    match instr.op:
        case "add":
            parts = [products_of(body, param, arg) for arg in instr.args]
            return None if None in parts else [product for part in parts if part for product in part]
        case "broadcast" if -1 not in instr.attrs[0]:
            found = products_of(body, param, instr.args[0])
            return found and [_moved(p, instr.attrs[0]) for p in found]
        case "contract" if len(instr.axes) >= 2:
            left, right = instr.args
            first, second, out = instr.attrs
            return [Product(param, left, right, (first, second, out))]
    return None


def _moved(product: Product, source: tuple[int, ...]) -> Product:
    left, right, out = product.labels
    return replace(product, labels=(left, right, tuple(out[position] for position in source)))


def _dear(step: AdjointStep) -> frozenset[int]:
    """Results of dear operations and of sums that the new states are computed from, step by step."""
    body = step.body
    varies = depends_on(body, ("input", "state"))
    return frozenset(p for p in live(body, step.next) if varies[p] and (body[p].op in DEAR or _sums(body, p)))


def _sums(body: Body, position: int) -> bool:
    """Whether a value is a sum over entries of larger ones."""
    instr = body[position]
    return instr.op in _SUMS and len(instr.axes) < max(len(body[arg].axes) for arg in instr.args)


def _products(step: AdjointStep) -> frozenset[int]:
    """Products of the state with a matrix of the params."""
    body = step.body[: step.own]
    of_state, of_param = depends_on(body, ("state",)), depends_on(body, ("param",))

    def is_matrix(value: int) -> bool:
        return of_param[value] and not of_state[value] and len(body[value].axes) >= 2

    products = (p for p, instr in enumerate(body) if instr.op == "contract" and of_state[p])
    return frozenset(p for p in products if any(map(is_matrix, body[p].args)))


def _keep(body: Body, own: int, wanted: Iterable[int], kept: frozenset[int]) -> tuple[Body, tuple[Saved, ...]]:
    """Values among the step's ``own`` become leaves."""
    needed = live(body, wanted)
    rewritten = list(body)
    saved: list[Saved] = []
    for position in sorted(p for p in needed if p < own):
        instr = body[position]
        if position in kept:
            name = f"product_{len(saved)}"
            saved.append(Saved(name, position, instr.axes))
            rewritten[position] = replace(instr, op="leaf", args=(), attrs=("saved", name))
    read = live(tuple(rewritten), wanted)
    return tuple(rewritten), tuple(s for s in saved if s.value in read)
