"""Allocates what a kernel writes and launches it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...compiler.codegen.triton import constants
from ...compiler.ir.program import Program
from ...compiler.lower import kernel_ir
from ...compiler.lower.kernel_ir import INTEGERS, PACKED_INTEGERS, Kernel
from ...compiler.lower.layout import Layout
from ...compiler.targets import register_limit, warps
from ..store.loader import explained
from .arguments import extents, named


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

    def lead(self, place: str) -> tuple[int, ...]:
        """What stands before the heads of a tensor that every sequence has."""
        per_sequence = {"step": (self.steps,), "segment": (self.count,), "checkpoint": (self.chunks,), "sequence": ()}
        return (self.batch, *per_sequence[place])

    def programs(self, kernel: Kernel) -> int:
        """Programs per head and tile."""
        chunks = -(-self.count // self.chunk) if kernel.walk == "apart" else 1
        return -(-self.batch // kernel.layout.sequences) * chunks

    def arguments(self) -> tuple[Any, ...]:
        """What kernels take after their tensors, in order."""
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


@dataclass(frozen=True)
class Packed:
    """The lengths of one call with packed sequences: how many (``batch``), steps of all of them, heads.

    ``cu_seqlens`` [batch + 1] is on the device and says where each begins. Every sequence has as many ``parts``, whole
    chunks (the last may have fewer, or none); ``part`` is walked.
    """

    batch: int
    steps: int
    heads: int
    chunk: int
    cu_seqlens: Tensor
    reverse: bool = False
    parts: int = 1
    part: int = 0

    @property
    def pad(self) -> int:
        """Rows of a segment that each sequence has besides its share of the steps, as parts are whole chunks."""
        return self.chunk if self.parts > 1 else 0

    @property
    def slots(self) -> int:
        """The most checkpoints that sequences with these steps in all can have: no chunk shares its own."""
        return self.steps // self.chunk + self.batch

    def lead(self, place: str) -> tuple[int, ...]:
        """What stands before the heads of a tensor that every sequence has."""
        segment = self.steps // self.parts + self.batch * self.pad
        return {"step": (1, self.steps), "segment": (1, segment), "checkpoint": (1, self.slots)}.get(
            place, (self.batch,)
        )

    def programs(self, kernel: Kernel) -> int:
        """Programs per head and tile."""
        return -(-(self.slots if kernel.walk == "apart" else self.batch) // kernel.layout.sequences)

    def arguments(self) -> tuple[Any, ...]:
        """What kernels take after their tensors, in order."""
        values = {
            "batch": self.batch,
            "steps": self.steps,
            "direction": -1 if self.reverse else 1,
            "parts": self.parts,
            "part": self.part,
            "pad": self.pad,
        }
        return (self.cu_seqlens.contiguous(), *(values[name] for name in PACKED_INTEGERS))


def called(
    core: Program, tensors: Sequence[Tensor], steps: int, chunk: int, reverse: bool, cu_seqlens: Tensor | None
) -> tuple[dict[str, Tensor], Extent | Packed]:
    """The arguments of a call by the kernels' names, and its lengths."""
    batch, heads = extents(core, tensors)
    arguments = named(core, tensors)
    for state in core.states:
        arguments[f"{state.name}_start"] = arguments.pop(state.name)
    if cu_seqlens is not None:
        return arguments, Packed(batch, steps, heads, chunk, cu_seqlens, reverse)
    return arguments, Extent(batch, steps, heads, steps, chunk, 0, reverse)


def shape(tensor: kernel_ir.Tensor, layout: Layout, extent: Extent | Packed) -> tuple[int, ...]:
    """The shape of a tensor that a kernel writes."""
    lead: tuple[int, ...] = (-(-extent.batch // layout.sequences),) if tensor.place == "partial" else ()
    if tensor.place not in ("head", "partial"):
        lead = extent.lead(tensor.place)
    copies = tuple(layout.count(name) for name in tensor.copies)
    return (*copies, *lead, extent.heads, *(layout.sizes[axis.name] for axis in tensor.axes))


def near(value: Tensor) -> Tensor:
    """An input [B, T, G, ...] whose entries of one step lie so close together that kernels may count in 32 bits."""
    last = sum((size - 1) * stride for size, stride in zip(value.shape[3:], value.stride()[3:], strict=True))
    return value if last < 1 << 31 else value.contiguous()


Observer = Callable[[Kernel, Mapping[str, Tensor], Extent | Packed], None]

_OBSERVERS: list[Observer] = []


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Within, ``observer`` is told of every launch with the kernel, its tensors and the lengths of the call, first."""
    _OBSERVERS.append(observer)
    try:
        yield
    finally:
        _OBSERVERS.pop()


def launch(module: Any, kernel: Kernel, tensors: Mapping[str, Tensor], extent: Extent | Packed) -> None:
    """Run one kernel of a generated module on the given tensors (by the kernel's own names).

    Tensors without data (of the device ``meta``) are only shown to who observes.
    """
    layout = kernel.layout
    programs = math.prod(layout.count(name) for name in layout.tiles) * extent.heads
    programs *= extent.programs(kernel)
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
    args += extent.arguments()
    known = {t.heads: tensors[t.name].shape[2] for t in kernel.tensors if t.heads != "heads"} | {"heads": extent.heads}
    constant = {name: known[name] for name in constants(kernel)}
    device = args[0].device
    with explained(module.__rec_map__):
        if device.type == "cuda":
            with torch.cuda.device(device):
                _launch_on_device(module, kernel, programs, args, constant, device)
        else:
            getattr(module, kernel.name)[(programs,)](*args, **constant)


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
