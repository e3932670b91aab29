"""The chunk strategy at run time: one pass, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...compiler.ir.program import Program
from ...compiler.lower import kernel_ir
from ...compiler.lower.chunk import Chunked
from .arguments import entering, extents, gradient_shapes, gradients, named, over_copies
from .launch import Extent, launch, shape


@dataclass(frozen=True)
class ChunkExecutor:
    """The kernels of one pass in chunks, loaded from ``module``; ``started`` as they were compiled."""

    core: Program
    lowered: Chunked
    module: Any
    started: bool

    @property
    def kept(self) -> int:
        """How many tensors forward keeps for backward: the states before each chunk, the inverses of its solves."""
        return len(self._kept())

    def forward(self, tensors: Sequence[Tensor], steps: int, reverse: bool, train: bool) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, what is kept."""
        arguments, extent = self._arguments(tensors, steps, reverse)
        results = self.forward_shapes(tensors, steps, train)
        written = dict(zip((t.name for t in self._written(train)), results, strict=True))
        for kernel in self.lowered.forward if train else self.lowered.infer:
            launch(self.module, kernel, {**arguments, **written}, extent)
        return results

    def forward_shapes(self, tensors: Sequence[Tensor], steps: int, train: bool) -> tuple[Tensor, ...]:
        """Empty tensors for what ``forward`` returns; they also serve tracing."""
        _, extent = self._arguments(tensors, steps, False)
        return tuple(self._room(t, extent, tensors) for t in self._written(train))

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        steps: int,
        reverse: bool,
    ) -> tuple[Tensor, ...]:
        """Gradients of inputs, params and start states, from those of outputs and end states."""
        core, layout = self.core, self.lowered.layout
        arguments, extent = self._arguments(tensors, steps, reverse)
        arguments |= {t.name: value for t, value in zip(self._kept(), kept, strict=True)}
        arguments |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=False)}
        tensors_of = {t.name: t for kernel in self.lowered.backward for t in kernel.tensors}
        for state, given in zip(core.states, cotangents[len(core.outputs) :], strict=True):
            name = f"d_{state.name}_end"
            arguments[name] = entering(tensors_of[name], layout, given)
        room = {name: self._gradient(t, extent, arguments) for name, t in tensors_of.items() if name not in arguments}
        for kernel in self.lowered.backward:
            launch(self.module, kernel, {**arguments, **room}, extent)
        found = {}
        for name, value in room.items():
            tensor = tensors_of[name]
            if tensor.place == "partial":
                found[name[2:]] = value.flatten(0, len(tensor.copies)).sum(0)
            elif tensor.place == "step":
                found[name[2:]] = over_copies(value, tensor)
        if self.started:
            for state in core.states:
                name = f"d_{state.name}_start"
                found[state.name] = over_copies(room[name], tensors_of[name])
        return gradients(core, tensors, found)

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``backward`` returns, for tracing."""
        return gradient_shapes(tensors)

    # ------------------------------------------------------------ shapes

    def _arguments(self, tensors: Sequence[Tensor], steps: int, reverse: bool) -> tuple[dict[str, Tensor], Extent]:
        batch, heads = extents(self.core, tensors)
        arguments = named(self.core, tensors)
        for state in self.core.states:
            arguments[f"{state.name}_start"] = arguments.pop(state.name)
        return arguments, Extent(batch, steps, heads, steps, self.lowered.chunk, 0, reverse)

    def _written(self, train: bool) -> list[kernel_ir.Tensor]:
        kernels = self.lowered.forward if train else self.lowered.infer
        by_name = {t.name: t for kernel in kernels for t in kernel.tensors}
        names = [o.name for o in self.core.outputs] + [f"{s.name}_end" for s in self.core.states]
        return [by_name[name] for name in names] + (self._kept() if train else [])

    def _kept(self) -> list[kernel_ir.Tensor]:
        """What forward keeps, in the order of its arguments."""
        return [t for t in self.lowered.forward[-1].tensors if t.place == "checkpoint"]

    def _room(self, tensor: kernel_ir.Tensor, extent: Extent, tensors: Sequence[Tensor]) -> Tensor:
        dtype = torch.float32 if tensor.compute else tensors[0].dtype
        return tensors[-1].new_empty(shape(tensor, self.lowered.layout, extent), dtype=dtype)

    def _gradient(self, tensor: kernel_ir.Tensor, extent: Extent, arguments: Mapping[str, Tensor]) -> Tensor:
        """Room for a gradient: an input's in its own type unless parts are still to be summed."""
        argument = arguments.get(tensor.name[2:])
        whole = not tensor.copies and argument is not None and argument.dim() > 2 and argument.shape[2] == extent.heads
        typed = tensor.place == "step" and whole and argument is not None
        dtype = argument.dtype if typed and argument is not None else torch.float32
        like = next(iter(arguments.values()))
        return like.new_empty(shape(tensor, self.lowered.layout, extent), dtype=dtype)
