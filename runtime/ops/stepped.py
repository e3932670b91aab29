"""The stepwise strategy at run time: products by torch, point-wise kernels between them, step by step.

Packed sequences are one walk over all their steps, in which a step reads and writes the state of the sequence that
it belongs to. They are not walked side by side: how many rounds that takes is known on the device only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...compiler.ir.program import Program
from ...compiler.lower.stepwise import Phase, Product, Stepwise
from .arguments import add, extents, gradient_shapes, gradients, letters, named, of_ends, over_copies
from .launch import Extent, launch, shape


@dataclass(frozen=True)
class Stepped:
    """The kernels and products of one recurrence, loaded from ``module``.

    States before each step and results of products are kept for backward, step after step:
    [T + 1, B, H, ...] and [T, B, H, ...] in float32, B being 1 where sequences are packed.
    """

    core: Program
    lowered: Stepwise
    module: Any

    @property
    def kept(self) -> int:
        """How many tensors forward keeps for backward: states, then products."""
        return len(self.core.states) + len(self.lowered.kept)

    def forward(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, what backward reads again."""
        core = self.core
        results = self.forward_shapes(tensors, steps, cu_seqlens, train)
        outputs = dict(zip((o.name for o in core.outputs), results, strict=False))
        kept = dict(zip(self._kept_names(), results[len(core.outputs) + len(core.states) :], strict=train))
        fixed, starts, weights = self._split(tensors)
        states = {name: start.to(torch.float32).contiguous() for name, start in starts.items()}
        for name, state in states.items():
            if cu_seqlens is not None:
                states[name] = state.clone()  # of all sequences: each step changes that of its own
            elif train:
                kept[name][0] = state
        owners = _owners(cu_seqlens, steps)
        for step, t in enumerate(_order(steps, reverse)):
            extent = self._extent(tensors, steps, t, cu_seqlens)
            now = states if owners is None else _of_sequence(states, owners[t])
            values = {**fixed, **outputs, **{f"{name}_before": state for name, state in now.items()}}
            for name, state in now.items():
                if train and owners is not None:
                    kept[name][step] = state
                values[f"{name}_after"] = kept[name][step + 1] if train else torch.empty_like(state)
            for product in self.lowered.kept if train else ():
                values[product.result] = kept[product.result][step]
            for phase in self.lowered.forward:
                self._phase(phase, values, weights, extent)
            after = {name: values[f"{name}_after"] for name in states}
            states = after if owners is None else _with_sequence(states, owners[t], after)
        for place, state in zip(results[len(core.outputs) :], states.values(), strict=False):
            place.copy_(state)
        return results

    def forward_shapes(
        self, tensors: Sequence[Tensor], steps: int, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Empty tensors for what ``forward`` returns; they also serve tracing."""
        lowered, like = self.lowered, tensors[-1]
        batch, heads = extents(self.core, tensors)
        lead = Extent(batch if cu_seqlens is None else 1, steps, heads, 1, 1)
        places = [lowered.tensors[o.name] for o in self.core.outputs]
        results = [tensors[0].new_empty(shape(t, lowered.layout, lead)) for t in places]
        ends = [shape(lowered.tensors[f"{s.name}_after"], lowered.layout, lead) for s in self.core.states]
        results += [like.new_empty((batch, *end[1:]), dtype=torch.float32) for end in ends]
        if train:
            results += [like.new_empty((steps + 1, *end), dtype=torch.float32) for end in ends]
            shapes = [shape(lowered.tensors[p.result], lowered.layout, lead) for p in lowered.kept]
            results += [like.new_empty((steps, *s), dtype=torch.float32) for s in shapes]
        return tuple(results)

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
        core, lowered = self.core, self.lowered
        fixed, _, weights = self._split(tensors)
        saved = dict(zip(self._kept_names(), kept, strict=True))
        fixed |= {f"d_{o.name}": g for o, g in zip(core.outputs, cotangents, strict=True)}
        # no operator may return one of its arguments, which would happen where there are no steps
        owners = _owners(cu_seqlens, steps)
        own = owners is not None or not steps
        after = zip(core.states, of_ends(core, tensors, ends), strict=True)
        carried = {s.name: g.clone() if own else g for s, g in after}
        per_step = self._room(tensors, self._extent(tensors, steps, 0, cu_seqlens))
        sums: dict[str, Tensor] = {}
        factors: dict[str, list[Tensor]] = {}
        for step, t in reversed(list(enumerate(_order(steps, reverse)))):
            extent = self._extent(tensors, steps, t, cu_seqlens)
            now = carried if owners is None else _of_sequence(carried, owners[t])
            values = {**fixed, **per_step, **{f"d_{name}_after": g for name, g in now.items()}}
            values |= {f"{s.name}_before": saved[s.name][step] for s in core.states}
            values |= {p.result: saved[p.result][step] for p in lowered.kept}
            for phase in lowered.adjoint:
                self._phase(phase, values, weights, extent)
            for additive in lowered.additive:
                values[additive.product.result] += _product(additive.product, values, weights)
            before = {s.name: values[f"d_{s.name}_before"] for s in core.states}
            carried = before if owners is None else _with_sequence(carried, owners[t], before)
            for param in core.params:
                if f"d_{param.name}" in values:
                    add(sums, param.name, values[f"d_{param.name}"].sum(0))
            for name in {side for w in lowered.weights for side in (w.left, w.right)}:
                factors.setdefault(name, []).append(values[name])
        for weight in lowered.weights if steps else ():
            left, right = (torch.stack(factors[name]) for name in (weight.left, weight.right))
            first, second, out = (letters(side) for side in weight.labels)
            add(sums, weight.param, torch.einsum(f"tbh{first},tbh{second}->h{out}", left, right))
        found = {name[2:]: over_copies(value, lowered.tensors[name]) for name, value in per_step.items()}
        return gradients(core, tensors, {**found, **sums, **carried})

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``backward`` returns, for tracing."""
        return gradient_shapes(tensors)

    # ------------------------------------------------------------ one step

    def _phase(self, phase: Phase, values: dict[str, Tensor], weights: Mapping[str, Tensor], extent: Extent) -> None:
        """Run a phase's kernel, then its products; ``values`` gains what they write."""
        kernel = phase.kernel
        if kernel is not None:
            like = next(iter(values.values()))
            for tensor in kernel.tensors:
                if tensor.name not in values:
                    room = shape(tensor, self.lowered.layout, extent)
                    values[tensor.name] = like.new_empty(room, dtype=torch.float32)
            launch(self.module, kernel, values, extent)
            for tensor in kernel.tensors:
                if tensor.copies and tensor.place == "sequence":
                    values[tensor.name] = over_copies(values[tensor.name], tensor)
        for product in phase.products:
            result = _product(product, values, weights)
            if product.result in values:
                values[product.result].copy_(result)
            else:
                values[product.result] = result.contiguous()

    # ------------------------------------------------------------ arguments

    def _split(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and params for kernels, start states, and params in float32 for products."""
        arguments = named(self.core, tensors)
        starts = {s.name: arguments.pop(s.name) for s in self.core.states}
        weights = {p.name: arguments[p.name].to(torch.float32) for p in self.core.params}
        return arguments, starts, weights

    def _extent(self, tensors: Sequence[Tensor], steps: int, t: int, cu_seqlens: Tensor | None) -> Extent:
        batch, heads = extents(self.core, tensors)
        return Extent(batch if cu_seqlens is None else 1, steps, heads, 1, 1, first=t)

    def _kept_names(self) -> list[str]:
        return [*(s.name for s in self.core.states), *(p.result for p in self.lowered.kept)]

    def _room(self, tensors: Sequence[Tensor], extent: Extent) -> dict[str, Tensor]:
        """Room for the gradients of inputs at all steps."""
        written = {t.name for k in self.lowered.kernels for t in k.tensors if t.name.startswith("d_")}
        room = {}
        for leaf, argument in zip(self.core.inputs, tensors, strict=False):
            name = f"d_{leaf.name}"
            if name in written:
                tensor = self.lowered.tensors[name]
                size = shape(tensor, self.lowered.layout, extent)
                room[name] = argument.new_empty(size, dtype=torch.float32)
        return room


def _order(steps: int, reverse: bool) -> Sequence[int]:
    return range(steps)[::-1] if reverse else range(steps)


def _owners(cu_seqlens: Tensor | None, steps: int) -> Sequence[Tensor] | None:
    """The number [1] of the sequence that each step belongs to; within bounds whatever ``cu_seqlens`` holds."""
    if cu_seqlens is None:
        return None
    ends = cu_seqlens[1:].to(torch.int64).contiguous()
    places = torch.arange(steps, device=ends.device)
    return torch.searchsorted(ends, places, right=True).clamp(max=ends.shape[0] - 1).split(1) if steps else ()


def _of_sequence(states: Mapping[str, Tensor], owner: Tensor) -> dict[str, Tensor]:
    """The states of one sequence, as a batch of 1."""
    return {name: state.index_select(0, owner) for name, state in states.items()}


def _with_sequence(states: dict[str, Tensor], owner: Tensor, new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The states of all sequences, those of one replaced in place."""
    return {name: state.index_copy_(0, owner, new[name]) for name, state in states.items()}


def _product(product: Product, values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """The result [B, H, ...] of one product."""
    operands, terms = [], []
    for name, side in zip((product.left, product.right), product.labels, strict=False):
        operands.append(weights[name] if name in weights else values[name])
        terms.append(("h" if name in weights else "bh") + letters(side))
    return torch.einsum(f"{terms[0]},{terms[1]}->bh{letters(product.labels[2])}", *operands)
