"""How much is left, at one step of a chunk, of what was written at another: running products of decays.

A decay between two steps is a running sum of logarithms (or a running product) *over the steps between them*, never
a difference of two sums: nothing cancels, nothing overflows where decays are at most 1, an exact zero stays one, and
no gradient reaches a step that does not lie in between. Where the decay is a vector along the mixed axis, its
running products cannot be factored out of ``sum over K of x_i k_j exp(G_i - G_j)``; then a chunk is cut in halves again
and again, and at every cut the later half sees the earlier one from the boundary between them, the *anchor*: both
factors, from the key to the anchor and from the anchor to the reader, are at most 1.

Tensors end with the rows of a chunk: ``[..., C, X, K]`` for X vectors per row, ``[..., C, K]`` for a decay (K = 1 for a
scalar). C is a power of two where a decay is a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Decay:
    """The decay of every row of a chunk ``[..., C, K or 1]``: as natural logarithms, or as they are (then they may be
    negative or 0)."""

    rows: Tensor
    logs: bool

    @property
    def scalar(self) -> bool:
        return self.rows.shape[-1] == 1

    @property
    def nothing(self) -> float:
        """What leaves a state as it is."""
        return 0.0 if self.logs else 1.0

    def running(self, rows: Tensor) -> Tensor:
        """Products of the rows (dimension -2) up to and with each."""
        return rows.cumsum(-2).exp() if self.logs else rows.cumprod(-2)

    def upto(self) -> Tensor:
        """From before the first row to after row i."""
        return self.running(self.rows)

    def before(self) -> Tensor:
        """From before the first row to before row i."""
        return self.running(F.pad(self.rows[..., :-1, :], (0, 0, 1, 0), value=self.nothing))

    def beyond(self) -> Tensor:
        """From after row i to after the last row."""
        return Decay(self.rows.flip(-2), self.logs).before().flip(-2)

    def whole(self) -> Tensor:
        """Over all rows, ``[..., K or 1]``."""
        return self.rows.sum(-2).exp() if self.logs else self.rows.prod(-2)

    def between(self, strict: bool) -> Tensor:
        """For a scalar decay ``[..., C, C]``: what row i still sees of row j; 0 for j > i.

        A row sees the state after its own decay and write, with ``strict`` the one before both.
        """
        count = self.rows.shape[-2]
        index = torch.arange(count, device=self.rows.device)
        later = index[:, None] > index
        steps = torch.where(later, self.rows.expand(*self.rows.shape[:-1], count), self.nothing)
        seen = self.running(steps).tril()
        return F.pad(seen[..., :-1, :], (0, 0, 1, 0)) if strict else seen

    def halves(self, size: int) -> tuple[Decay, Decay]:
        """Earlier and later neighbours among the blocks of ``size`` rows, ``[..., C / (2 size), size, K]`` each."""
        early, late = _halves(self.rows, size, -2)
        return Decay(early, self.logs), Decay(late, self.logs)


def products(x: Tensor, k: Tensor, decay: Decay | None, *, strict: bool) -> Tensor:
    """``sum over K of x_i k_j decay(j to i)`` for j <= i (with ``strict`` j < i), else 0: ``[..., C X, C P]``.

    ``x`` is ``[..., C, X, K]`` and ``k`` is ``[..., C, P, K]``; row i of x sees the state after row i, with ``strict``
    before it.
    """
    if decay is not None and not decay.scalar:
        return _products_by_halves(x, k, decay, strict)
    whole = x.flatten(-3, -2) @ k.flatten(-3, -2).mT
    count, mine, others = x.shape[-3], x.shape[-2], k.shape[-2]
    blocks = whole.unflatten(-1, (count, others)).unflatten(-3, (count, mine))
    return (blocks * _weights(decay, strict, count, x)).flatten(-2).flatten(-3, -2)


def _weights(decay: Decay | None, strict: bool, count: int, like: Tensor) -> Tensor:
    """What row i sees of row j, ``[..., C, 1, C, 1]``."""
    if decay is None:
        return like.new_ones(count, count).tril(-1 if strict else 0)[:, None, :, None]
    return decay.between(strict)[..., :, None, :, None]


def _products_by_halves(x: Tensor, k: Tensor, decay: Decay, strict: bool) -> Tensor:
    # one row by itself, then blocks of two, four ... rows: [..., number of blocks, rows X, rows P]
    blocks = x @ k.mT
    blocks = torch.zeros_like(blocks) if strict else blocks
    for size in _sizes(x.shape[-3]):
        readers, keys = _across(x, k, decay, size, strict)
        below = readers.flatten(-3, -2) @ keys.flatten(-3, -2).mT
        first, second = _halves(blocks, 1, -3)
        first, second = first.squeeze(-3), second.squeeze(-3)
        above = torch.zeros_like(below)
        blocks = torch.cat([torch.cat([first, above], -1), torch.cat([below, second], -1)], -2)
    return blocks.squeeze(-3)


def _across(x: Tensor, k: Tensor, decay: Decay, size: int, strict: bool) -> tuple[Tensor, Tensor]:
    """Readers of later blocks and keys of the earlier neighbours, both as the boundary between them sees them."""
    early, late = decay.halves(size)
    readers, keys = _halves(x, size, -3)[1], _halves(k, size, -3)[0]
    seen = late.before() if strict else late.upto()
    return readers * seen.unsqueeze(-2), keys * early.beyond().unsqueeze(-2)


def gathered(weights: Tensor, k: Tensor, decay: Decay | None, *, strict: bool) -> Tensor:
    """``sum over j <= i (or j < i) of weights_ij decay(j to i) k_j``: ``[..., C, K]``.

    ``weights`` is ``[..., C, C, P]``, row i's weights of row j's keys ``k`` ``[..., C, P, K]``.
    """
    count = k.shape[-3]
    if decay is None or decay.scalar:
        seen = weights * _weights(decay, strict, count, k).squeeze(-3)
        return seen.flatten(-2) @ k.flatten(-3, -2)
    own = torch.diagonal(weights, dim1=-3, dim2=-2).movedim(-1, -2)  # [..., C, P]
    total = torch.zeros_like(k[..., 0, :]) if strict else (own.unsqueeze(-2) @ k).squeeze(-2)
    ones = torch.ones_like(k[..., :1, :])
    for size in _sizes(count):
        readers, keys = _across(ones, k, decay, size, strict)
        square = weights.unflatten(-2, (-1, 2, size)).unflatten(-5, (-1, 2, size))  # [..., n, 2, size, n, 2, size, P]
        cut = square[..., 1, :, :, 0, :, :]  # [..., n, size, n, size, P]
        pairs = torch.diagonal(cut, dim1=-5, dim2=-3).movedim(-1, -4)  # [..., n, size, size, P]
        seen = pairs.flatten(-2) @ keys.flatten(-3, -2) * readers.squeeze(-2)  # [..., n, size, K]
        total = total + torch.stack([torch.zeros_like(seen), seen], -3).flatten(-4, -2)
    return total


def _sizes(count: int) -> Iterator[int]:
    """Sizes of the blocks that are joined to larger ones: 1, 2, 4 ... count / 2."""
    size = 1
    while size < count:
        yield size
        size *= 2


def _halves(x: Tensor, size: int, dim: int) -> tuple[Tensor, Tensor]:
    """Blocks of ``size`` rows along a dimension (counted from the end) in neighbouring pairs: the first and the second
    of each, with a dimension for the pairs in front of the rows."""
    paired = x.unflatten(dim, (-1, 2, size))
    first, second = paired.unbind(dim - 1)
    return first, second
