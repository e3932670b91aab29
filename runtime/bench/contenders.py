"""The ways to run a recurrence that a benchmark knows by name."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...dsl.suggest import closest
from ..backends import BACKENDS, Task, choose
from ..recurrence import Recurrence
from ..verify.data import Arguments
from .eager import Call, compiled_loop, eager_loop
from .shape import Shape
from .side_by_side import Contender

EAGER, COMPILE = "eager", "compile"


def backend_names() -> tuple[str, ...]:
    """Backends by name, ``auto`` first."""
    return ("auto", *(backend.name for backend in BACKENDS))


def check_against(name: str) -> None:
    """ValueError for a name that is none of ``eager``, ``compile``, ``compile:N``, a backend, ``module:function``."""
    known = (EAGER, COMPILE, *backend_names())
    if name in known or ":" in name:
        return
    guess = closest(name, known)
    hint = f"did you mean {guess}?" if guess else f"there are {', '.join(known)}, compile:N and module:function"
    raise ValueError(f"nothing called {name!r} to measure against; {hint}")


def subject(recurrence: Recurrence, shape: Shape, arguments: Arguments, backend: str, dtype: torch.dtype) -> Contender:
    """The recurrence itself on a backend, named by the one that runs it; BackendError if it refuses."""
    tensors = [*arguments.inputs.values(), *arguments.params.values()]
    device = tensors[0].device if tensors else torch.device("cpu")
    chosen = choose(backend, Task(recurrence.program, shape.sizes, dtype, device)).backend.name
    return _contender(chosen, _on_backend(recurrence, shape, chosen), arguments)


def opponent(name: str, recurrence: Recurrence, shape: Shape, arguments: Arguments, dtype: torch.dtype) -> Contender:
    """What the name stands for, with the same arguments.

    ValueError, ImportError or AttributeError for a name without a meaning, BackendError for a backend that refuses.
    """
    program = recurrence.program
    check_against(name)
    unrolled = re.fullmatch(rf"{COMPILE}(?::(\d+))?", name)
    if name == EAGER:
        call = eager_loop(program, shape)
    elif unrolled:
        call = compiled_loop(program, shape, int(unrolled[1] or 1))
    elif ":" in name:
        call = partial(_called, imported(name))
    else:
        return subject(recurrence, shape, arguments, name, dtype)
    return _contender(name, call, arguments)


def imported(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; modules of the current folder can be named too."""
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def _on_backend(recurrence: Recurrence, shape: Shape, backend: str) -> Call:
    steps = None if recurrence.program.inputs else shape.steps

    def call(inputs: Any, params: Any) -> tuple[Tensor, ...]:
        return _as_tuple(recurrence({**inputs, **params}, backend=backend, steps=steps))

    return call


def _called(function: Callable[..., Any], inputs: Any, params: Any) -> tuple[Tensor, ...]:
    return _as_tuple(function(**inputs, **params))


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _contender(name: str, call: Call, arguments: Arguments) -> Contender:
    leaves = [x for group in (arguments.inputs, arguments.params) for x in group.values() if x.requires_grad]
    return Contender(name, lambda: call(arguments.inputs, arguments.params), tuple(leaves))
