"""One pass of affine normal form: its prologue for all steps at once, the chunks, then its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ...compiler.analysis.affine import AffineForm, Member
from ...compiler.analysis.readout import Read
from ...compiler.ir.program import depends_on, live
from ..reference import Begun, evaluate
from .matrix import Solution, read_columns, read_rows, solve
from .tokens import Tokens, tokens_of, values_needed

Results = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Outputs ``[B, T, H, *axes]`` (1 for B, T or H where they do not vary) and final states ``[B, H, *axes]`` by name."""


@dataclass(frozen=True)
class _Chunks:
    """``known`` values ``[B, T, H, *axes]`` cut into chunks of ``size`` tokens."""

    known: Mapping[int, Tensor]
    full: tuple[int, int, int]
    size: int
    _done: dict[tuple[int, float], Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return max(1, -(-self.full[1] // self.size))

    def __call__(self, position: int, fill: float = 0.0) -> Tensor:
        """The value at a position, ``[B, H, N, C, n]``; n = 1 for a scalar, and what is missing of the last chunk is
        ``fill``."""
        if (position, fill) not in self._done:
            value = self.known[position]
            value = value.expand(*self.full, *value.shape[3:])
            value = value.unsqueeze(-1) if value.dim() == 3 else value
            value = F.pad(value, (0, 0, 0, 0, 0, self.count * self.size - self.full[1]), value=fill)
            self._done[position, fill] = value.unflatten(1, (self.count, self.size)).movedim(3, 1)
        return self._done[position, fill]

    def joined(self, value: Tensor) -> Tensor:
        """``[B, T, H, n]`` from ``[B, H, N, C, n]``."""
        return value.movedim(1, 3).flatten(1, 2)[:, : self.full[1]]


def run_affine(form: AffineForm, begun: Begun, sizes: Mapping[str, int], size: int) -> Results:
    """A pass of affine normal form, in chunks of ``size`` tokens (a power of two)."""
    known = _prologue(form, begun, sizes)
    chunks = _Chunks(known, begun.full, size)
    batch, _, heads = begun.full
    like = begun.like.new_zeros(()).expand(batch, heads, chunks.count, size, form.mix.size.bind(sizes))
    starts = [_as_matrix(begun.states[member.state], member) for member in form.members]
    widths = [start.shape[-1] for start in starts]
    tokens = tokens_of(form, widths, chunks, like)
    solution = solve(tokens, torch.cat(starts, -1))
    columns = {m.state: slice(e - w, e) for m, w, e in zip(form.members, widths, accumulate(widths), strict=True)}
    leaves = dict(begun.leaves)
    for read in form.reads:
        found = chunks.joined(_read(read, tokens, solution, chunks, columns[read.state]))
        vector = any(member.state == read.state and member.column is None for member in form.members)
        leaves["read", read.name] = found.squeeze(-1) if vector and read.over == "mix" else found
    values = [value for _, value in form.outputs]
    done = evaluate(form.body, values, leaves, sizes, 3, known=known, full=begun.full, like=begun.like)
    finals = {m.state: _as_state(solution.final[..., columns[m.state]], m) for m in form.members}
    return {name: done[value] for name, value in form.outputs}, finals


def _read(read: Read, tokens: Tokens, solution: Solution, chunks: _Chunks, columns: slice) -> Tensor:
    reader = read_rows if read.over == "mix" else read_columns
    return reader(tokens, solution, chunks(read.query), columns, before=read.before)


def _as_matrix(state: Tensor, member: Member) -> Tensor:
    """``[B, H, K, columns]``: the mixed axis first, a vector as one column."""
    if member.column is None:
        return state.unsqueeze(-1)
    return state.mT if member.position else state


def _as_state(matrix: Tensor, member: Member) -> Tensor:
    if member.column is None:
        return matrix.squeeze(-1)
    return matrix.mT if member.position else matrix


def _prologue(form: AffineForm, begun: Begun, sizes: Mapping[str, int]) -> dict[int, Tensor]:
    """Everything that reads no state and that chunks or outputs need, each value computed (and so clipped) once."""
    body, outputs = form.body, [value for _, value in form.outputs]
    varies = depends_on(body, ("read",))
    wanted = {*values_needed(form), *(read.query for read in form.reads), *outputs}
    wanted |= {arg for p in live(body, outputs) if varies[p] for arg in body[p].args}
    given = [position for position in sorted(wanted) if not varies[position]]
    return evaluate(body, given, begun.leaves, sizes, 3, full=begun.full, like=begun.like)
