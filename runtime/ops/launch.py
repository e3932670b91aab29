"""Allocates what a kernel writes and launches it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...compiler.codegen.triton import constants
from ...compiler.lower import kernel_ir
from ...compiler.lower.kernel_ir import INTEGERS, Kernel
from ...compiler.lower.layout import Layout
from ...compiler.targets import register_limit, warps
from ..store.loader import explained


@dataclass(frozen=True)
class Extent:
    """The lengths of one call: sequences, steps in memory, heads, and the part of the steps to walk.

    ``count`` steps are walked, after ``begin`` earlier ones. ``reverse`` walks from the right; ``first``
    is the place in memory of a single step.
    """

    batch: int
    steps: int
    heads: int
    count: int
    chunk: int
    begin: int = 0
    reverse: bool = False
    first: int = 0

    @property
    def chunks(self) -> int:
        """Checkpoints per sequence."""
        return -(-self.steps // self.chunk)

    def integers(self) -> tuple[int, ...]:
        """The kernel arguments of that name, in order."""
        values = {
            "batch": self.batch,
            "steps": self.steps,
            "first": self.steps - 1 if self.reverse else self.first,
            "direction": -1 if self.reverse else 1,
            "count": self.count,
            "chunks": self.chunks,
            "begin": self.begin,
        }
        return tuple(values[name] for name in INTEGERS)


def shape(tensor: kernel_ir.Tensor, layout: Layout, extent: Extent, heads: int | None = None) -> tuple[int, ...]:
    """The shape of a tensor that a kernel writes; ``heads`` if it has fewer than the state."""
    batch, groups = extent.batch, -(-extent.batch // layout.sequences)
    h = extent.heads if heads is None else heads
    outer = {
        "step": (batch, extent.steps, h),
        "segment": (batch, extent.count, h),
        "head": (h,),
        "sequence": (batch, h),
        "checkpoint": (batch, extent.chunks, h),
        "partial": (groups, h),
    }[tensor.place]
    copies = tuple(layout.count(name) for name in tensor.copies)
    return (*copies, *outer, *(layout.sizes[axis.name] for axis in tensor.axes))


def near(value: Tensor) -> Tensor:
    """An input [B, T, G, ...] whose entries of one step lie so close together that kernels may count in 32 bits."""
    last = sum((size - 1) * stride for size, stride in zip(value.shape[3:], value.stride()[3:], strict=True))
    return value if last < 1 << 31 else value.contiguous()


Observer = Callable[[Kernel, Mapping[str, Tensor], Extent], None]

_OBSERVERS: list[Observer] = []


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Within, ``observer`` is told of every launch with the kernel, its tensors and the lengths of the call, first."""
    _OBSERVERS.append(observer)
    try:
        yield
    finally:
        _OBSERVERS.pop()


def launch(module: Any, kernel: Kernel, tensors: Mapping[str, Tensor], extent: Extent) -> None:
    """Run one kernel of a generated module on the given tensors (by the kernel's own names).

    Tensors without data (of the device ``meta``) are only shown to who observes.
    """
    layout = kernel.layout
    programs = math.prod(layout.count(name) for name in layout.tiles) * extent.heads
    programs *= -(-extent.batch // layout.sequences)
    if kernel.walk == "apart":
        programs *= -(-extent.count // extent.chunk)
    if programs == 0:
        return
    for observer in _OBSERVERS:
        observer(kernel, tensors, extent)
    if tensors[kernel.tensors[0].name].is_meta:
        return
    args: list[Any] = [near(tensors[t.name]) if t.strided else tensors[t.name] for t in kernel.tensors]
    args += [
        stride for t, value in zip(kernel.tensors, tuple(args), strict=True) if t.strided for stride in value.stride()
    ]
    args += extent.integers()
    heads = {t.heads: tensors[t.name].shape[2] for t in kernel.tensors if t.heads != "heads"} | {"heads": extent.heads}
    named = {name: heads[name] for name in constants(kernel)}
    device = args[0].device
    with explained(module.__rec_map__):
        if device.type == "cuda":
            with torch.cuda.device(device):
                _launch_on_device(module, kernel, programs, args, named, device)
        else:
            getattr(module, kernel.name)[(programs,)](*args, **named)


_OPTIONS: dict[tuple[object, ...], dict[str, int]] = {}
"""What was learned about a kernel at its first launch, by module, kernel, numbers of heads and device."""


def _launch_on_device(
    module: Any, kernel: Kernel, programs: int, args: list[Any], named: dict[str, int], device: torch.device
) -> None:
    from triton.runtime.errors import OutOfResources

    key = (module.__name__, kernel.name, *named.values(), device)
    if key not in _OPTIONS:
        _OPTIONS[key] = {"num_warps": warps(kernel, architecture(device), triton_version())}
    options = _OPTIONS[key]
    function = getattr(module, kernel.name)[(programs,)]
    try:
        built = function(*args, **named, **options)
    except OutOfResources:
        if "num_stages" in options:
            raise
        options["num_stages"] = 1  # loads are no longer buffered ahead in shared memory
        built = function(*args, **named, **options)
    if not torch.version.hip and getattr(built, "n_spills", None):
        options["maxnreg"] = register_limit(options["num_warps"])  # from the next launch on


@cache
def wanted_programs(device: torch.device) -> int:
    """How many programs keep a device busy: two for each multiprocessor. An interpreter runs one after the other."""
    if device.type != "cuda":
        return 1
    return 2 * int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def architecture(device: torch.device) -> int | str:
    """The architecture of a GPU as Triton names it: 90, or ``gfx942``."""
    properties = torch.cuda.get_device_properties(device)
    name = getattr(properties, "gcnArchName", "") if torch.version.hip else ""
    return name.split(":")[0] if name else properties.major * 10 + properties.minor


@cache
def triton_version() -> tuple[int, int]:
    """Major and minor version of the installed Triton."""
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)
