"""The recurrent strategy on processors at run time: forward and backward, one call of a native kernel each."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...compiler.codegen.cpp import NUMBERS
from ...compiler.ir.program import Program
from ...compiler.lower import kernel_ir
from ...compiler.lower.kernel_ir import Kernel
from ...compiler.lower.layout import Layout
from ...compiler.lower.native import Native
from ...compiler.lower.two_pass import TwoPassKernels
from . import pool
from .arguments import extents, gradient_shapes, gradients, named, of_ends, over_copies

STREAMED = 1 << 24
"""Bytes of results per step from which on they are written past the caches."""

ALIGNMENT = 64


@dataclass(frozen=True)
class Extent:
    """The lengths of one call. ``share`` sequences go to each of ``groups`` programs per head and tile;
    results are written ``past`` the caches or not."""

    batch: int
    steps: int
    heads: int
    chunks: int
    share: int
    groups: int
    threads: int
    reverse: bool = False
    packed: bool = False
    past: int = 0

    def numbers(self) -> list[int]:
        """The whole numbers that every kernel takes, in order."""
        known = {"first": self.steps - 1 if self.reverse else 0, "direction": -1 if self.reverse else 1}
        return [known[name] if name in known else getattr(self, name) for name in NUMBERS]


@dataclass(frozen=True)
class NativeKernels:
    """The kernels of one recurrence, loaded as a shared library, for tensors of one dtype."""

    core: Program
    lowered: Native | TwoPassKernels
    library: ctypes.CDLL
    dtype: torch.dtype

    @property
    def kept(self) -> int:
        """How many tensors forward keeps for backward: one checkpoint per state."""
        return len(self.core.states)

    @property
    def real(self) -> torch.dtype:
        """The dtype that is computed with, which states and params have."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def forward(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, checkpoints."""
        extent = self._extent(tensors, steps, reverse, cu_seqlens)
        results = tuple(pool.empty(*self._shape(t, extent)) for t in self._written(train))
        arguments = self._arguments(tensors)
        arguments |= dict(zip((t.name for t in self._written(train)), results, strict=True))
        single = self.lowered.step if steps == 1 else None
        kernel = self.lowered.forward if train else single or self.lowered.infer
        self._launch(kernel, arguments, extent, cu_seqlens)
        return results

    def forward_shapes(
        self, tensors: Sequence[Tensor], steps: int, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``forward`` returns, for tracing."""
        extent = self._extent(tensors, steps, False, cu_seqlens)
        shapes = (self._shape(t, extent) for t in self._written(train))
        return tuple(tensors[-1].new_empty(shape, dtype=dtype) for shape, dtype in shapes)

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
        assert isinstance(self.lowered, Native)
        core, kernel = self.core, self.lowered.backward
        extent = self._extent(tensors, steps, reverse, cu_seqlens)
        arguments = self._arguments(tensors)
        arguments |= {f"{s.name}_checkpoint": c for s, c in zip(core.states, kept, strict=True)}
        arguments |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=True)}
        by_name = {t.name: t for t in kernel.tensors if t.place != "segment"}
        for state, given in zip(core.states, of_ends(core, tensors, ends), strict=True):
            arguments[f"d_{state.name}_end"] = entering(by_name[f"d_{state.name}_end"], given, self.lowered.layout)
        for tensor in by_name.values():
            if tensor.name not in arguments:
                arguments[tensor.name] = pool.empty(*self._shape(tensor, extent))
        self._launch(kernel, arguments, extent, cu_seqlens)
        found: dict[str, Tensor] = {}
        names = {leaf.name: f"d_{leaf.name}" for leaf in core.leaves()}
        names |= {state.name: f"d_{state.name}_start" for state in core.states}
        for leaf, name in names.items():
            if name in by_name:
                value = over_copies(arguments[name], by_name[name])
                found[leaf] = value.sum(0) if by_name[name].place == "partial" else value
        return gradients(core, tensors, found)

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``backward`` returns, for tracing."""
        return gradient_shapes(tensors)

    # ------------------------------------------------------------ inside

    def _extent(self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None) -> Extent:
        layout = self.lowered.layout
        batch, heads = extents(self.core, tensors)
        threads = torch.get_num_threads()
        others = heads * math.prod(layout.count(name) for name in layout.tiles)
        groups = batch
        if layout.rows > 1:
            groups = max(-(-batch // layout.rows), min(batch, -(-threads // max(1, others))))
        share = -(-batch // max(1, groups))
        packed, chunk = cu_seqlens is not None, self.lowered.chunk
        chunks = steps // chunk + batch if packed else -(-steps // chunk)
        return Extent(batch, steps, heads, chunks, share, -(-batch // max(1, share)), threads, reverse, packed)

    def _arguments(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        core = self.core
        arguments = named(core, tensors)
        wide = {t.name for t in self.lowered.infer.tensors if t.place == "step" and t.compute}
        for leaf in core.inputs:
            dtype = self.real if leaf.name in wide else self.dtype
            arguments[leaf.name] = _packed(arguments[leaf.name].to(dtype))
        for param in core.params:
            arguments[param.name] = arguments[param.name].to(self.real)
        for state in core.states:
            arguments[f"{state.name}_start"] = arguments.pop(state.name).to(self.real)
        return arguments

    def _written(self, train: bool) -> list[kernel_ir.Tensor]:
        """What forward writes, in order: outputs, end states, checkpoints."""
        kernel = self.lowered.forward if train else self.lowered.infer
        by_name = {t.name: t for t in kernel.tensors}
        names = [o.name for o in self.core.outputs] + [f"{s.name}_end" for s in self.core.states]
        names += [f"{s.name}_checkpoint" for s in self.core.states] if train else []
        return [by_name[name] for name in names]

    def _shape(self, tensor: kernel_ir.Tensor, extent: Extent) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of what a kernel writes."""
        layout, batch = self.lowered.layout, 1 if extent.packed else extent.batch
        outer = {
            "step": (batch, extent.steps, extent.heads),
            "sequence": (extent.batch, extent.heads),
            "checkpoint": (batch, extent.chunks, extent.heads),
            "partial": (extent.groups, extent.heads),
        }[tensor.place]
        copies = tuple(layout.count(name) for name in tensor.copies)
        sizes = (layout.sizes[axis.name] for axis in tensor.axes)
        return (*copies, *outer, *sizes), self.real if tensor.compute else self.dtype

    def _launch(
        self, kernel: Kernel, arguments: Mapping[str, Tensor], extent: Extent, cu_seqlens: Tensor | None
    ) -> None:
        """Run one kernel; ``arguments`` stay bound for as long as it runs."""
        callers = [t for t in kernel.tensors if t.place != "segment"]
        written = [arguments[t.name] for t in callers if t.place == "step" and not t.strided]
        numbers = replace(extent, past=int(_past_the_caches(written, kernel.layout))).numbers()
        for tensor in callers:
            if tensor.strided:
                value = arguments[tensor.name]
                numbers += [value.shape[2], *value.stride()[:3]]
        given = [arguments[t.name] for t in callers]
        given += [] if cu_seqlens is None else [_longest_first(cu_seqlens, extent.steps)]
        pointers = (ctypes.c_void_p * len(given))(*(value.data_ptr() for value in given))
        failed = getattr(self.library, kernel.name)(pointers, (ctypes.c_int64 * len(numbers))(*numbers))
        if failed:
            raise MemoryError(f"{self.core.name}: no memory for what the kernel {kernel.name} keeps per thread")


def _longest_first(cu_seqlens: Tensor, steps: int) -> Tensor:
    """The table of packed sequences that kernels take: int64 [N, 3], of each its number, begin and length.

    Traced calls come with values that nobody has looked at: none may lead outside.
    """
    bounds = cu_seqlens.to(torch.int64).clamp(0, steps)
    begins, lengths = bounds[:-1], bounds.diff().clamp(min=0)
    order = lengths.argsort(descending=True, stable=True)
    return torch.stack([order, begins[order], lengths[order]], 1)


def _past_the_caches(results: Sequence[Tensor], layout: Layout) -> bool:
    """Whether results per step are too large for caches and lie so that only whole aligned vectors are written."""
    if sum(value.numel() * value.element_size() for value in results) < STREAMED:
        return False
    rows = [value.shape[-1] * value.element_size() for value in results]
    shares = [layout.blocks[name] * results[0].element_size() for name in layout.tiles]
    return all(size % ALIGNMENT == 0 for size in (*rows, *shares, *(value.data_ptr() for value in results)))


def _packed(value: Tensor) -> Tensor:
    """An input [B, T, G, ...] whose own axes are contiguous; sequences, steps and heads may lie anywhere."""
    expected = 1
    for size, stride in zip(reversed(value.shape[3:]), reversed(value.stride()[3:]), strict=True):
        if size != 1 and stride != expected:
            return value.contiguous()
        expected *= size
    return value


def entering(tensor: kernel_ir.Tensor, given: Tensor, layout: Layout) -> Tensor:
    """The cotangent of an end state as the kernel takes it: where tiles have copies, the first has it all."""
    if not tensor.copies:
        return given
    copies = [layout.count(name) for name in tensor.copies]
    value = given.new_zeros((math.prod(copies), *given.shape))
    value[0] = given
    return value.reshape(*copies, *given.shape)
