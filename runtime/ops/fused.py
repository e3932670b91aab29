"""The recurrent and the scan strategy at run time: forward, and backward in segments, on generated kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...compiler.ir.program import Program
from ...compiler.lower import kernel_ir
from ...compiler.lower.recurrent import Recurrent
from ...compiler.lower.scan import Scan
from ...compiler.lower.two_pass import TwoPassKernels
from .arguments import add, entering, gradient_shapes, gradients, letters, of_ends, over_copies
from .launch import Extent, Packed, called, launch, shape

SEGMENT_BYTES = 1 << 29
"""How much memory the backward may take for the trajectory of the states (per call)."""


@dataclass(frozen=True)
class Fused:
    """The kernels of one recurrence at one layout, loaded from ``module``.

    ``segment`` is the number of steps whose trajectory the backward holds at a time; None fits them
    into ``SEGMENT_BYTES``. A segment of packed sequences, whose lengths are known on the device only, is one part of
    each of them, as many for all (see :class:`Packed`): its memory is bounded whatever the lengths are, all
    sequences are walked side by side, and there are as many segments as for a batch. Only where one chunk
    of each sequence takes more memory than a segment may does it take more, twice as much as those.
    """

    core: Program
    lowered: Recurrent | Scan | TwoPassKernels
    module: Any
    segment: int | None = None

    @property
    def kept(self) -> int:
        """How many tensors forward keeps for backward: one checkpoint per state."""
        return len(self.core.states)

    def forward(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, checkpoints."""
        kernel = self.lowered.forward if train else self.lowered.infer
        arguments, extent = self._arguments(tensors, steps, reverse, cu_seqlens)
        results = self.forward_shapes(tensors, steps, cu_seqlens, train)
        names = (t.name for t in self._written(train))
        launch(self.module, kernel, {**arguments, **dict(zip(names, results, strict=True))}, extent)
        return results

    def forward_shapes(
        self, tensors: Sequence[Tensor], steps: int, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Empty tensors for what ``forward`` returns; they also serve tracing."""
        _, extent = self._arguments(tensors, steps, False, cu_seqlens)
        like, dtype = tensors[-1], tensors[0].dtype
        return tuple(
            like.new_empty(self._shape(t, extent), dtype=torch.float32 if t.compute else dtype)
            for t in self._written(train)
        )

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
        core = self.core
        arguments, whole = self._arguments(tensors, steps, reverse, cu_seqlens)
        arguments |= {f"{s.name}_checkpoint": c for s, c in zip(core.states, kept, strict=True)}
        arguments |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=True)}
        carried = dict(zip((s.name for s in core.states), of_ends(core, tensors, ends), strict=True))
        per_step = {t.name: self._room(t, whole, arguments[t.name[2:]]) for t in self._gradients("step")}
        sums: dict[str, Tensor] = {}
        for number, extent in enumerate(self._segments(whole)):
            carried = self._segment_backward({**arguments, **per_step}, extent, carried, sums, number == 0)
        by_name = {t.name: t for t in (*self._gradients("step"), *self._gradients("sequence"))}
        found = {name[2:]: over_copies(value, by_name[name]) for name, value in per_step.items()} | sums
        found |= {name: over_copies(value, by_name[f"d_{name}_start"]) for name, value in carried.items()}
        return gradients(core, tensors, found)

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``backward`` returns, for tracing."""
        return gradient_shapes(tensors)

    @property
    def _rebuilding(self) -> Recurrent | Scan:
        """Kernels whose backward rebuilds the states."""
        assert isinstance(self.lowered, Recurrent | Scan)
        return self.lowered

    def _segment_backward(
        self,
        arguments: Mapping[str, Tensor],
        extent: Extent | Packed,
        carried: Mapping[str, Tensor],
        sums: dict[str, Tensor],
        last: bool,
    ) -> dict[str, Tensor]:
        """One segment: the cotangents of the states at its end become those at its start."""
        lowered, states = self._rebuilding, self.core.states
        like = arguments[f"{states[0].name}_start"]
        scratch = [t for kernel in lowered.backward for t in kernel.tensors if t.place == "segment"]
        partial, starts = self._gradients("partial"), self._gradients("sequence", "_start")
        room = {
            t.name: like.new_empty(self._shape(t, extent), dtype=torch.float32) for t in (*scratch, *partial, *starts)
        }
        if isinstance(extent, Packed) and extent.parts > 1:
            for name in {t.name for p in lowered.products for t in (p.left, p.right)}:
                room[name].zero_()  # sequences need not fill their rows, and the products below read all
        entered = {
            t.name: entering(t, lowered.layout, carried[s.name]) if last else carried[s.name]
            for t, s in zip(self._gradients("sequence", "_end"), states, strict=True)
        }
        for kernel in lowered.backward:
            launch(self.module, kernel, {**arguments, **room, **entered}, extent)
        for tensor in partial:
            add(sums, tensor.name[2:], room[tensor.name].flatten(0, len(tensor.copies)).sum(0))
        for product in lowered.products:
            left, right = (over_copies(room[t.name], t) for t in (product.left, product.right))
            first, second, out = (letters(side) for side in product.labels)
            add(sums, product.param, torch.einsum(f"bth{first},bth{second}->h{out}", left, right))
        return {s.name: room[f"d_{s.name}_start"] for s in states}

    # ------------------------------------------------------------ shapes

    def _arguments(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None
    ) -> tuple[dict[str, Tensor], Extent | Packed]:
        return called(self.core, tensors, steps, self.lowered.chunk, reverse, cu_seqlens)

    def _written(self, train: bool) -> list[kernel_ir.Tensor]:
        kernel = self.lowered.forward if train else self.lowered.infer
        by_name = {t.name: t for t in kernel.tensors}
        names = [o.name for o in self.core.outputs] + [f"{s.name}_end" for s in self.core.states]
        names += [f"{s.name}_checkpoint" for s in self.core.states] if train else []
        return [by_name[name] for name in names]

    def _gradients(self, place: str, ending: str = "") -> list[kernel_ir.Tensor]:
        """Gradients that the adjoint kernel writes (or carries) at a place."""
        outputs = {f"d_{o.name}" for o in self.core.outputs}
        tensors = [t for t in self._rebuilding.adjoint.tensors if t.place == place and t.name not in outputs]
        return [t for t in tensors if t.name.startswith("d_") and t.name.endswith(ending)]

    def _shape(self, tensor: kernel_ir.Tensor, extent: Extent | Packed) -> tuple[int, ...]:
        return shape(tensor, self.lowered.layout, extent)

    def _room(self, tensor: kernel_ir.Tensor, extent: Extent | Packed, argument: Tensor) -> Tensor:
        """Room for an input's gradient: in float32 where parts are still to be summed."""
        whole = not tensor.copies and argument.shape[2] == extent.heads
        return argument.new_empty(self._shape(tensor, extent), dtype=argument.dtype if whole else torch.float32)

    def _segments(self, whole: Extent | Packed) -> Iterator[Extent | Packed]:
        """The parts that the backward walks one after another, the last steps first."""
        steps, chunk, most = whole.steps, self.lowered.chunk, self._most(whole)
        if isinstance(whole, Packed):
            least = whole.batch * chunk  # a chunk of each sequence
            parts = 1 if steps <= max(most, 2 * least) else -(-steps // max(most - least, least))
            yield from (replace(whole, parts=parts, part=part) for part in reversed(range(parts)))
            return
        segment = max(1, most // chunk) * chunk if self.segment is None else -(-most // chunk) * chunk
        for begin in reversed(range(0, max(steps, 1), segment)):
            yield replace(whole, begin=begin, count=min(segment, steps - begin))

    def _most(self, whole: Extent | Packed) -> int:
        """How many steps a segment may have, of each sequence of a batch or of packed ones together."""
        if self.segment is not None:
            return self.segment
        step = Extent(1 if isinstance(whole, Packed) else whole.batch, 1, whole.heads, 1, self.lowered.chunk)
        tensors = {t.name: t for k in self._rebuilding.backward for t in k.tensors if t.place == "segment"}
        size = 4 * sum(math.prod(self._shape(t, step)) for t in tensors.values())
        return SEGMENT_BYTES // max(1, size)
