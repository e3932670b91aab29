"""The two-pass backward on Triton kernels at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.lower import kernel_ir
from ...compiler.lower.kernel_ir import Kernel
from ...compiler.lower.two_pass import TwoPassKernels
from .arguments import entering, gradients, of_ends, over_copies
from .fused import Fused
from .launch import Extent, Packed, launch, shape


@dataclass(frozen=True)
class FusedTwoPass(Fused):
    """The kernels of one recurrence whose backward keeps no states."""

    lowered: TwoPassKernels

    @property
    def kept(self) -> int:
        """How many tensors forward keeps for backward: what erasing reads have read."""
        return len(self.lowered.kept)

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
        """Gradients of inputs, params and start states, from those of outputs and end states.

        All are contiguous: ``cotangents`` of outputs in their dtype, those of end states in float32.
        """
        core, lowered = self.core, self.lowered
        arguments, extent = self._arguments(tensors, steps, reverse, cu_seqlens)
        arguments |= dict(zip(lowered.kept, kept, strict=True))
        arguments |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=True)}
        by_name = {t.name: t for t in lowered.reverse.tensors}
        for state, given in zip(core.states, of_ends(core, tensors, ends), strict=True):
            name = f"d_{state.name}_end"
            arguments[name] = entering(by_name[name], lowered.layout, given)
        passes = [kernel for kernel in (lowered.reverse, lowered.again, lowered.finish) if kernel is not None]
        for kernel in passes:
            arguments |= self._pass(kernel, arguments, extent)
        names = {leaf.name: f"d_{leaf.name}" for leaf in core.leaves()}
        names |= {state.name: f"d_{state.name}_start" for state in core.states}
        found = {leaf: arguments[name] for leaf, name in names.items() if name in arguments}
        # sums of chunks, or of programs
        places = {t.name[2:]: t.place for t in passes[-1].tensors if t.name.startswith("d_")}
        sums = {p.name: {"checkpoint": (0, 1), "partial": (0,)}[places[p.name]] for p in core.params if p.name in found}
        return gradients(core, tensors, found | {name: found[name].sum(over) for name, over in sums.items()})

    def _pass(self, kernel: Kernel, arguments: Mapping[str, Tensor], extent: Extent | Packed) -> dict[str, Tensor]:
        """What a kernel writes, parts of tiles summed."""
        new = [t for t in kernel.tensors if t.name not in arguments]
        room = {t.name: self._space(t, kernel, arguments, extent) for t in new}
        launch(self.module, kernel, {**arguments, **room}, extent)
        return {t.name: over_copies(room[t.name], t) for t in new}

    def _space(
        self, tensor: kernel_ir.Tensor, kernel: Kernel, arguments: Mapping[str, Tensor], extent: Extent | Packed
    ) -> Tensor:
        """Room for what a kernel writes: in float32 but for gradients that are whole."""
        size = shape(tensor, kernel.layout, extent)
        like = arguments.get(tensor.name[2:])
        summed = {f"d_{param.name}" for param in self.core.params}
        if tensor.name in summed and isinstance(extent, Packed):  # there are slots that no chunk has
            return arguments[f"{self.core.states[0].name}_start"].new_zeros(size, dtype=torch.float32)
        if tensor.compute or like is None or like.shape[2] != extent.heads:
            return arguments[f"{self.core.states[0].name}_start"].new_empty(size, dtype=torch.float32)
        return like.new_empty(size)

    def _written(self, train: bool) -> list[kernel_ir.Tensor]:
        kernel = self.lowered.forward if train else self.lowered.infer
        by_name = {t.name: t for t in kernel.tensors}
        names = [o.name for o in self.core.outputs] + [f"{s.name}_end" for s in self.core.states]
        return [by_name[name] for name in (*names, *(self.lowered.kept if train else ()))]
