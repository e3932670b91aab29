"""From the arguments of a call to bound sizes, or one clear error. Nothing is cast, copied or changed.

Inputs are ``[B, T, H, *axes]``, params ``[H, *axes]``, states ``[B, H, *axes]``. What can be known from
the spec alone is worked out once, in :func:`plan`; a call then costs a few comparisons per argument, all of
which ``torch.compile`` can trace. Of packed sequences inputs are ``[1, T, H, *axes]`` and states ``[N, H, *axes]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..compiler.ir.program import Dim, Program
from ..compiler.ir.size import Size
from ..compiler.ir.types import Axes, Axis
from ..dsl.suggest import closest
from . import sequences
from .errors import CallError

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LEADING = {"input": ("B", "T", "H"), "param": ("H",), "state": ("B", "H")}


class AxisPlan(NamedTuple):
    """One axis: ``constant + sum(factor * dimension)``."""

    name: str
    constant: int
    terms: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Slot:
    """One tensor of a call: an input, a param or a start state."""

    name: str
    kind: str
    axes: tuple[AxisPlan, ...]
    lead: int
    rank: int


@dataclass(frozen=True)
class Plan:
    """What a spec says about its arguments."""

    spec: str
    inputs: tuple[Slot, ...]
    params: tuple[Slot, ...]
    states: tuple[Slot, ...]
    dims: tuple[str, ...]
    multiples: tuple[Dim, ...]
    known: frozenset[str]


class Bound(NamedTuple):
    """A call that fits its spec.

    ``sizes`` binds every dimension. ``dtype`` is that of the inputs and outputs and ``state_dtype`` float32, or
    float64 where ``dtype`` is. Tensors stand in the order of the declarations; a start state that was not
    given is None. ``batch`` is the number of sequences, packed or not.
    """

    sizes: dict[str, int]
    batch: int
    steps: int
    heads: int
    dtype: torch.dtype
    state_dtype: torch.dtype
    device: torch.device
    inputs: tuple[Tensor, ...]
    params: tuple[Tensor, ...]
    initial: tuple[Tensor | None, ...]
    cu_seqlens: Tensor | None


@dataclass
class _Call:
    """What is known half-way through a call: sizes bound so far and the argument that bound each."""

    plan: Plan
    packed: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    lead: dict[str, int] = field(default_factory=dict)
    lead_owners: dict[str, str] = field(default_factory=dict)

    def leading(self, slot: Slot) -> tuple[str, ...]:
        """What stands before an argument's own axes."""
        return ("N", "H") if self.packed and slot.kind == "state" else _LEADING[slot.kind]


def plan(program: Program) -> Plan:
    """The plan of a spec's calls."""
    multiples = tuple(dim for dim in program.dims if dim.alias is not None)

    def slot(name: str, kind: str, axes: Axes) -> Slot:
        lead = len(_LEADING[kind])
        return Slot(name, kind, tuple(_axis(axis, multiples) for axis in axes), lead, lead + len(axes))

    return Plan(
        program.name,
        tuple(slot(i.name, "input", i.axes) for i in program.inputs),
        tuple(slot(p.name, "param", p.axes) for p in program.params),
        tuple(slot(s.name, "state", s.axes) for s in program.states),
        tuple(dim.name for dim in program.dims if dim.alias is None),
        multiples,
        frozenset((*(i.name for i in program.inputs), *(p.name for p in program.params))),
    )


def _axis(axis: Axis, multiples: Sequence[Dim]) -> AxisPlan:
    sizes = {dim.name: dim.size for dim in multiples}
    total = Size(axis.size.constant)
    for dim, factor in axis.size.terms:
        total += sizes.get(dim, Size.of(dim)) * factor
    return AxisPlan(axis.name, total.constant, total.terms)


def bind(
    plan: Plan,
    given: Mapping[str, Any],
    initial: Mapping[str, Any] | None = None,
    steps: int | None = None,
    cu_seqlens: Any = None,
) -> Bound:
    """The bound sizes and ordered tensors of a call (CallError if an argument does not fit).

    ``given`` holds inputs and params by name, ``initial`` any of the states; ``steps`` is the number of
    steps of a spec without inputs and must be None for all others, ``cu_seqlens`` where packed sequences begin
    and end.
    """
    _check_names(plan, given, initial)
    inputs = tuple(given[slot.name] for slot in plan.inputs)
    params = tuple(given[slot.name] for slot in plan.params)
    starts = tuple(None if initial is None else initial.get(slot.name) for slot in plan.states)
    arguments = [
        *zip(plan.inputs, inputs, strict=True),
        *zip(plan.params, params, strict=True),
        *((slot, start) for slot, start in zip(plan.states, starts, strict=True) if start is not None),
    ]
    call = _Call(plan, packed=cu_seqlens is not None)
    for slot, tensor in arguments:
        _check_kind(plan, slot, tensor)
    for slot, tensor in arguments:
        if tensor.dim() != slot.rank:
            raise _misfit(call, slot, tensor, f"needs {slot.rank} axes and has {tensor.dim()}")
    if cu_seqlens is not None:
        call.lead["B"], call.lead["N"] = 1, sequences.count(plan.spec, bool(plan.inputs), cu_seqlens)
        call.lead_owners["B"] = call.lead_owners["N"] = sequences.ARGUMENT
    _bind_lead(call, arguments)
    _bind_axes(call, arguments)
    _check_bound(call)
    dtype = _dtype(plan, arguments)
    device = _device(plan, arguments)
    steps = _steps(plan, call, steps)
    if cu_seqlens is not None:
        sequences.check(plan.spec, cu_seqlens, steps, device)
    for dim in plan.multiples:
        call.sizes[dim.name] = dim.size.bind(call.sizes)
    return Bound(
        call.sizes,
        call.lead.get("N" if call.packed else "B", 1),
        steps,
        call.lead.get("H", 1),
        dtype,
        torch.float64 if dtype == torch.float64 else torch.float32,
        device,
        inputs,
        params,
        starts,
        cu_seqlens,
    )


# ---------------------------------------------------------------- names and kinds


def _check_names(plan: Plan, given: Mapping[str, Any], initial: Mapping[str, Any] | None) -> None:
    for name in given:
        if name not in plan.known:
            raise _unknown(plan, name)
    for slot in (*plan.inputs, *plan.params):
        if slot.name not in given:
            raise CallError(plan.spec, slot.name, f"is missing: it is {_a(slot.kind)}", _show(slot))
    if initial is None:
        return
    if not hasattr(initial, "keys"):
        raise CallError(plan.spec, "initial", "must be a dict of states by name", came=type(initial).__name__)
    states = [slot.name for slot in plan.states]
    for name in initial:
        if name not in states:
            guess = closest(name, states)
            hint = f"did you mean `{guess}`?" if guess else f"states are {_list(states)}"
            raise CallError(plan.spec, f"initial[{name!r}]", f"is no state of this recurrence; {hint}")


def _unknown(plan: Plan, name: str) -> CallError:
    if any(slot.name == name for slot in plan.states):
        return CallError(plan.spec, name, f"is a state: pass it as initial={{{name!r}: ...}}")
    names = [slot.name for slot in (*plan.inputs, *plan.params)]
    guess = closest(name, names)
    hint = f"did you mean `{guess}`?" if guess else f"it takes {_list(names)}"
    return CallError(plan.spec, name, f"is no input or param of this recurrence; {hint}")


def _check_kind(plan: Plan, slot: Slot, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        came = f"{type(tensor).__module__}.{type(tensor).__qualname__}".removeprefix("builtins.")
        raise CallError(plan.spec, _argument(slot), "must be a torch.Tensor", _show(slot), came)
    if tensor.dtype not in FLOATS:
        expected = "float32, bfloat16, float16 or float64"
        raise CallError(plan.spec, _argument(slot), "must be real floating point", expected, _type(tensor))
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise CallError(plan.spec, _argument(slot), "must be a dense tensor", "strided", str(tensor.layout))


# ---------------------------------------------------------------- sizes


def _bind_lead(call: _Call, arguments: Sequence[tuple[Slot, Tensor]]) -> None:
    """Batch, time and heads: params and states have all heads, an input a divisor of them."""
    full = [item for item in arguments if item[0].kind != "input"]
    if full:
        slot, tensor = full[0]
    elif arguments:
        slot, tensor = arguments[0]
        for item in arguments:
            if item[1].shape[2] > tensor.shape[2]:
                slot, tensor = item
    else:
        return
    call.lead["H"] = heads = tensor.shape[slot.lead - 1]
    call.lead_owners["H"] = _argument(slot)
    if heads < 1:
        raise _misfit(call, slot, tensor, "has no heads")
    for slot, tensor in arguments:
        for position, name in enumerate(call.leading(slot)):
            size = tensor.shape[position]
            bound = call.lead.get(name)
            if bound is None:
                call.lead[name], call.lead_owners[name] = size, _argument(slot)
            elif name == "H" and slot.kind == "input":
                if size < 1 or bound % size != 0:
                    whose = f"the {bound} heads of `{call.lead_owners['H']}`"
                    raise _misfit(call, slot, tensor, f"has {size} heads, which do not divide {whose}")
            elif size != bound and name == "B" and call.packed:
                raise _misfit(call, slot, tensor, f"has a batch of {size}: packed sequences lie in a batch of 1")
            elif size != bound:
                whose = f"{name} = {bound} by `{call.lead_owners[name]}`"
                raise _misfit(call, slot, tensor, f"has {_WORDS[name]} of {size}, but {whose}")


_WORDS = {"B": "a batch", "T": "a time axis", "H": "a head count", "N": "a count of sequences"}


def _bind_axes(call: _Call, arguments: Sequence[tuple[Slot, Tensor]]) -> None:
    """Bind each dimension by the first axis that determines it and compare all others."""
    waiting: list[tuple[Slot, Tensor, int, AxisPlan]] = []
    for slot, tensor in arguments:
        for position, axis in enumerate(slot.axes, slot.lead):
            if not _bind_axis(call, slot, tensor, position, axis):
                waiting.append((slot, tensor, position, axis))
    while waiting:
        still = [item for item in waiting if not _bind_axis(call, *item)]
        if len(still) == len(waiting):
            return  # some dimension is left open: _check_bound says which
        waiting = still


def _bind_axis(call: _Call, slot: Slot, tensor: Tensor, position: int, axis: AxisPlan) -> bool:
    """Compare one axis, or bind its one open dimension; False if more than one is open."""
    size = tensor.shape[position]
    rest, unknown, unknown_factor = size - axis.constant, "", 0
    for dim, factor in axis.terms:
        value = call.sizes.get(dim)
        if value is not None:
            rest = rest - factor * value
        elif unknown:
            return False
        else:
            unknown, unknown_factor = dim, factor
    if not unknown:
        if rest != 0:
            raise _misfit(call, slot, tensor, _conflict(call, axis, size))
        return True
    if rest % unknown_factor != 0 or rest // unknown_factor < 1:
        problem = f"has size {size} on axis {axis.name}, which no {unknown} >= 1 gives"
        raise _misfit(call, slot, tensor, problem)
    call.sizes[unknown] = rest // unknown_factor
    call.owners[unknown] = _argument(slot)
    return True


def _conflict(call: _Call, axis: AxisPlan, size: int) -> str:
    if not axis.terms:
        return f"has size {size} where the spec says {axis.constant}"
    bound = axis.constant + sum(factor * call.sizes[dim] for dim, factor in axis.terms)
    owners = " and ".join(f"`{owner}`" for owner in dict.fromkeys(call.owners[dim] for dim, _ in axis.terms))
    return f"has size {size} on axis {axis.name}, but {axis.name} = {bound} by {owners}"


def _check_bound(call: _Call) -> None:
    for dim in call.plan.dims:
        if dim not in call.sizes:
            states = [s.name for s in call.plan.states if any(dim in dict(axis.terms) for axis in s.axes)]
            hint = f": pass initial={{{states[0]!r}: ...}}" if states else ""
            raise CallError(call.plan.spec, "", f"no argument binds the size of {dim}{hint}")


def _steps(plan: Plan, call: _Call, steps: int | None) -> int:
    if plan.inputs:
        if steps is not None:
            owner = call.lead_owners["T"]
            raise CallError(plan.spec, "steps", f"is not taken: the time axis of `{owner}` says how many there are")
        return call.lead["T"]
    if steps is None:
        raise CallError(plan.spec, "steps", "is missing: this recurrence has no input that says how many to do")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise CallError(plan.spec, "steps", "must be a whole number >= 0", came=repr(steps))
    return steps


# ---------------------------------------------------------------- dtypes and devices


def _dtype(plan: Plan, arguments: Sequence[tuple[Slot, Tensor]]) -> torch.dtype:
    """The one dtype of the inputs; params may be float32 beside it; states are float32 or float64.

    Without inputs the first param that is not float32 decides, else a start state.
    """
    if not arguments:
        return torch.float32
    decides = arguments[0]
    if decides[0].kind != "input":
        for item in arguments:
            if item[1].dtype != torch.float32:
                decides = item
                break
    owner, dtype = _argument(decides[0]), decides[1].dtype
    state = torch.float64 if dtype == torch.float64 else torch.float32
    for slot, tensor in arguments:
        came = tensor.dtype
        if slot.kind == "input" and came != dtype:
            raise CallError(plan.spec, slot.name, f"differs in dtype from `{owner}`", _word(dtype), _word(came))
        if slot.kind == "param" and came != dtype and came != torch.float32:
            expected = f"{_word(dtype)} as `{owner}`" + (", or float32" if dtype != torch.float32 else "")
            raise CallError(plan.spec, slot.name, "has the wrong dtype", expected, _word(came))
        if slot.kind == "state" and came != state:
            problem = f"must be {_word(state)}: states are float32, or float64 where the inputs are"
            raise CallError(plan.spec, _argument(slot), problem, came=_word(came))
    return dtype


def _device(plan: Plan, arguments: Sequence[tuple[Slot, Tensor]]) -> torch.device:
    if not arguments:
        return torch.device("cpu")
    first, tensor = arguments[0]
    device = tensor.device
    for slot, other in arguments:
        if other.device != device:
            problem = f"is on another device than `{_argument(first)}`"
            raise CallError(plan.spec, _argument(slot), problem, str(device), str(other.device))
    return device


# ---------------------------------------------------------------- words


def _misfit(call: _Call, slot: Slot, tensor: Tensor, problem: str) -> CallError:
    came = "[" + ", ".join(str(int(size)) for size in tensor.shape) + "]"
    shown = _show(slot, call.lead, call.sizes, call.leading(slot))
    return CallError(call.plan.spec, _argument(slot), problem, shown, came)


def _show(
    slot: Slot,
    lead: Mapping[str, int] | None = None,
    sizes: Mapping[str, int] | None = None,
    leading: Sequence[str] | None = None,
) -> str:
    """``[B=2, T=16, H, K=64]``: the axes of an argument with the sizes that are bound."""
    names = leading or _LEADING[slot.kind]
    words = [name if name not in (lead or {}) else f"{name}={int((lead or {})[name])}" for name in names]
    for axis in slot.axes:
        if all(dim in (sizes or {}) for dim, _ in axis.terms):
            size = axis.constant + sum(factor * int((sizes or {})[dim]) for dim, factor in axis.terms)
            words.append(str(size) if axis.name == str(size) else f"{axis.name}={size}")
        else:
            words.append(axis.name)
    return f"[{', '.join(words)}]"


def _argument(slot: Slot) -> str:
    return f"initial[{slot.name!r}]" if slot.kind == "state" else slot.name


def _type(tensor: Tensor) -> str:
    return f"{_word(tensor.dtype)} {list(tensor.shape)}"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _a(kind: str) -> str:
    return "an input" if kind == "input" else "a param"


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "no tensors"
