"""Large results in large pages: the first write to fresh memory then costs a tenth.

A kernel that reads and writes as fast as memory allows spends most of its time in page faults where its
results are new memory in small pages, which they are at every call: the allocator hands large blocks back.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from torch import Tensor

LEAST = 1 << 22
"""Bytes from which on it pays: two large pages."""

_PAGE = 4096
_HUGE = 14  # MADV_HUGEPAGE


def in_large_pages(value: Tensor) -> Tensor:
    """The same tensor; the kernel is asked to back its fresh memory with large pages (Linux, else nothing happens)."""
    size = value.numel() * value.element_size()
    advise = _advise()
    if size >= LEAST and advise is not None and value.device.type == "cpu":
        begin = -(-value.data_ptr() // _PAGE) * _PAGE
        advise(begin, (value.data_ptr() + size - begin) // _PAGE * _PAGE, _HUGE)  # advice: a refusal changes nothing
    return value


@cache
def _advise() -> ctypes._FuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
