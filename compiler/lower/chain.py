"""Kernels of a recurrence that runs in passes, each by chunks or by a scan."""

from __future__ import annotations

from dataclasses import dataclass

from .chunk import Chunked
from .kernel_ir import Kernel
from .passes import Pass
from .scan import Scan


@dataclass(frozen=True)
class Chain:
    """The passes in order with what became of them. ``started`` is whether kernels read start states."""

    parts: tuple[tuple[Pass, Chunked | Scan], ...]
    started: bool

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """All of them, in order of use."""
        return tuple(kernel for _, lowered in self.parts for kernel in lowered.kernels)
