"""Recurra compiles recurrences: write the step, get proven references, fused kernels and a PyTorch module.

>>> import recurra
>>> rec = recurra.load("gated_delta_net.rec")  # doctest: +SKIP
>>> o = rec(q=q, k=k, v=v, a=a, b=b, A_log=A_log, dt_bias=dt_bias)  # doctest: +SKIP

Names are imported when they are first used, so that checking and formatting never wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dsl.diagnostics import SpecError
    from .runtime.errors import BackendError, CallError, StoreError
    from .runtime.input_checks import check_inputs
    from .runtime.recurrence import Recurrence, load

__version__ = "0.1.0"

_HOMES = {
    "load": ".runtime.recurrence",
    "Recurrence": ".runtime.recurrence",
    "check_inputs": ".runtime.input_checks",
    "SpecError": ".dsl.diagnostics",
    "CallError": ".runtime.errors",
    "BackendError": ".runtime.errors",
    "StoreError": ".runtime.errors",
}

__all__ = [
    "BackendError",
    "CallError",
    "Recurrence",
    "SpecError",
    "StoreError",
    "check_inputs",
    "load",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'recurra' has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
