"""The tokens of an affine normal form: sub-steps folded into one step per token.

A token may take several sub-steps (links), each with a decay and rank-one pairs that read and write. Seen from outside
there is one decay per token, every key decayed to the token's end, every read moved to its start; only what a read
sees of earlier sub-steps of its own token is left over (``within``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...compiler.analysis import affine as ir
from ...compiler.analysis.affine import AffineForm, Pair
from ...compiler.ir.program import live
from .decay import Decay


class Rows(Protocol):
    """The value at a position of the body for every token, ``[..., C, n]``: n entries of a vector, 1 of a scalar.

    Tokens that only fill a chunk up hold ``fill``."""

    def __call__(self, position: int, fill: float = 0.0) -> Tensor: ...


@dataclass(frozen=True)
class Tokens:
    """What every token does to the state ``[K, V]``, with R pairs that read among the P that write.

    Pair i writes ``keys[i]`` times a row of V entries: what it is given, ``values[i]``, and, for i < R, what it reads.
    ``keys`` ``[..., C, P, K]`` are as the token's end sees them, ``reads`` ``[..., C, R, K]`` are of the state before
    the token; ``values`` are ``[..., C, P, V]``, and ``within`` ``[..., C, R, P]`` is what pair i reads along pair j's
    key where j wrote in an earlier sub-step of the same token.
    """

    decay: Decay | None
    keys: Tensor
    values: Tensor
    reads: Tensor
    within: Tensor


@dataclass(frozen=True)
class _Pair:
    """A pair at its own sub-step: ``key`` as the link's end sees it, ``read`` (scaled) of the state before the link."""

    link: int
    key: Tensor
    given: Tensor
    read: Tensor | None


def by_logarithm(form: AffineForm) -> bool:
    """Whether decays are taken as logarithms: where the spec computes them from one.

    Any other decay's logarithm would have to be taken, and has no gradient where the decay is 0.
    """
    decays = [link.decay for link in form.links if link.decay is not None]
    taken = any(form.body[position].op == "log" for position in live(form.body, [d.log for d in decays]))
    return not taken and all(decay.sign is None for decay in decays)


def values_needed(form: AffineForm) -> tuple[int, ...]:
    """The values of the body that :func:`tokens_of` asks for."""
    logs = by_logarithm(form)
    found: list[int | None] = []
    for link in form.links:
        if link.decay is not None:
            found.append(link.decay.log if logs else link.decay.value)
        for pair in link.pairs:
            found += [pair.key, pair.read, pair.scale, *pair.values]
    return tuple(dict.fromkeys(position for position in found if position is not None))


def tokens_of(form: AffineForm, columns: Sequence[int], rows: Rows, like: Tensor) -> Tokens:
    """The tokens of a form whose members have that many columns each (1 for a vector); ``like`` is ``[..., C, K]``."""
    logs = by_logarithm(form)
    own = [None if link.decay is None else _decay(link.decay, logs, rows) for link in form.links]
    factors = [decay.exp() if logs and decay is not None else decay for decay in own]
    pairs = [
        _Pair(index, rows(pair.key), _given(pair, columns, rows, like), _read(pair, factors[index], rows))
        for index, link in enumerate(form.links)
        for pair in link.pairs
    ]
    pairs.sort(key=lambda pair: pair.read is None)  # stable: those that read come first, in the order of time
    reads = [_times(pair.read, factors[: pair.link]) for pair in pairs if pair.read is not None]
    wide = like[..., :1].expand(*like.shape[:-1], sum(columns))
    return Tokens(
        _folded(own, logs),
        _stacked([_times(pair.key, factors[pair.link + 1 :]) for pair in pairs], like),
        _stacked([pair.given for pair in pairs], wide),
        _stacked(reads, like),
        _within(pairs, factors, like),
    )


def _decay(decay: ir.Decay, logs: bool, rows: Rows) -> Tensor:
    return rows(decay.log) if logs else rows(decay.value, 1.0)


def _given(pair: Pair, columns: Sequence[int], rows: Rows, like: Tensor) -> Tensor:
    """What a pair is given, the members' columns side by side."""
    parts = [
        like.new_zeros(()).expand(*like.shape[:-1], count) if value is None else rows(value)
        for value, count in zip(pair.values, columns, strict=True)
    ]
    return torch.cat(parts, -1)


def _read(pair: Pair, decay: Tensor | None, rows: Rows) -> Tensor | None:
    """A read of the state before the link: one that sees the decayed state decays what it is multiplied with."""
    if pair.read is None:
        return None
    read = rows(pair.read) if pair.scale is None else rows(pair.read) * rows(pair.scale)
    return read * decay if pair.post and decay is not None else read


def _times(vector: Tensor, factors: Sequence[Tensor | None]) -> Tensor:
    for factor in factors:
        vector = vector if factor is None else vector * factor
    return vector


def _folded(own: Sequence[Tensor | None], logs: bool) -> Decay | None:
    """The decay of a whole token."""
    found = [decay for decay in own if decay is not None]
    if not found:
        return None
    total = found[0]
    for decay in found[1:]:
        total = total + decay if logs else total * decay
    return Decay(total, logs)


def _within(pairs: Sequence[_Pair], factors: Sequence[Tensor | None], like: Tensor) -> Tensor:
    nothing = like.new_zeros(()).expand(like.shape[:-1])
    rows = []
    for reader in pairs:
        if reader.read is None:
            break
        row = []
        for writer in pairs:
            seen = nothing
            if writer.link < reader.link:
                seen = (_times(reader.read, factors[writer.link + 1 : reader.link]) * writer.key).sum(-1)
            row.append(seen)
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2) if rows else like.new_zeros(*like.shape[:-1], 0, len(pairs))


def _stacked(vectors: Sequence[Tensor], like: Tensor) -> Tensor:
    """Vectors ``[..., C, n]`` as ``[..., C, count, n]``."""
    return torch.stack(tuple(vectors), -2) if vectors else like.new_zeros(*like.shape[:-1], 0, like.shape[-1])
