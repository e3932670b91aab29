"""What can run a recurrence, in order of preference. ``auto`` takes the first that does not refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..compiler.ir.program import Program
from ..compiler.options import Options
from ..dsl.suggest import closest
from . import chunked, reference
from .errors import BackendError
from .variant import Variant

Result = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

_HAS_TRITON = find_spec("triton") is not None  # not imported: whether it interprets is decided before that


@dataclass(frozen=True)
class Task:
    """What a backend may look at before it accepts: the spec at bound sizes, dtype and device."""

    program: Program
    sizes: Mapping[str, int]
    dtype: torch.dtype
    device: torch.device
    strategy: str = "auto"


@dataclass(frozen=True)
class Backend:
    """A way to run a recurrence.

    ``refuses`` gives the reason why it cannot take a task, or None; ``avoid`` why ``auto`` leaves it
    to others though it could. ``run(program, sizes, inputs, params, initial, *, steps, reverse, cu_seqlens,
    strategy, options)`` gives outputs and final states in declaration order. ``variants``
    are further ways to run, by name, that verification has to cover.
    """

    name: str
    refuses: Callable[[Task], str | None]
    avoid: Callable[[Task], str | None]
    run: Callable[..., Result]
    variants: Callable[[Program, Mapping[str, int]], Mapping[str, Variant]]


def _triton_refuses(task: Task) -> str | None:
    if not _HAS_TRITON:
        return "Triton is not installed (it exists for Linux)"
    from .ops import interpreter

    # importing the backend imports Triton (through torch.compiler), which decides at once whether to interpret
    reason = interpreter.prepare()
    if reason is not None and task.device.type != "cuda":
        return reason
    if task.device.type != "cuda" and task.dtype == torch.bfloat16:
        return "Triton's interpreter rounds bfloat16 wrongly"
    from .ops import triton_backend

    return triton_backend.refuses(task.program, task.dtype)


def _triton_run(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    *args: Any,
    options: Options | None = None,
    **kwargs: Any,
) -> Result:
    from .ops import interpreter

    interpreter.prepare()
    from .ops import triton_backend

    chosen = triton_backend.kernel_options(options or Options(), inputs)
    return triton_backend.run(program, sizes, inputs, *args, options=chosen, **kwargs)


def _triton_variants(program: Program, sizes: Mapping[str, int]) -> Mapping[str, Variant]:
    from .ops import triton_backend

    return triton_backend.variants(program, sizes)


def _cpu_refuses(task: Task) -> str | None:
    if task.strategy == "chunk":
        return "it has no kernels for strategy 'chunk'"
    if task.device.type != "cpu":
        return f"tensors are on {task.device.type}"
    from .ops import cpu_backend

    return cpu_backend.refuses(task.program, task.dtype)


def _cpu_run(*args: Any, **kwargs: Any) -> Result:
    from .ops import cpu_backend

    return cpu_backend.run(*args, **kwargs)


def _cpu_variants(program: Program, sizes: Mapping[str, int]) -> Mapping[str, Variant]:
    from .ops import cpu_backend

    return cpu_backend.variants(program, sizes)


def _reference_refuses(task: Task) -> str | None:
    return chunked.refuses(task.program) if task.strategy == "chunk" else None


def _reference_run(*args: Any, strategy: str = "auto", options: Options | None = None, **kwargs: Any) -> Result:
    """The token loop, which is the oracle, unless chunks are asked for."""
    return chunked.run(*args, **kwargs) if strategy == "chunk" else reference.run(*args, **kwargs)


def _reference_variants(program: Program, sizes: Mapping[str, int]) -> Mapping[str, Variant]:
    return {} if chunked.refuses(program) is not None else {"pieces": Variant(partial(chunked.run, chunk=2))}


def _warn_without_compiler(task: Task, refused: list[tuple[str, str]]) -> None:
    """Say once that native kernels would run this, if only there were a compiler."""
    if task.device.type != "cpu" or all(name != "cpu" for name, _ in refused):
        return
    from .store.toolchain import NoCompiler, toolchain, warn_no_compiler

    try:
        toolchain()
    except NoCompiler as error:
        warn_no_compiler(error)


def _triton_avoid(task: Task) -> str | None:
    if task.device.type == "cuda":  # also the name of AMD's GPUs in torch
        return None
    return f"tensors are on {task.device.type}, where Triton only has an interpreter for tests"


def _never(task: Task) -> str | None:
    return None


REFERENCE = Backend("reference", _reference_refuses, _never, _reference_run, _reference_variants)

BACKENDS: tuple[Backend, ...] = (
    Backend("triton", _triton_refuses, _triton_avoid, _triton_run, _triton_variants),
    Backend("cpu", _cpu_refuses, _never, _cpu_run, _cpu_variants),
    REFERENCE,
)


@dataclass(frozen=True)
class Choice:
    """The backend that runs a task, and what every backend before it said."""

    backend: Backend
    refused: tuple[tuple[str, str], ...]


def choose(name: str, task: Task) -> Choice:
    """The backend of that name, or for ``auto`` the first that accepts.

    ValueError for a name that is none, BackendError with its reason if a named backend refuses.
    """
    if name == "auto":
        refused: list[tuple[str, str]] = []
        for backend in BACKENDS:
            reason = backend.avoid(task) or backend.refuses(task)
            if reason is None:
                _warn_without_compiler(task, refused)
                return Choice(backend, tuple(refused))
            refused.append((backend.name, reason))
        raise BackendError(f"{task.program.name}: no backend can run this: {refused}")
    for backend in BACKENDS:
        if backend.name == name:
            reason = backend.refuses(task)
            if reason is not None:
                raise BackendError(f"{task.program.name}: backend {name!r} cannot run this: {reason}")
            return Choice(backend, ())
    names = ["auto", *(backend.name for backend in BACKENDS)]
    guess = closest(name, names) if isinstance(name, str) else None
    hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(names)}"
    raise ValueError(f"no backend {name!r}; {hint}")
