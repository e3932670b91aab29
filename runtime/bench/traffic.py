"""What one call launches and which bytes that moves, counted by making the call on tensors without data.

Every kernel is counted from its IR: what its statements load and store of each tensor, in the sizes and types that the
call gives it. What several programs of a head load counts as moved once, as they run side by side and share a
cache; ``loaded`` counts it as often as programs and statements ask for it. What torch does beside the kernels (sums of
parts, fills, copies) is counted from its operations, views and empty tensors excepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...compiler.ir.program import Program
from ...compiler.lower import kernel_ir
from ...compiler.lower.kernel_ir import Coordinate, Kernel
from ...compiler.options import Options
from ..ops.launch import Extent, observed
from .shape import Shape


@dataclass(frozen=True)
class Launch:
    """One kernel, or one operation of torch that is one, with the bytes that it moves.

    ``read`` and ``written`` count every byte once; ``loaded`` counts what is read as often as it is asked for.
    """

    name: str
    generated: bool
    read: int
    written: int
    loaded: int

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


@dataclass(frozen=True)
class Traffic:
    """The launches of both directions, in order."""

    forward: tuple[Launch, ...]
    backward: tuple[Launch, ...]

    @property
    def both(self) -> tuple[Launch, ...]:
        """All of them."""
        return (*self.forward, *self.backward)


def moved(launches: Iterable[Launch]) -> int:
    """Bytes read and written by all of them."""
    return sum(launch.moved for launch in launches)


def asked(launches: Iterable[Launch]) -> int:
    """The same where everything that is read counts as often as programs load it."""
    return sum(launch.loaded + launch.written for launch in launches)


def traffic(
    program: Program, shape: Shape, dtype: torch.dtype, *, strategy: str = "auto", schedule: str = "auto"
) -> Traffic:
    """What forward with all that backward needs, and backward from the cotangents of all outputs, launch and move.

    Inputs are contiguous and of ``dtype``, params float32; no start states are given and end states are not used.
    ValueError if the strategy does not apply.
    """
    from ..ops import triton_backend

    def empty(lead: tuple[int, ...], axes: Any, kind: torch.dtype, learned: bool) -> Tensor:
        sizes = (axis.size.bind(shape.sizes) for axis in axes)
        return torch.empty(*lead, *sizes, dtype=kind, device="meta", requires_grad=learned)

    inputs = {i.name: empty(shape.lead, i.axes, dtype, True) for i in program.inputs}
    params = {p.name: empty((shape.heads,), p.axes, torch.float32, not p.frozen) for p in program.params}
    options = replace(triton_backend.kernel_options(Options(), inputs), schedule=schedule)

    def forward() -> tuple[Tensor, ...]:
        outputs, _ = triton_backend.run(
            program, shape.sizes, inputs, params, {}, steps=shape.steps, strategy=strategy, options=options
        )
        return outputs

    outputs, ahead = recorded(forward)
    leaves = [leaf for leaf in (*inputs.values(), *params.values()) if leaf.requires_grad]
    cotangents = [torch.empty_like(output) for output in outputs]
    _, back = recorded(lambda: torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True))
    return Traffic(ahead, back)


def recorded(call: Callable[[], Any]) -> tuple[Any, tuple[Launch, ...]]:
    """What a call returns and what it launches, in order."""
    launches: list[Launch] = []
    with observed(lambda *seen: launches.append(kernel_launch(*seen))), _Torch(launches):
        result = call()
    return result, tuple(launches)


# ---------------------------------------------------------------- kernels


def kernel_launch(kernel: Kernel, tensors: Mapping[str, Tensor], extent: Extent) -> Launch:
    """What one kernel moves when it is launched on these tensors."""
    read = written = loaded = 0
    stated = _statements(kernel)
    for tensor in kernel.tensors:
        loads, stores = stated[tensor.name] if tensor.name in stated else _by_template(kernel)
        size = _bytes(tensors[tensor.name]) * _share(tensor, extent)
        read += int(size * min(1, sum(_part(kernel, tensor, part) for part in set(loads))))
        loaded += int(size * sum(_part(kernel, tensor, part) for part in loads) * _programs(kernel, tensor))
        written += int(size * min(1, sum(_part(kernel, tensor, part) for part in set(stores))))
    return Launch(kernel.name, True, read, written, loaded)


Part = tuple[tuple[str | None, int], ...]
"""What a statement touches of a tensor: for every axis the axis whose range is walked (or None) and from where."""


def _statements(kernel: Kernel) -> dict[str, tuple[list[Part], list[Part]]]:
    """For every tensor what is loaded and what is stored, statement by statement."""
    found: dict[str, tuple[list[Part], list[Part]]] = {}
    for statement in (s for section in kernel.sections.values() for s in section):
        if statement.op in ("load", "store"):
            tensor, coordinates = statement.attrs[:2]
            part = tuple(map(_range, coordinates))
            found.setdefault(tensor.name, ([], []))[statement.op == "store"].append(part)
    return found


def _range(coordinate: Coordinate) -> tuple[str | None, int]:
    return (None if coordinate.label is None else coordinate.label.name), coordinate.start


def _by_template(kernel: Kernel) -> tuple[list[Part], list[Part]]:
    """A tensor that no statement mentions is a chunk's inverse, which the template writes once or reads once."""
    whole: list[Part] = [()]
    return ([], whole) if "keep" in kernel.facts["blocks"] else (whole, [])


def _part(kernel: Kernel, tensor: kernel_ir.Tensor, part: Part) -> float:
    """Which share of a tensor's own entries lies in a part."""
    sizes = kernel.layout.sizes
    walked = (1 if name is None else sizes[name] for name, _ in part)
    return prod(walked) / prod(sizes[axis.name] for axis in tensor.axes) if part else 1.0


def _share(tensor: kernel_ir.Tensor, extent: Extent) -> float:
    """Which share of a tensor a call walks: all of it, unless it walks a segment of the steps."""
    return extent.count / extent.steps if tensor.place in ("step", "checkpoint") and extent.steps else 1.0


def _programs(kernel: Kernel, tensor: kernel_ir.Tensor) -> int:
    """How many programs read the same entry of a tensor."""
    layout = kernel.layout
    own = {axis.name for axis in tensor.axes} | set(tensor.copies) | set(tensor.first_tile)
    return prod(layout.count(name) for name in layout.tiles if name not in own)


def _bytes(value: Tensor) -> int:
    """The bytes of what a tensor shows, each once though it may be spread over an axis."""
    own = (size for size, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return value.element_size() * prod(own) if value.numel() else 0


# ---------------------------------------------------------------- torch

_NO_KERNEL = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"})
_OVERWRITES = frozenset({"copy_", "fill_", "zero_"})


class _Torch(TorchDispatchMode):
    """Notes every operation of torch that runs a kernel, those inside of Recurra's own operators among them."""

    def __init__(self, launches: list[Launch]) -> None:
        super().__init__()
        self.launches = launches

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "recurra":  # what it does is of interest; its own kernel for tensors without data is not
            with self:
                return func._op_dk(torch._C.DispatchKey.CPU, *args, **kwargs)
        with self:
            parts = func.decompose(*args, **kwargs)  # `to`, `flatten` and the like may come to nothing
        if parts is not NotImplemented:
            return parts
        result = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name not in _NO_KERNEL and not _is_view(func):
            self.note(name, func, args, result)
        return result

    def note(self, name: str, func: Any, args: Any, result: Any) -> None:
        """Append an operation: it reads its arguments and writes its results, or the arguments that it changes."""
        written = _bytes_of(result)
        if not written:
            return
        changed = [a for a, s in zip(args, func._schema.arguments, strict=False) if s.alias_info is not None]
        given = [a for a in args if not any(a is c for c in changed)]
        made = name.startswith("new_") or name.endswith("_like")  # takes shape and type from its argument
        read = 0 if made else _bytes_of(given) + (0 if name in _OVERWRITES else _bytes_of(changed))
        self.launches.append(Launch(name, False, read, written, read))


def _is_view(func: Any) -> bool:
    aliases = [r.alias_info for r in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _bytes_of(values: Any) -> int:
    """The bytes of all tensors among values."""
    if isinstance(values, Tensor):
        return _bytes(values)
    return sum(map(_bytes_of, values)) if isinstance(values, list | tuple) else 0
