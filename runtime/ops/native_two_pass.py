"""The two-pass backward on processors at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...compiler.lower import kernel_ir
from ...compiler.lower.kernel_ir import Kernel
from ...compiler.lower.two_pass import TwoPassKernels
from . import pool
from .arguments import gradients, of_ends, over_copies
from .native import Extent, NativeKernels, entering


@dataclass(frozen=True)
class NativeTwoPass(NativeKernels):
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

        All are contiguous: ``cotangents`` of outputs in their dtype, those of end states in the compute type.
        """
        core, lowered = self.core, self.lowered
        extent = self._extent(tensors, steps, reverse, cu_seqlens)
        arguments = self._arguments(tensors) | dict(zip(lowered.kept, kept, strict=True))
        arguments |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=True)}
        by_name = {t.name: t for t in lowered.reverse.tensors}
        for state, given in zip(core.states, of_ends(core, tensors, ends), strict=True):
            name = f"d_{state.name}_end"
            arguments[name] = entering(by_name[name], given, lowered.layout)
        for kernel in (lowered.reverse, lowered.again):
            arguments |= self._pass(kernel, arguments, extent, cu_seqlens)
        partial = {t.name for t in lowered.again.tensors if t.place == "partial"}
        names = {leaf.name: f"d_{leaf.name}" for leaf in core.leaves()}
        names |= {state.name: f"d_{state.name}_start" for state in core.states}
        found = {
            leaf: arguments[name].sum(0) if name in partial else arguments[name]
            for leaf, name in names.items()
            if name in arguments
        }
        return gradients(core, tensors, found)

    def _pass(
        self, kernel: Kernel, arguments: Mapping[str, Tensor], extent: Extent, cu_seqlens: Tensor | None
    ) -> dict[str, Tensor]:
        """What a kernel writes, parts of tiles summed."""
        new = [t for t in kernel.tensors if t.name not in arguments]
        room = {t.name: pool.empty(*self._shape(t, extent)) for t in new}
        self._launch(kernel, {**arguments, **room}, extent, cu_seqlens)
        return {t.name: over_copies(room[t.name], t) for t in new}

    def _written(self, train: bool) -> list[kernel_ir.Tensor]:
        kernel = self.lowered.forward if train else self.lowered.infer
        by_name = {t.name: t for t in kernel.tensors}
        names = [o.name for o in self.core.outputs] + [f"{s.name}_end" for s in self.core.states]
        return [by_name[name] for name in (*names, *(self.lowered.kept if train else ()))]
