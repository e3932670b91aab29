"""The kernels of the recurrent strategy for processors: the same ones as recurrent.py, two of them in one.

A processor's caches hold the trajectory of one chunk, so the backward kernel walks the chunks from the
last to the first, rebuilds each from its checkpoint and runs the adjoint over it at once; nothing of the
trajectory goes to memory. Weight gradients that are products over steps are formed chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from ..autodiff.plan import Plan
from ..ir.program import Program
from ..ir.types import Axes
from .kernel_ir import Kernel, Ref, Statement, Tensor
from .layout import ROWS, STEPS, Label, Layout, labels_of
from .nests import storage
from .recurrent import DeferredProduct, Maker, coordinates


@dataclass(frozen=True)
class Native:
    """The kernels of one recurrence at one layout.

    ``infer`` is forward without checkpoints, ``step`` the same for a single step, without preparations that
    only many steps repay (None for packed sequences).
    """

    layout: Layout
    chunk: int
    step: Kernel | None
    infer: Kernel
    forward: Kernel
    backward: Kernel

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, in order of use."""
        kernels = (self.step, self.infer, self.forward, self.backward)
        return tuple(kernel for kernel in kernels if kernel is not None)


def lower_native(
    program: Program, plan: Plan, layout: Layout, chunk: int, wide: Container[str], packed: bool = False
) -> Native:
    """All kernels of a recurrence; ``chunk`` is the number of steps between checkpoints.

    ``wide`` are inputs and outputs of the compute type.
    """
    maker = Maker(program, plan, layout, None, chunk, strided=True, wide=wide, packed=packed)
    infer, forward, replay = maker.forward(train=False), maker.forward(train=True), maker.trajectory()
    maker.reserved |= {s.target for statements in replay.sections.values() for s in statements}  # one scope for both
    adjoint, products = maker.adjoint()
    step = None
    if not packed:
        single = Maker(program, plan, replace(layout, in_place=True), None, chunk, strided=True, wide=wide)
        step = replace(single.forward(train=False), name=f"{program.name}_step")
    return Native(layout, chunk, step, infer, forward, _backward(maker, replay, adjoint, products))


def _backward(maker: Maker, replay: Kernel, adjoint: Kernel, products: Iterable[DeferredProduct]) -> Kernel:
    layout = maker.layout
    axes = {p.name: p.axes for p in maker.program.params}
    deferred = {p.param: axes[p.param] for p in products}
    sums = {name: Ref(f"sum_{name}", layout.sort(labels_of(a))) for name, a in deferred.items()}
    partials = {name: maker.each(f"d_{name}", "partial", a) for name, a in deferred.items()}
    formed = [s for n, p in enumerate(products) for s in _product(p, axes[p.param], sums[p.param], layout, n)]
    sections = {
        **{f"replay_{name}": statements for name, statements in replay.sections.items()},
        **adjoint.sections,
        "initial": (
            *adjoint.sections["initial"],
            *(Statement(ref.name, "zeros", (), (), ref.labels) for ref in sums.values()),
        ),
        "products": tuple(formed),
        "final": (
            *adjoint.sections["final"],
            *(Statement("", "store", (sums[n],), (t, coordinates(t))) for n, t in partials.items()),
        ),
    }
    # what replay writes for the adjoint is the same memory under both descriptions
    tensors = {t.name: t for t in (*replay.tensors, *adjoint.tensors, *partials.values())}
    name = f"{maker.program.name}_backward"
    facts = {"chunk": maker.chunk}
    return Kernel(name, "backward", layout, tuple(tensors.values()), sections, facts=facts, packed=maker.packed)


def _product(
    product: DeferredProduct, axes: Axes, total: Ref, layout: Layout, number: int
) -> tuple[Statement, Statement]:
    """One product over the steps of a chunk (and the sequences of the program), added to its sum."""
    first, second, out = product.labels
    names = dict(zip(out, labels_of(axes), strict=True))
    sides = [*zip(first, product.left.axes, strict=True), *zip(second, product.right.axes, strict=True)]
    for label, axis in sides:
        if label not in names:
            names[label] = _unused(axis.name, names.values())
    args = tuple(
        _kept(tensor, dict(zip(labels_of(tensor.axes), (names[i] for i in own), strict=True)), layout)
        for tensor, own in ((product.left, first), (product.right, second))
    )
    everything = layout.sort(label for arg in args for label in arg.labels)
    summed = tuple(label for label in everything if label not in total.labels)
    target = Ref(f"product_of_chunk_{number}", total.labels)
    return (
        Statement(target.name, "product_sum", args, (summed, everything), total.labels),
        Statement(total.name, "accumulate", (target,), (), total.labels),
    )


def _kept(tensor: Tensor, names: dict[Label, Label], layout: Layout) -> Ref:
    """All steps of a chunk of a kept tensor, its sides renamed."""
    sides = tuple(label if label == ROWS else names[label] for label in storage(tensor, layout))
    return Ref(tensor.name, (STEPS, *sides))


def _unused(axis: str, used: Iterable[Label]) -> Label:
    taken, label = set(used), Label(axis)
    while label in taken:
        label = replace(label, copy=label.copy + 1)
    return label
