"""The chunk strategy at run time: one pass, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...compiler.ir.program import Program
from ...compiler.lower import kernel_ir
from ...compiler.lower.chunk_kernels import Chunked, Schedule
from .arguments import entering, gradient_shapes, gradients, over_copies
from .launch import Extent, Packed, called, launch, shape, wanted_programs


@dataclass(frozen=True)
class ChunkExecutor:
    """The kernels of one pass in chunks, loaded from ``module``; ``started`` as they were compiled."""

    core: Program
    lowered: Chunked
    module: Any
    started: bool
    schedule: str = "auto"

    @property
    def kept(self) -> int:
        """How many tensors forward keeps for backward: the states before each chunk, the inverses of its solves."""
        return len(self._kept())

    def forward(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, what is kept."""
        arguments, extent = self._arguments(tensors, steps, reverse, cu_seqlens)
        results = self.forward_shapes(tensors, steps, cu_seqlens, train)
        written = dict(zip((t.name for t in self._written(train)), results, strict=True))
        schedule = self._schedule(extent, results)
        kernels = schedule.forward if train else schedule.infer
        for tensor in {t.name: t for k in kernels for t in k.tensors if t.place == "checkpoint"}.values():
            if tensor.name not in written:  # a walk that only carries states hands them on in memory
                written[tensor.name] = self._room(tensor, extent, tensors)
        for kernel in kernels:
            launch(self.module, kernel, {**arguments, **written}, extent)
        return results

    def forward_shapes(
        self, tensors: Sequence[Tensor], steps: int, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Empty tensors for what ``forward`` returns; they also serve tracing."""
        _, extent = self._arguments(tensors, steps, False, cu_seqlens)
        return tuple(self._room(t, extent, tensors) for t in self._written(train))

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        ends: Sequence[Tensor | None],
        steps: int,
        reverse: bool,
        cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Gradients of inputs, params and start states, from those of outputs and end states."""
        core, layout = self.core, self.lowered.layout
        arguments, extent = self._arguments(tensors, steps, reverse, cu_seqlens)
        arguments |= {t.name: value for t, value in zip(self._kept(), kept, strict=True)}
        arguments |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=True)}
        schedule = self._schedule(extent, tensors)
        ended = any(given is not None for given in ends)
        kernels = schedule.ended if ended else schedule.backward
        tensors_of = {t.name: t for kernel in kernels for t in kernel.tensors}
        for state, given in zip(core.states, ends, strict=True) if ended else ():
            tensor = tensors_of[f"d_{state.name}_end"]
            arguments[tensor.name] = (
                tensors[-1].new_zeros(shape(tensor, layout, extent), dtype=torch.float32)
                if given is None
                else entering(tensor, layout, given)
            )
        params = {p.name for p in core.params}
        room = {name: self._gradient(t, extent, arguments) for name, t in tensors_of.items() if name not in arguments}
        partial = self._stacked(params, tensors_of, room)
        if isinstance(extent, Packed):
            for _, parts in partial:
                parts.zero_()  # no chunk has some of the slots, and the sums read all
        for kernel in kernels:
            launch(self.module, kernel, {**arguments, **room}, extent)
        found: dict[str, Tensor] = {}
        for names, parts in partial:
            found |= dict(zip(names, parts.sum(1).unbind(0), strict=True))
        for name, value in room.items():
            if tensors_of[name].place == "step":
                found[name[2:]] = over_copies(value, tensors_of[name])
        if self.started:
            for state in core.states:
                name = f"d_{state.name}_start"
                found[state.name] = over_copies(room[name], tensors_of[name])
        return gradients(core, tensors, found)

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``backward`` returns, for tracing."""
        return gradient_shapes(tensors)

    # ------------------------------------------------------------ shapes

    def _arguments(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None
    ) -> tuple[dict[str, Tensor], Extent | Packed]:
        return called(self.core, tensors, steps, self.lowered.chunk, reverse, cu_seqlens)

    @staticmethod
    def _stacked(
        params: Container[str], tensors_of: Mapping[str, kernel_ir.Tensor], room: dict[str, Tensor]
    ) -> list[tuple[list[str], Tensor]]:
        """The partial sums of params in one tensor for all of one shape, so that one reduction serves them all;
        ``room`` then holds views."""
        groups: dict[torch.Size, list[str]] = {}
        for name in room:
            if name[2:] in params:
                groups.setdefault(room[name].shape, []).append(name)
        found = []
        for shape_, names in groups.items():
            whole = room[names[0]].new_empty(len(names), *shape_)
            room |= dict(zip(names, whole.unbind(0), strict=True))
            axes = len(tensors_of[names[0]].axes)
            found.append(([name[2:] for name in names], whole.flatten(1, whole.dim() - 2 - axes)))
        return found

    def _schedule(self, extent: Extent | Packed, tensors: Sequence[Tensor]) -> Schedule:
        """Fused where there are programs for every multiprocessor of the device, else split over the chunks."""
        if self.schedule != "auto":
            return self.lowered.fused if self.schedule == "fused" else self.lowered.split
        layout = self.lowered.layout
        programs = extent.batch * extent.heads * math.prod(layout.count(name) for name in layout.tiles)
        return self.lowered.fused if programs >= wanted_programs(tensors[0].device) else self.lowered.split

    def _written(self, train: bool) -> list[kernel_ir.Tensor]:
        kernels = self.lowered.fused.forward if train else self.lowered.fused.infer
        by_name = {t.name: t for kernel in kernels for t in kernel.tensors}
        names = [o.name for o in self.core.outputs] + [f"{s.name}_end" for s in self.core.states]
        return [by_name[name] for name in names] + (self._kept() if train else [])

    def _kept(self) -> list[kernel_ir.Tensor]:
        """What forward keeps, in the order of its arguments."""
        return [t for t in self.lowered.fused.forward[-1].tensors if t.place == "checkpoint"]

    def _room(self, tensor: kernel_ir.Tensor, extent: Extent | Packed, tensors: Sequence[Tensor]) -> Tensor:
        dtype = torch.float32 if tensor.compute else tensors[0].dtype
        return tensors[-1].new_empty(shape(tensor, self.lowered.layout, extent), dtype=dtype)

    def _gradient(self, tensor: kernel_ir.Tensor, extent: Extent | Packed, arguments: Mapping[str, Tensor]) -> Tensor:
        """Room for a gradient: an input's in its own type unless parts are still to be summed."""
        argument = arguments.get(tensor.name[2:])
        whole = not tensor.copies and argument is not None and argument.dim() > 2 and argument.shape[2] == extent.heads
        typed = tensor.place == "step" and whole and argument is not None
        like = next(iter(arguments.values()))
        dtype = argument.dtype if typed and argument is not None else torch.float32
        if tensor.place == "checkpoint" and not tensor.compute:
            dtype = like.dtype
        return like.new_empty(shape(tensor, self.lowered.layout, extent), dtype=dtype)
