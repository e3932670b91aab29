"""Passes at run time: each by its own kernels, what one hands on an input of the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...compiler.ir.program import Program
from ...compiler.lower.chain import Chain
from ...compiler.lower.chunk_kernels import Chunked
from .arguments import gradient_shapes
from .chunked import ChunkExecutor
from .fused import Fused
from .operators import Executor


@dataclass(frozen=True)
class Chained:
    """The executors of all passes of a recurrence; ``handed`` are the outputs of each that later ones read."""

    core: Program
    parts: tuple[Executor, ...]
    handed: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(core: Program, chain: Chain, module: Any, schedule: str = "auto") -> Executor:
        """What runs a chain; a single pass needs nothing around it."""
        parts: list[Executor] = []
        for part, lowered in chain.parts:
            if isinstance(lowered, Chunked):
                parts.append(ChunkExecutor(part.program, lowered, module, chain.started, schedule))
            else:
                parts.append(Fused(part.program, lowered, module))
        if len(parts) == 1:
            return parts[0]
        return Chained(core, tuple(parts), tuple(part.handed for part, _ in chain.parts))

    @property
    def kept(self) -> int:
        """What all passes keep, and what they hand on."""
        return sum(part.kept for part in self.parts) + sum(len(names) for names in self.handed)

    def forward(
        self, tensors: Sequence[Tensor], steps: int, reverse: bool, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Outputs, end states and, with ``train``, what is kept."""
        return self._through(tensors, train, lambda part, args: part.forward(args, steps, reverse, cu_seqlens, train))

    def forward_shapes(
        self, tensors: Sequence[Tensor], steps: int, cu_seqlens: Tensor | None, train: bool
    ) -> tuple[Tensor, ...]:
        """Empty tensors for what ``forward`` returns; they also serve tracing."""
        return self._through(tensors, train, lambda part, args: part.forward_shapes(args, steps, cu_seqlens, train))

    def _through(self, tensors: Sequence[Tensor], train: bool, run: Any) -> tuple[Tensor, ...]:
        known = self._leaves(tensors)
        outputs: dict[str, Tensor] = {}
        ends: dict[str, Tensor] = {}
        kept: list[Tensor] = []
        for part in self.parts:
            results = run(part, self._arguments(part, known))
            own = part.core
            outputs |= dict(zip((o.name for o in own.outputs), results, strict=False))
            known |= {("input", o.name): value for o, value in zip(own.outputs, results, strict=False)}
            ends |= dict(zip((s.name for s in own.states), results[len(own.outputs) :], strict=False))
            kept += results[len(own.outputs) + len(own.states) :]
        kept += [outputs[name] for names in self.handed for name in names]
        visible = (*(outputs[o.name] for o in self.core.outputs), *(ends[s.name] for s in self.core.states))
        return (*visible, *kept) if train else visible

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
        core = self.core
        known = self._leaves(tensors)
        names = [name for names in self.handed for name in names]
        between = dict(zip(names, kept[len(kept) - len(names) :], strict=True))
        known |= {("input", name): value for name, value in between.items()}
        asked = dict(zip((o.name for o in core.outputs), cotangents, strict=True))
        carried = dict(zip((s.name for s in core.states), ends, strict=True))
        found: dict[tuple[str, str], Tensor] = {}
        end = len(kept) - len(names)
        for part in reversed(self.parts):
            own, start = part.core, end - part.kept
            args = self._arguments(part, known)
            seeds = [self._seed(o.name, asked, found, between) for o in own.outputs]
            last = [carried[s.name] for s in own.states]
            results = part.backward(args, kept[start:end], seeds, last, steps, reverse, cu_seqlens)
            for leaf, value in zip(self._names(part), results, strict=True):
                found[leaf] = found[leaf] + value if leaf in found else value
            end = start
        wanted = (*(("input", i.name) for i in core.inputs), *(("param", p.name) for p in core.params))
        return tuple(found[leaf] for leaf in (*wanted, *(("state", s.name) for s in core.states)))

    def backward_shapes(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Empty tensors like those that ``backward`` returns, for tracing."""
        return gradient_shapes(tensors)

    @staticmethod
    def _seed(
        name: str, asked: dict[str, Tensor], found: dict[tuple[str, str], Tensor], between: dict[str, Tensor]
    ) -> Tensor:
        """The cotangent of a pass' output: what the caller gave, or what later passes found."""
        if name not in between:
            return asked[name]
        value = found.pop(("input", name), None)
        return between[name].new_zeros(between[name].shape) if value is None else value.contiguous()

    def _leaves(self, tensors: Sequence[Tensor]) -> dict[tuple[str, str], Tensor]:
        core = self.core
        names = [("input", i.name) for i in core.inputs] + [("param", p.name) for p in core.params]
        return dict(zip([*names, *(("state", s.name) for s in core.states)], tensors, strict=True))

    @staticmethod
    def _names(part: Executor) -> list[tuple[str, str]]:
        core = part.core
        names = [("input", i.name) for i in core.inputs] + [("param", p.name) for p in core.params]
        return [*names, *(("state", s.name) for s in core.states)]

    def _arguments(self, part: Executor, known: dict[tuple[str, str], Tensor]) -> list[Tensor]:
        return [known[leaf] for leaf in self._names(part)]
