"""What a spec promises of its inputs, looked up in the data: NaN, Inf, ranges, unit norms, packed sequences.

Off unless asked for, because reading the data of a GPU waits for it. Nothing is checked while
``torch.compile`` traces, where there is no data yet.
"""

from __future__ import annotations

import math
from types import TracebackType

import torch
from torch import Tensor

from ..compiler.ir.program import Input, Program
from ..compiler.ir.types import EVERYTHING, Interval
from . import sequences
from .errors import CallError
from .validate import Bound

_UNIT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
_enabled = False


class check_inputs:
    """Turn input checks of all recurrences on or off, for good or inside a ``with`` block.

    >>> with check_inputs(True):
    ...     input_checks_enabled()
    True
    """

    def __init__(self, on: bool = True) -> None:
        global _enabled
        self._before = _enabled
        _enabled = bool(on)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _enabled
        _enabled = self._before


def input_checks_enabled() -> bool:
    """Whether calls check their inputs unless told otherwise."""
    return _enabled


def check_values(program: Program, bound: Bound) -> None:
    """CallError for the first value that is NaN, infinite without being promised so, or breaks a promise."""
    if torch.compiler.is_compiling():
        return
    if bound.cu_seqlens is not None:
        sequences.check_values(program.name, bound.cu_seqlens, bound.steps)
    for declared, tensor in zip(program.inputs, bound.inputs, strict=True):
        _check_input(program.name, declared, tensor.detach())
    for param, tensor in zip(program.params, bound.params, strict=True):
        _refuse_where(program.name, param.name, tensor, tensor.detach().isnan(), "has NaN")
    for state, start in zip(program.states, bound.initial, strict=True):
        if start is not None:
            _refuse_where(program.name, f"initial[{state.name!r}]", start, start.detach().isnan(), "has NaN")


def _check_input(spec: str, declared: Input, tensor: Tensor) -> None:
    name, promised = declared.name, declared.range
    _refuse_where(spec, name, tensor, tensor.isnan(), "has NaN")
    if promised == EVERYTHING:
        _refuse_where(spec, name, tensor, tensor.isinf(), "is not finite")
    else:
        _refuse_where(spec, name, tensor, _outside(tensor, promised), f"leaves the promised range {promised}")
    if declared.unit:
        norms = torch.linalg.vector_norm(tensor.to(torch.float64), dim=-1)
        wrong = (norms - 1).abs() > _UNIT_TOLERANCE[tensor.dtype]
        _refuse_where(spec, name, norms, wrong, "is promised to have norm 1 on its last axis and has")


def _outside(tensor: Tensor, promised: Interval) -> Tensor:
    low = tensor <= promised.low if promised.low_open else tensor < promised.low
    high = tensor >= promised.high if promised.high_open else tensor > promised.high
    return low | high


def _refuse_where(spec: str, argument: str, shown: Tensor, wrong: Tensor, problem: str) -> None:
    if not bool(wrong.any()):
        return
    place = tuple(int(i) for i in wrong.nonzero()[0])
    value = float(shown[place])
    said = "" if problem == "has NaN" and math.isnan(value) else f" {value:g}"
    count = int(wrong.sum())
    others = f" and at {count - 1} more places" if count > 1 else ""
    raise CallError(spec, argument, f"{problem}:{said} at {list(place)}{others}".replace(": at", " at"))
