"""Recurrences on generated kernels, whatever the backend: built once, then called with all parts of a step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...compiler.ir.program import Program
from ...compiler.kernels import Compiled
from ...compiler.lower.naming import tensor_name
from ...compiler.options import KernelOptions
from .. import reference
from .operators import Executor, apply, register


@dataclass(frozen=True)
class Kernels:
    """The kernels of one recurrence, loaded from ``path`` and registered with torch under ``name``."""

    name: str
    compiled: Compiled
    path: str


@dataclass(frozen=True)
class Build:
    """What a backend makes of a recurrence at bound sizes: the operators' name must be unique to ``entry``."""

    entry: str
    compiled: Compiled
    executor: Executor
    path: str


Sizes = tuple[tuple[str, int], ...]
Builder = Callable[[Program, Mapping[str, int], KernelOptions, str, int | None], Build]

_NAMES: dict[tuple[object, ...], str] = {}
_KERNELS: dict[str, Kernels] = {}
_PROGRAMS: dict[int, Program] = {}  # kept alive, since keys hold their ids
_LOCK = threading.RLock()


@torch.compiler.assume_constant_result
def compile_once(
    build: Builder, program: Program, sizes: Sizes, options: tuple[Any, ...], strategy: str, segment: int | None
) -> str:
    """The name of the kernels of a recurrence at bound sizes and plain options, compiled at the first call.

    A name, because that is a constant to ``torch.compile``, which runs this while it traces.
    """
    key = (build, id(program), sizes, options, strategy, segment)
    if key not in _NAMES:
        with _LOCK:
            if key not in _NAMES:
                made = build(program, dict(sizes), KernelOptions(*options), strategy, segment)
                name = f"{made.entry.replace('-', '_')}_{len(_KERNELS)}"
                register(name, made.executor)
                _PROGRAMS[id(program)] = program
                _KERNELS[name] = Kernels(name, made.compiled, made.path)
                _NAMES[key] = name
    return _NAMES[key]


def kernels_for(
    build: Builder,
    program: Program,
    sizes: Mapping[str, int],
    options: KernelOptions,
    strategy: str = "auto",
    segment: int | None = None,
) -> Kernels:
    """The kernels of a recurrence at bound sizes; ``torch.compile`` specialises on the sizes here."""
    bound = tuple((name, len(range(size))) for name, size in sizes.items())
    return _KERNELS[compile_once(build, program, bound, options.plain(), strategy, segment)]


def run(
    build: Builder,
    program: Program,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    options: KernelOptions,
    *,
    steps: int,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
    strategy: str = "auto",
    segment: int | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All steps of a recurrence on generated kernels; arguments and results as :func:`reference.run`.

    ``options.packed`` says whether ``cu_seqlens`` are given, ``options.started`` whether start states are.
    ``segment`` is the number of steps that the backward pass holds at a time, where the backend has such a choice.
    """
    tensors = (*inputs.values(), *params.values(), *initial.values())
    kernels = kernels_for(build, program, sizes, options, strategy, segment)
    parts = kernels.compiled.split
    batch, heads = reference.extent(inputs, params, initial)
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    real = torch.float64 if options.dtype == "float64" else torch.float32
    leaves = _leaves(inputs, params, heads, real) if parts.before or parts.after else {}
    like = torch.empty((), dtype=real, device=tensors[0].device if tensors else None)
    full = (batch, steps, heads)
    known: dict[int, Tensor] = {}
    if parts.before:
        known = reference.evaluate(program.body, [p for _, p in parts.before], leaves, sizes, 3, full=full, like=like)
    early = {name: known[p] for name, p in parts.before}
    own = {tensor_name(name): tensor for name, tensor in (*inputs.items(), *params.items())}
    arguments = [
        *(
            own[i.name] if i.name in own else early[i.name].expand(*full, *early[i.name].shape[3:])
            for i in parts.core.inputs
        ),
        *(
            own[p.name] if p.name in own else early[p.name][0, 0].expand(heads, *early[p.name].shape[3:])
            for p in parts.core.params
        ),
        *(
            _starts(program, sizes, initial, sequences, heads, like)
            if kernels.compiled.started
            else [like.new_empty(sequences, heads, 0) for _ in program.states]
        ),
    ]
    given = [t if options.strided and n < len(parts.core.inputs) else t.contiguous() for n, t in enumerate(arguments)]
    outputs = len(parts.core.outputs)
    values = apply(kernels.name, outputs + len(program.states), given, steps, reverse, cu_seqlens)
    by_name = dict(zip((o.name for o in parts.core.outputs), values, strict=False))
    known |= {p: by_name[name].to(real) for name, p in parts.taps}
    late: dict[int, Tensor] = {}
    if parts.after:
        late = reference.evaluate(
            program.body, [p for _, p in parts.after], leaves, sizes, 3, known=known, full=full, like=like
        )
    by_name |= {tensor_name(name): late[p].expand(*full, *late[p].shape[3:]) for name, p in parts.after}
    dtype = result_dtype(inputs) if inputs else getattr(torch, options.dtype)
    return tuple(by_name[tensor_name(o.name)].to(dtype) for o in program.outputs), tuple(values[outputs:])


def _leaves(
    inputs: Mapping[str, Tensor], params: Mapping[str, Tensor], heads: int, real: torch.dtype
) -> dict[tuple[str, str], Tensor]:
    """Leaves as the reference takes them: in the compute type, one entry per head of the state."""
    leaves = {("param", name): t.to(real)[None, None] for name, t in params.items()}
    for name, t in inputs.items():
        whole = t.shape[2] == heads
        leaves["input", name] = t.to(real) if whole else t.to(real).repeat_interleave(heads // t.shape[2], 2)
    return leaves


def _starts(
    program: Program,
    sizes: Mapping[str, int],
    initial: Mapping[str, Tensor],
    sequences: int,
    heads: int,
    like: Tensor,
) -> list[Tensor]:
    body = program.body
    missing = [s.start for s in program.states if s.name not in initial and body[s.start].op != "const"]
    values = reference.evaluate(program.body, missing, {}, sizes, 2, like=like) if missing else {}
    starts = []
    for state in program.states:
        if state.name in initial:
            starts.append(initial[state.name])
            continue
        shape = (sequences, heads, *(axis.size.bind(sizes) for axis in state.axes))
        if body[state.start].op == "const":
            starts.append(like.new_full(shape, body[state.start].attrs[0]))
        else:
            starts.append(values[state.start].reshape((1,) * len(shape)).expand(shape))
    return starts


def result_dtype(inputs: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of outputs."""
    dtypes = [t.dtype for t in inputs.values()] or [torch.float32]
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = torch.promote_types(result, dtype)
    return result
