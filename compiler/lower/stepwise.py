"""The stepwise strategy: the library's matrix products, with point-wise kernels between them.

For recurrences whose state or weights do not fit on chip. A step is cut at its matrix products: what a
product reads is computed by a kernel of an earlier phase, and its result is one more tensor that later
kernels read. Most steps need no kernel before their products, so they are one round of products and one
kernel. The adjoint is cut in the same way; products that only add to a state's cotangent are added
to it in place, and gradients of weights are one product over all steps at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..autodiff import plan
from ..autodiff.reverse import AdjointStep
from ..ir.builder import Builder
from ..ir.program import Body, Input, Output, Program, depends_on, live
from ..ir.types import EVERYTHING, Axes
from .kernel_ir import Kernel, Ref, Statement, Tensor
from .layout import Layout, identifier
from .recurrent import coordinates
from .tiles import TileWriter

Labels = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Product:
    """``result = einsum(left, right)`` for every sequence and head. Operands are names of tensors."""

    result: str
    left: str
    right: str
    labels: Labels
    axes: Axes


@dataclass(frozen=True)
class Phase:
    """A kernel (if anything is to be computed) and the products that follow it."""

    kernel: Kernel | None
    products: tuple[Product, ...]


@dataclass(frozen=True)
class Additive:
    """A product whose result is added to the cotangent of a state before the step."""

    state: str
    product: Product


@dataclass(frozen=True)
class WeightGradient:
    """``d_param = sum over steps and sequences of einsum(left, right)``; operands by tensor name."""

    param: str
    left: str
    right: str
    labels: Labels


@dataclass(frozen=True)
class Stepwise:
    """A step and its adjoint as phases; ``kept`` are the forward products, which the adjoint reads again."""

    layout: Layout
    forward: tuple[Phase, ...]
    adjoint: tuple[Phase, ...]
    additive: tuple[Additive, ...]
    weights: tuple[WeightGradient, ...]
    kept: tuple[Product, ...]
    tensors: Mapping[str, Tensor]

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, in order of use."""
        return tuple(phase.kernel for phase in (*self.forward, *self.adjoint) if phase.kernel is not None)


def is_library(body: Body, position: int, moving: tuple[bool, ...]) -> bool:
    """Whether the library does this: a contraction of what varies from step to step with a matrix."""
    instr = body[position]
    if instr.op != "contract" or not moving[position]:
        return False
    left, right, _ = instr.attrs
    return bool(set(left) & set(right)) and any(len(body[arg].axes) >= 2 for arg in instr.args)


def cut_program(program: Program) -> Program:
    """The program whose library products are inputs and whose products' operands are outputs.

    It has the point-wise part of the step only: what decides the layout of the kernels.
    """
    moving = depends_on(program.body, ("state",))
    found = [p for p in sorted(live(program.body, program.roots())) if is_library(program.body, p, moving)]
    names = {p: f"product_{n}" for n, p in enumerate(found)}
    body = _cut(program.body, names)
    span = program.states[0].span
    inputs = [Input(name, body[p].axes, EVERYTHING, False, span) for p, name in names.items()]
    operands = dict.fromkeys(a for p in found for a in program.body[p].args if moving[a] and body[a].op != "leaf")
    outputs = [Output(f"operand_{n}", body[a].axes, a, span) for n, a in enumerate(operands)]
    return replace(program, body=body, inputs=(*program.inputs, *inputs), outputs=(*program.outputs, *outputs))


def lower_stepwise(program: Program, adjoint: AdjointStep, layout: Layout, strided: bool) -> Stepwise:
    """Forward and adjoint phases of a program without products outside of the loop (see split.py)."""
    return _Cutter(program, adjoint, layout, strided).lower()


def _cut(body: Body, names: Mapping[int, str]) -> Body:
    return tuple(
        replace(instr, op="leaf", args=(), attrs=("input", names[p])) if p in names else instr
        for p, instr in enumerate(body)
    )


class _Cutter:
    def __init__(self, program: Program, adjoint: AdjointStep, layout: Layout, strided: bool) -> None:
        self.program, self.adjoint, self.layout = program, adjoint, layout
        self.tensors: dict[str, Tensor] = {}
        self.sources: dict[tuple[str, str], Tensor | Ref] = {}
        for leaf in program.inputs:
            heads = f"heads_{leaf.name}"
            self.sources["input", leaf.name] = self.tensor(
                leaf.name, "step", leaf.axes, heads, strided=strided, compute=False
            )
        for param in program.params:
            self.sources["param", param.name] = self.tensor(param.name, "head", param.axes, compute=False)
        for state in program.states:
            self.sources["state", state.name] = self.tensor(f"{state.name}_before", "sequence", state.axes)
            self.sources["cotangent", f"{state.name}'"] = self.once(f"d_{state.name}_after", "sequence", state.axes)
        for output in program.outputs:
            self.sources["cotangent", output.name] = self.once(f"d_{output.name}", "step", output.axes, compute=False)

    def tensor(self, name: str, place: str, axes: Axes, heads: str = "heads", **more: bool | tuple[str, ...]) -> Tensor:
        self.tensors[name] = Tensor(name, place, axes, heads, **more)  # type: ignore[arg-type]
        return self.tensors[name]

    def once(self, name: str, place: str, axes: Axes, compute: bool = True) -> Tensor:
        return self.tensor(name, place, axes, first_tile=self.layout.untiled(axes), compute=compute)

    def each(self, name: str, place: str, axes: Axes, compute: bool = True) -> Tensor:
        copies = self.layout.untiled(axes)
        return self.tensor(name, place, axes, copies=copies, compute=compute or bool(copies))

    # ------------------------------------------------------------ the step

    def lower(self) -> Stepwise:
        program = self.program
        moving = depends_on(program.body, ("state",))
        roots = {s.next: self.once(f"{s.name}_after", "sequence", s.axes) for s in program.states}
        stores = [*roots.items()]
        stores += [(o.value, self.once(o.name, "step", o.axes, compute=False)) for o in program.outputs]
        found = [p for p in sorted(live(program.body, program.roots())) if is_library(program.body, p, moving)]
        names = {p: f"product_{n}" for n, p in enumerate(found)}
        for p, name in names.items():
            self.sources["input", name] = self.tensor(name, "sequence", program.body[p].axes)
        forward = self.phases("forward", program.body, names, stores)
        kept = tuple(product for phase in forward for product in phase.products)
        adjoint, additive, weights = self.lower_adjoint(names)
        return Stepwise(self.layout, forward, adjoint, additive, weights, kept, self.tensors)

    def phases(
        self,
        name: str,
        body: Body,
        library: Mapping[int, str],
        stores: list[tuple[int, Tensor]],
    ) -> tuple[Phase, ...]:
        """Rounds of (kernel, products): products as early as their operands allow, the rest at the end."""
        cut = _cut(body, library)
        levels = _levels(body, library)
        rounds: list[Phase] = []
        ready: dict[int, str] = {}
        for level in range(1 + max((levels[p] for p in library), default=0)):
            products = [p for p in library if levels[p] == level + 1]
            operands = dict.fromkeys(a for p in products for a in body[p].args)
            fresh = [a for a in operands if a not in ready and self.named(cut, a) is None]
            written = []
            for a in fresh:
                tensor = self.operand(f"{name}_operand_{len(ready)}", cut, a)
                ready[a] = tensor.name
                written.append((a, tensor))
            last = not products
            written += stores if last else []
            kernel = self.kernel(f"{self.program.name}_{name}_{level}", cut, written) if written else None
            rounds.append(Phase(kernel, tuple(self.product(body, cut, p, library[p], ready) for p in products)))
        return tuple(rounds)

    def operand(self, name: str, body: Body, value: int) -> Tensor:
        make = self.each if depends_on(body, ("cotangent",))[value] else self.once
        return make(name, "sequence", body[value].axes)

    def named(self, body: Body, value: int) -> str | None:
        """The tensor that holds a value already: a param, a state or a product's result."""
        instr = body[value]
        source = self.sources.get(instr.attrs) if instr.op == "leaf" else None
        plain = isinstance(source, Tensor) and source.place in ("head", "sequence")
        return source.name if plain and isinstance(source, Tensor) else None

    def product(self, body: Body, cut: Body, position: int, result: str, ready: Mapping[int, str]) -> Product:
        left, right = (ready.get(a) or self.named(cut, a) for a in body[position].args)
        assert left is not None and right is not None
        return Product(result, left, right, body[position].attrs, body[position].axes)

    def kernel(self, name: str, body: Body, stores: Iterable[tuple[int, Tensor]]) -> Kernel:
        """A point-wise kernel: loads leaves, computes, stores."""
        stores = list(stores)
        reserved = {f"{p}_{identifier(n)}" for n in self.layout.sizes for p in "iom"}
        writer = TileWriter(body, self.layout, self.sources, "ieee", reserved)
        writer.lower(live(body, (value for value, _ in stores)))
        written = [
            Statement("", "store", (writer.ref(value),), (tensor, coordinates(tensor))) for value, tensor in stores
        ]
        sections = {
            "invariant": tuple(writer.sections["invariant"]),
            "step": (*writer.sections["step"], *written),
        }
        tensors = (*writer.loaded.values(), *(tensor for _, tensor in stores))
        return Kernel(name, "step", self.layout, tensors, sections)

    # ------------------------------------------------------------ the adjoint

    def lower_adjoint(
        self, forward: Mapping[int, str]
    ) -> tuple[tuple[Phase, ...], tuple[Additive, ...], tuple[WeightGradient, ...]]:
        builder = Builder(self.adjoint.body)
        body = _cut(self.adjoint.body, forward)
        moving = depends_on(body, ("cotangent",))
        additive: list[tuple[str, int]] = []
        stores: list[tuple[int, Tensor]] = []
        axes = {leaf.name: leaf.axes for leaf in self.program.leaves()}
        for state, value in self.adjoint.states:
            terms = _terms(body, value) if value is not None else []
            lone = [p for p in terms if is_library(body, p, moving)]
            additive += [(state, p) for p in lone]
            rest = _sum(builder, [p for p in terms if p not in lone], axes[state])
            stores.append((rest, self.each(f"d_{state}_before", "sequence", axes[state])))
        for name, value in self.adjoint.inputs:
            if value is not None:
                stores.append((value, self.each(f"d_{name}", "step", axes[name], compute=False)))
        weights: list[plan.Product] = []
        for name, value in self.adjoint.params:
            found = plan.products_of(body, name, value) if value is not None else None
            if found is not None:
                weights += found
            elif value is not None:
                stores.append((value, self.each(f"d_{name}", "sequence", axes[name])))
        body = _cut(tuple(builder.body), forward)
        return self.adjoint_phases(body, stores, additive, weights)

    def adjoint_phases(
        self,
        body: Body,
        stores: list[tuple[int, Tensor]],
        additive: list[tuple[str, int]],
        weights: list[plan.Product],
    ) -> tuple[tuple[Phase, ...], tuple[Additive, ...], tuple[WeightGradient, ...]]:
        moving = depends_on(body, ("cotangent",))
        operands = [a for _, p in additive for a in body[p].args] + [a for w in weights for a in (w.left, w.right)]
        needed = live(body, (*(value for value, _ in stores), *operands))
        library = {p: f"adjoint_product_{n}" for n, p in enumerate(sorted(needed)) if is_library(body, p, moving)}
        for p, name in library.items():
            self.sources["input", name] = self.once(name, "sequence", body[p].axes)
        cut = _cut(body, library)
        factors: dict[int, str] = {}
        for a in dict.fromkeys(operands):
            known = self.named(cut, a)
            if known is None:
                tensor = self.operand(f"factor_{len(factors)}", cut, a)
                stores.append((a, tensor))
            factors[a] = known or tensor.name
        phases = self.phases("adjoint", body, library, stores)
        added = []
        for state, p in additive:
            left, right = (factors[a] for a in body[p].args)
            added.append(Additive(state, Product(f"d_{state}_before", left, right, body[p].attrs, body[p].axes)))
        gradients = (WeightGradient(w.param, factors[w.left], factors[w.right], w.labels) for w in weights)
        return phases, tuple(added), tuple(gradients)


def _levels(body: Body, library: Mapping[int, str]) -> list[int]:
    """How many products lie between the leaves and each value."""
    levels: list[int] = []
    for position, instr in enumerate(body):
        before = max((levels[arg] for arg in instr.args), default=0)
        levels.append(before + (position in library))
    return levels


def _terms(body: Body, value: int) -> list[int]:
    """The terms of a sum."""
    instr = body[value]
    return [term for arg in instr.args for term in _terms(body, arg)] if instr.op == "add" else [value]


def _sum(builder: Builder, terms: list[int], axes: Axes) -> int:
    """The sum of values with the given axes; zero if there are none."""
    if not terms:
        return builder.spread(builder.const(0.0), axes)
    total, *rest = terms
    for term in rest:
        total = builder.add(total, term)
    return total
