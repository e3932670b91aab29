"""The chunk-parallel algorithm for an affine normal form (algorithms.md sections 2 and 4).

For the C tokens of a chunk, with H the state that enters it, ``read_i`` the reads and ``key_j`` the writes of a token:

    A_ij = read_i . key_j * decay(j to i)      for tokens j < i: what a read sees of earlier writes of the chunk
    (I - A) n = z + read^ H                    n: all rows that are written; one triangular solve
    o   = q^ H + Q n                           Q_ij = q_i . key_j * decay(j to i)
    H+  = decay H + key^^T n

``read^`` and ``q^`` carry the decay from the chunk's start, ``key^^`` the decay to its end. A and Q do not depend on H,
so they and the solve are computed for all chunks at once; only H goes from chunk to chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .decay import gathered, products
from .tokens import Tokens


@dataclass(frozen=True)
class Solution:
    """The states that enter the chunks ``[B, H, N, K, V]``, the rows that tokens write ``[B, H, N, C, P, V]``, and the
    state after the last chunk ``[B, H, K, V]``."""

    entering: Tensor
    written: Tensor
    final: Tensor


def solve(tokens: Tokens, start: Tensor) -> Solution:
    """All that is written and carried, from the state ``start`` ``[B, H, K, V]``; tokens are ``[B, H, N, C, ...]``."""
    count = tokens.reads.shape[-2]
    known, erased = triangular(tokens)
    keys = tokens.keys if tokens.decay is None else tokens.keys * tokens.decay.beyond().unsqueeze(-2)
    mine, others = keys[..., :count, :].flatten(-3, -2).mT, keys[..., count:, :].flatten(-3, -2).mT
    added = others @ tokens.values[..., count:, :].flatten(-3, -2)
    left = torch.ones_like(added[..., :1]) if tokens.decay is None else tokens.decay.whole().unsqueeze(-1)
    state, entering, rows = start, [], []
    chunks = zip(*(x.unbind(2) for x in (known, erased, mine, added, left)), strict=True)
    for u, w, keys_of_chunk, more, decay in chunks:
        entering.append(state)
        rows.append(u + w @ state)
        state = decay * state + keys_of_chunk @ rows[-1] + more
    solved = torch.stack(rows, 2).unflatten(-2, (-1, count)) if count else tokens.values[..., :0, :]
    written = torch.cat([solved, tokens.values[..., count:, :]], -2)
    return Solution(torch.stack(entering, 2), written, state)


def triangular(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """``n = u + W H``: u ``[..., C R, V]`` and W ``[..., C R, K]``, the solutions of ``(I - A) [u W] = [z read^]``."""
    steps, count = tokens.reads.shape[-3:-1]
    given, others = (part.flatten(-3, -2) for part in (tokens.values[..., :count, :], tokens.values[..., count:, :]))
    reads = tokens.reads if tokens.decay is None else tokens.reads * tokens.decay.before().unsqueeze(-2)
    if not count:
        return given, reads.flatten(-3, -2)
    seen = products(tokens.reads, tokens.keys, tokens.decay, strict=True) + _on_diagonal(tokens.within)
    seen = seen.unflatten(-1, (steps, -1))
    mine, of_others = seen[..., :count].flatten(-2), seen[..., count:].flatten(-2)
    right = torch.cat([given + of_others @ others, reads.flatten(-3, -2)], -1)
    # the diagonal is taken for ones without being looked at
    solved = torch.linalg.solve_triangular(-mine, right, upper=False, unitriangular=True)
    return solved[..., : given.shape[-1]], solved[..., given.shape[-1] :]


def _on_diagonal(within: Tensor) -> Tensor:
    """``[..., C, R, P]`` as a matrix ``[..., C R, C P]`` of blocks on a diagonal."""
    return torch.diag_embed(within.movedim(-3, -1), dim1=-4, dim2=-2).flatten(-2).flatten(-3, -2)


# ---------------------------------------------------------------- read-outs


def read_rows(tokens: Tokens, solution: Solution, query: Tensor, columns: slice, *, before: bool) -> Tensor:
    """``q @ S`` for some columns of every token's state, ``[..., C, V]``; queries are ``[..., C, K]``."""
    q = query.unsqueeze(-2)
    seen = products(q, tokens.keys, tokens.decay, strict=before)
    entering, written = solution.entering[..., columns], solution.written[..., columns].flatten(-3, -2)
    return _since_start(tokens, query, before) @ entering + seen @ written


def read_columns(tokens: Tokens, solution: Solution, query: Tensor, columns: slice, *, before: bool) -> Tensor:
    """``S @ q`` for every token's state, ``[..., C, K]``; queries ``[..., C, V]`` are of the columns given."""
    entering, written = solution.entering[..., columns], solution.written[..., columns]
    weights = (query @ written.flatten(-3, -2).mT).unflatten(-1, written.shape[-3:-1])
    return _since_start(tokens, query @ entering.mT, before) + gathered(
        weights, tokens.keys, tokens.decay, strict=before
    )


def _since_start(tokens: Tokens, vectors: Tensor, before: bool) -> Tensor:
    """Vectors along the mixed axis as the chunk's start sees them, ``[..., C, K]``."""
    if tokens.decay is None:
        return vectors
    return vectors * (tokens.decay.before() if before else tokens.decay.upto())
