"""Memory for large results, taken again when a result is no longer used.

The allocator hands large blocks back to the system, so that at every call the first write to a result goes to
new pages, which the system clears first: three quarters of the time of a recurrence that is bound by
memory. A result that lies in a block of this pool gives the block back when its last tensor is gone.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

LEAST = 1 << 20
"""Bytes from which on a result lies in the pool; smaller ones the allocator reuses itself."""

MOST = 1 << 28
"""Bytes that the pool keeps for results to come, at most."""

_ALIGNMENT = 64
_SPARE = 1.25  # a block serves results that leave a fifth of it unused, at most

_free: list[numpy.ndarray] = []  # blocks that nothing uses, the last used last
_returned: deque[numpy.ndarray] = deque()  # appended to by finalisers, which must not wait for a lock
_lock = threading.Lock()


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor on the CPU with arbitrary contents, aligned to 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST:
        return torch.empty(shape, dtype=dtype)
    block = _take(size)
    offset = -block.ctypes.data % _ALIGNMENT
    view = block[offset : offset + size]
    weakref.finalize(view, _returned.append, block).atexit = False
    return torch.from_numpy(view).view(dtype).view(tuple(shape))


def kept() -> int:
    """Bytes that the pool holds and nothing uses."""
    with _lock:
        _collect()
        return sum(block.nbytes for block in _free)


def _take(size: int) -> numpy.ndarray:
    with _lock:
        _collect()
        fitting = [b for b in _free if size + _ALIGNMENT <= b.nbytes <= _SPARE * size + _ALIGNMENT]
        if not fitting:
            return numpy.empty(size + _ALIGNMENT, numpy.uint8)  # numpy asks for large pages
        block = min(fitting, key=lambda b: b.nbytes)
        _free[:] = [b for b in _free if b is not block]
        return block


def _collect() -> None:
    """Take in what finalisers returned; the blocks that were not used for longest are freed."""
    while _returned:
        _free.append(_returned.popleft())
    while sum(block.nbytes for block in _free) > MOST:
        _free.pop(0)
