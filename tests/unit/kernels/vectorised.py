"""Scans in Triton's interpreter by doubling: all rows at once, and combined in another order than one by one.

The interpreter combines element by element, which takes 100 microseconds for each and hides a function that
is not associative. A GPU combines in the shape of a tree; so does this. Flipping is slow for the same reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have interpreted kernels scan by doubling and flip at once."""
    import triton.language as tl
    from triton.runtime.interpreter import ScanOps

    def flip(x: Any, dim: int) -> Any:
        return ScanOps(dim, None, False).to_tensor(np.flip(x.handle.data, dim), x.dtype)

    monkeypatch.setattr(ScanOps, "generic_scan", _by_doubling)
    monkeypatch.setattr(tl, "flip", flip)


def _by_doubling(self: Any, operands: Any) -> Any:
    tiles, dtypes = [operand.handle.data for operand in operands], [operand.dtype for operand in operands]
    shape, distance = tiles[0].shape, 1
    rows = np.arange(shape[self.axis]).reshape([-1 if axis == self.axis else 1 for axis in range(len(shape))])

    def tensors(data: list[Any]) -> list[Any]:
        return [self.to_tensor(tile, dtype) for tile, dtype in zip(data, dtypes, strict=True)]

    while distance < shape[self.axis]:
        earlier = [np.roll(tile, distance, self.axis) for tile in tiles]
        combined = self.combine_fn.fn(*tensors(earlier), *tensors(tiles))
        tiles = [np.where(rows < distance, a, b.handle.data) for a, b in zip(tiles, combined, strict=True)]
        distance *= 2
    return tensors(tiles)
