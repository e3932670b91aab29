"""The recurrent strategy at run time: forward, and backward in segments, on generated kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...compiler.kernels import Compiled
from ...compiler.lower import kernel_ir
from ...compiler.lower.kernel_ir import Kernel
from .launch import Extent, launch, shape

SEGMENT_BYTES = 1 << 29
"""How much memory the backward may take for the trajectory of the states (per call)."""


@dataclass(frozen=True)
class Fused:
    """The kernels of one recurrence at one layout, loaded.

    Tensors come and go in a fixed order: inputs, params and start states of the core program in;
    outputs, end states and checkpoints out. ``segment`` is the number of steps whose trajectory the
    backward holds at a time; None fits them into ``SEGMENT_BYTES``.
    """

    compiled: Compiled
    module: Any
    chunk: int
    segment: int | None = None

    def forward(self, tensors: Sequence[Tensor], steps: int, reverse: bool, train: bool) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, checkpoints."""
        kernels = self.compiled.kernels
        kernel = kernels.forward if train else kernels.infer
        named, extent = self._arguments(tensors, steps, reverse)
        results = self.forward_shapes(tensors, steps, train)
        names = (t.name for t in self._written(train))
        launch(self.module, kernel, {**named, **dict(zip(names, results, strict=True))}, extent)
        return results

    def forward_shapes(self, tensors: Sequence[Tensor], steps: int, train: bool) -> tuple[Tensor, ...]:
        """Empty tensors for what ``forward`` returns; they also serve tracing."""
        named, extent = self._arguments(tensors, steps, False)
        dtype = tensors[0].dtype
        return tuple(
            named["*"].new_empty(self._shape(t, extent), dtype=torch.float32 if t.compute else dtype)
            for t in self._written(train)
        )

    def backward(
        self,
        tensors: Sequence[Tensor],
        checkpoints: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        steps: int,
        reverse: bool,
    ) -> tuple[Tensor, ...]:
        """Gradients of inputs, params and start states, from those of outputs and end states.

        ``cotangents`` are contiguous: outputs in their own dtype, end states in float32.
        """
        core = self.compiled.split.core
        named, whole = self._arguments(tensors, steps, reverse)
        named |= {f"{s.name}_checkpoint": c for s, c in zip(core.states, checkpoints, strict=True)}
        named |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=False)}
        carried = dict(zip((s.name for s in core.states), cotangents[len(core.outputs) :], strict=True))
        gradients = {t.name: self._empty(t, whole, tensors) for t in self._by_place("step")}
        sums: dict[str, Tensor] = {}
        segment = self._segment(whole)
        for begin in reversed(range(0, max(whole.steps, 1), segment)):
            count = min(segment, whole.steps - begin)
            extent = Extent(whole.batch, whole.steps, whole.heads, count, self.chunk, begin, reverse)
            carried = self._backward_segment({**named, **gradients}, extent, carried, sums, begin + count < whole.steps)
        return self._collect(tensors, gradients, sums, carried)

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``backward`` returns, for tracing."""
        core = self.compiled.split.core
        wide = len(core.inputs) + len(core.params)
        return tuple(
            t.new_empty(t.shape, dtype=torch.float32 if position >= wide else t.dtype)
            for position, t in enumerate(tensors)
        )

    # ------------------------------------------------------------ one segment

    def _backward_segment(
        self,
        named: Mapping[str, Tensor],
        extent: Extent,
        carried: dict[str, Tensor],
        sums: dict[str, Tensor],
        inner: bool,
    ) -> dict[str, Tensor]:
        kernels = self.compiled.kernels
        like = named["*"]
        scratch = {
            t.name: like.new_empty(self._shape(t, extent), dtype=torch.float32)
            for kernel in (kernels.trajectory, kernels.adjoint)
            for t in kernel.tensors
            if t.place == "segment"
        }
        launch(self.module, kernels.trajectory, {**named, **scratch}, extent)
        states = {}
        for tensor in self._by_place("sequence"):
            if tensor.name.endswith("_end"):
                states[tensor.name] = self._entering(tensor, carried[tensor.name[2:-4]], inner)
            else:
                states[tensor.name] = like.new_empty(self._shape(tensor, extent), dtype=torch.float32)
        partial = {
            t.name: like.new_empty(self._shape(t, extent), dtype=torch.float32) for t in self._by_place("partial")
        }
        launch(self.module, kernels.adjoint, {**named, **scratch, **states, **partial}, extent)
        for tensor in self._by_place("partial"):
            _add(sums, tensor.name, partial[tensor.name].flatten(0, len(tensor.copies)).sum(0))
        for product in kernels.products:
            left, right = (_over_copies(scratch[t.name], t) for t in (product.left, product.right))
            _add(sums, f"d_{product.param}", _outer_sum(product.labels, left, right))
        return {s.name: states[f"d_{s.name}_start"] for s in self.compiled.split.core.states}

    def _entering(self, tensor: kernel_ir.Tensor, cotangent: Tensor, inner: bool) -> Tensor:
        """The cotangent of an end state as the kernel takes it: tiles that share it each add their part,
        so what comes from outside is given to the first one only."""
        if inner or not tensor.copies:
            return cotangent
        copies = tuple(self.compiled.layout.count(name) for name in tensor.copies)
        spread = cotangent.new_zeros(*copies, *cotangent.shape)
        spread[(0,) * len(copies)] = cotangent
        return spread

    def _collect(
        self,
        tensors: Sequence[Tensor],
        gradients: Mapping[str, Tensor],
        sums: Mapping[str, Tensor],
        carried: Mapping[str, Tensor],
    ) -> tuple[Tensor, ...]:
        """What was summed per program, tile and head becomes gradients of the arguments' own shapes."""
        core = self.compiled.split.core
        named = {t.name: t for t in self._by_place("step") + self._by_place("sequence")}
        results = []
        leaves = (*core.inputs, *core.params, *core.states)
        for leaf, argument in zip(leaves, tensors, strict=True):
            if leaf.name in carried:
                tensor = named[f"d_{leaf.name}_start"]
                value = carried[leaf.name]
                results.append(_over_copies(value, tensor))
            elif f"d_{leaf.name}" in sums:
                results.append(sums[f"d_{leaf.name}"].to(argument.dtype))
            elif f"d_{leaf.name}" in gradients:
                value = _over_copies(gradients[f"d_{leaf.name}"], named[f"d_{leaf.name}"])
                results.append(_over_groups(value, argument.shape[2]).to(argument.dtype))
            else:
                results.append(torch.zeros_like(argument, memory_format=torch.contiguous_format))
        return tuple(results)

    # ------------------------------------------------------------ shapes

    def _arguments(self, tensors: Sequence[Tensor], steps: int, reverse: bool) -> tuple[dict[str, Tensor], Extent]:
        core = self.compiled.split.core
        names = [i.name for i in core.inputs] + [p.name for p in core.params] + [f"{s.name}_start" for s in core.states]
        named = dict(zip(names, tensors, strict=True))
        start = named[f"{core.states[0].name}_start"]
        batch, heads = start.shape[:2]
        return {**named, "*": start}, Extent(batch, steps, heads, steps, self.chunk, 0, reverse)

    def _written(self, train: bool) -> list[kernel_ir.Tensor]:
        core, kernels = self.compiled.split.core, self.compiled.kernels
        kernel = kernels.forward if train else kernels.infer
        by_name = {t.name: t for t in kernel.tensors}
        names = [o.name for o in core.outputs] + [f"{s.name}_end" for s in core.states]
        names += [f"{s.name}_checkpoint" for s in core.states] if train else []
        return [by_name[name] for name in names]

    def _by_place(self, place: str) -> list[kernel_ir.Tensor]:
        """Gradients that the adjoint kernel writes (or carries) at a place."""
        kernel: Kernel = self.compiled.kernels.adjoint
        outputs = {f"d_{o.name}" for o in self.compiled.split.core.outputs}
        return [t for t in kernel.tensors if t.place == place and t.name.startswith("d_") and t.name not in outputs]

    def _shape(self, tensor: kernel_ir.Tensor, extent: Extent) -> tuple[int, ...]:
        return shape(tensor, self.compiled.layout, extent)

    def _empty(self, tensor: kernel_ir.Tensor, extent: Extent, tensors: Sequence[Tensor]) -> Tensor:
        """Room for a gradient: in float32 where parts are still to be summed."""
        core = self.compiled.split.core
        argument = dict(zip((f"d_{i.name}" for i in core.inputs), tensors, strict=False))[tensor.name]
        whole = not tensor.copies and argument.shape[2] == extent.heads
        dtype = argument.dtype if whole else torch.float32
        return argument.new_empty(self._shape(tensor, extent), dtype=dtype)

    def _segment(self, extent: Extent) -> int:
        """Steps per segment: a whole number of chunks."""
        if self.segment is not None:
            return -(-self.segment // self.chunk) * self.chunk
        kernels = self.compiled.kernels
        step = Extent(extent.batch, 1, extent.heads, 1, self.chunk)
        tensors = {t.name: t for k in (kernels.trajectory, kernels.adjoint) for t in k.tensors if t.place == "segment"}
        size = 4 * sum(math.prod(self._shape(t, step)) for t in tensors.values())
        return max(1, SEGMENT_BYTES // max(1, size * self.chunk)) * self.chunk


def _add(sums: dict[str, Tensor], name: str, part: Tensor) -> None:
    sums[name] = sums[name] + part if name in sums else part


def _over_copies(value: Tensor, tensor: kernel_ir.Tensor) -> Tensor:
    """Sum over the tiles that each wrote their part."""
    return value.flatten(0, len(tensor.copies) - 1).sum(0) if tensor.copies else value


def _over_groups(value: Tensor, groups: int) -> Tensor:
    """Sum over the heads that share one head of an input."""
    if value.shape[2] == groups:
        return value
    return value.unflatten(2, (groups, value.shape[2] // groups)).sum(3)


def _outer_sum(labels: tuple[tuple[int, ...], ...], left: Tensor, right: Tensor) -> Tensor:
    """The sum over sequences and steps of outer products, one matrix product per head."""
    names = "uvwxyz"
    first, second, out = ("".join(names[i] for i in side) for side in labels)
    return torch.einsum(f"bth{first},bth{second}->h{out}", left, right)
