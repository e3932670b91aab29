"""The torch reference: walks the typed IR, at any precision, differentiable any number of times.

Every value is a tensor with ``lead`` leading dimensions (batch, time, head; size 1 where a value does
not vary) and then the value's own axes. In float64 this is the oracle that all kernels are tested
against; it is written for clarity and for memory linear in the number of steps, not for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compiler.ir.program import Body, Instr, Program, depends_on, live
from .sequences import one_by_one

Leaves = Callable[[str, str], Tensor] | Mapping[tuple[str, str], Tensor]


class _ClipGrad(torch.autograd.Function):
    """Identity whose cotangent is clamped to [-bound, bound]; the clamp itself is differentiable."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.bound = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].clamp(-ctx.bound, ctx.bound), None


def _sqrt(x: Tensor) -> Tensor:
    """The square root with gradient 0, of every order, at 0."""
    zero = x == 0
    return torch.where(zero, 0.0, torch.sqrt(torch.where(zero, 1.0, x)))


def _softplus(x: Tensor) -> Tensor:
    # torch's own is linear from 20 on, which is wrong by 2e-9.
    return -F.logsigmoid(-x)


def _clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    # Written out, so that a bound that is reached gets no gradient whatever its order.
    return torch.where(torch.maximum(x, low) > high, high, torch.where(x < low, low, x))


ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "neg": torch.neg,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "sqrt": _sqrt,
    "rsqrt": torch.rsqrt,
    "square": torch.square,
    "abs": torch.abs,
    "sign": torch.sign,
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "silu": F.silu,
    "softplus": _softplus,
    "gelu": F.gelu,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "stop_grad": torch.detach,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "min": torch.minimum,
    "max": torch.maximum,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "ne": torch.ne,
    "where": torch.where,
    "clamp": _clamp,
}
"""Operations that act on each entry, with torch's broadcasting over the leading dimensions."""


class _Walk:
    """One evaluation: what operations other than element-wise ones need to know."""

    def __init__(self, sizes: Mapping[str, int], lead: int, full: tuple[int, ...] | None, like: Tensor) -> None:
        self.sizes, self.lead, self.full, self.like = sizes, lead, full, like

    def apply(self, instr: Instr, args: Sequence[Tensor]) -> Tensor:
        function = ELEMENTWISE.get(instr.op)
        if function is not None:
            return function(*args)
        method: Callable[..., Tensor] = getattr(self, "_" + instr.op)
        return method(instr, *args)

    def _number(self, value: float) -> Tensor:
        return torch.full((1,) * self.lead, value, dtype=self.like.dtype, device=self.like.device)

    def _const(self, instr: Instr) -> Tensor:
        return self._number(instr.attrs[0])

    def _size(self, instr: Instr) -> Tensor:
        return self._number(float(self.sizes[instr.attrs[0]]))

    def _clip_grad(self, instr: Instr, x: Tensor) -> Tensor:
        # What is clipped is the cotangent of one step of one head, so nothing may be shared yet.
        if self.full is not None:
            x = x.expand(*self.full, *x.shape[self.lead :])
        result = _ClipGrad.apply(x, instr.attrs[0])
        assert isinstance(result, Tensor)
        return result

    def _broadcast(self, instr: Instr, x: Tensor) -> Tensor:
        (source,) = instr.attrs
        x = x.permute([*range(self.lead), *(self.lead + s for s in source if s >= 0)])
        for position, s in enumerate(source):
            if s < 0:
                x = x.unsqueeze(self.lead + position)
        return x.expand(*x.shape[: self.lead], *(axis.size.bind(self.sizes) for axis in instr.axes))

    def _sum(self, instr: Instr, x: Tensor) -> Tensor:
        return x.sum(self.lead + instr.attrs[0])

    def _amax(self, instr: Instr, x: Tensor) -> Tensor:
        return x.amax(self.lead + instr.attrs[0])

    def _contract(self, instr: Instr, x: Tensor, y: Tensor) -> Tensor:
        left, right, out = instr.attrs
        letter = {label: i for i, label in enumerate(dict.fromkeys((*left, *right)))}
        terms = [[..., *(letter[label] for label in labels)] for labels in (left, right, out)]
        return torch.einsum(x, terms[0], y, terms[1], terms[2])

    def _index(self, instr: Instr, x: Tensor) -> Tensor:
        position, i = instr.attrs
        return x.select(self.lead + position, i)

    def _place(self, instr: Instr, x: Tensor) -> Tensor:
        position, i = instr.attrs
        return self._padded(x.unsqueeze(self.lead + position), instr, position, i)

    def _slice(self, instr: Instr, x: Tensor) -> Tensor:
        position, start, stop = instr.attrs
        first = start.bind(self.sizes)
        return x.narrow(self.lead + position, first, stop.bind(self.sizes) - first)

    def _pad(self, instr: Instr, x: Tensor) -> Tensor:
        position, before = instr.attrs
        return self._padded(x, instr, position, before.bind(self.sizes))

    def _padded(self, x: Tensor, instr: Instr, position: int, before: int) -> Tensor:
        dim = self.lead + position
        after = instr.axes[position].size.bind(self.sizes) - before - x.shape[dim]
        return F.pad(x, (0, 0) * (x.dim() - 1 - dim) + (before, after))

    def _concat(self, instr: Instr, x: Tensor, y: Tensor) -> Tensor:
        lead = torch.broadcast_shapes(x.shape[: self.lead], y.shape[: self.lead])
        whole = [part.expand(*lead, *part.shape[self.lead :]) for part in (x, y)]
        return torch.cat(whole, self.lead + instr.attrs[0])


def evaluate(
    body: Body,
    wanted: Iterable[int],
    leaves: Leaves,
    sizes: Mapping[str, int],
    lead: int,
    *,
    known: Mapping[int, Tensor] | None = None,
    full: tuple[int, ...] | None = None,
    like: Tensor | None = None,
) -> dict[int, Tensor]:
    """The wanted values of a body.

    ``leaves`` gives, for (kind, name), a tensor of ``lead`` leading dimensions and the leaf's axes;
    ``known`` gives values that need not be computed again. ``full`` is the whole shape of the leading
    dimensions, over which ``clip_grad`` must not share. Constants have the dtype and device of
    ``like``, by default those of the first leaf (float64 where there is none).
    """
    values: dict[int, Tensor] = dict(known or {})
    wanted = tuple(wanted)
    needed = _missing(body, wanted, values)
    read = (lambda kind, name: leaves[kind, name]) if isinstance(leaves, Mapping) else leaves
    for position in needed:
        if body[position].op == "leaf":
            values[position] = read(*body[position].attrs)
            like = values[position] if like is None else like
    walk = _Walk(sizes, lead, full, torch.empty((), dtype=torch.float64) if like is None else like)
    for position in needed:
        if position not in values:
            values[position] = walk.apply(body[position], [values[arg] for arg in body[position].args])
    return {position: values[position] for position in wanted}


def _missing(body: Body, wanted: Sequence[int], known: Mapping[int, Tensor]) -> list[int]:
    """The values to compute for the wanted ones, front to back."""
    needed: set[int] = set(wanted) - known.keys()
    for position in range(len(body) - 1, -1, -1):
        if position in needed:
            needed.update(arg for arg in body[position].args if arg not in known)
    return sorted(needed)


def run(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    *,
    steps: int,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All steps of a recurrence: its outputs and its final states, in declaration order.

    ``inputs`` are ``[B, T, G, *axes]`` where G divides the number of heads H (head h reads group
    ``h // (H // G)``), ``params`` ``[H, *axes]``, ``initial`` ``[B, H, *axes]``; a state that is missing
    there has its declared start. Outputs are ``[B, T, H, *axes]`` in the inputs' dtype, final states
    ``[B, H, *axes]``. Computes in float64 if any argument has it, else in float32. ``steps`` is T;
    ``reverse`` runs from the last step to the first. With ``cu_seqlens`` [N + 1] the inputs, of batch 1, hold N
    sequences one after another, sequence i at steps ``cu_seqlens[i]`` to ``cu_seqlens[i + 1]``; each runs by
    itself, and states are ``[N, H, *axes]``.
    """
    if cu_seqlens is not None:
        return one_by_one(run, program, sizes, inputs, params, initial, cu_seqlens.tolist(), reverse)
    begun = begin(program, sizes, inputs, params, initial, steps=steps, reverse=reverse)
    values, final = _steps(program, sizes, begun.leaves, begun.states, begun.full, begun.like)
    return emitted(program, [values[output.value] for output in program.outputs], inputs, begun, reverse), final


@dataclass(frozen=True)
class Begun:
    """What a run starts from: inputs ``[B, T, H, *axes]`` and params ``[1, 1, H, *axes]`` as leaves, the start of every
    state ``[B, H, *axes]``, ``full`` = (B, T, H), and a tensor ``like`` those that are computed."""

    leaves: Mapping[tuple[str, str], Tensor]
    states: Mapping[str, Tensor]
    full: tuple[int, int, int]
    like: Tensor


def begin(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    *,
    steps: int,
    reverse: bool,
) -> Begun:
    """The arguments of :func:`run` in the dtype of its arithmetic, all heads and from the first step that is run."""
    batch, heads = extent(inputs, params, initial)
    given = (*inputs.values(), *params.values(), *initial.values())
    wide = any(tensor.dtype == torch.float64 for tensor in given) or len(given) == 0
    like = torch.empty((), dtype=torch.float64 if wide else torch.float32, device=given[0].device if given else None)
    leaves: dict[tuple[str, str], Tensor] = {}
    for name, tensor in inputs.items():
        grouped = tensor.to(like.dtype).repeat_interleave(heads // tensor.shape[2], 2)
        leaves["input", name] = grouped.flip(1) if reverse else grouped
    for name, tensor in params.items():
        leaves["param", name] = tensor.to(like.dtype)[None, None]
    start = evaluate(program.body, [s.start for s in program.states], leaves, sizes, 2, like=like)
    states = {
        state.name: initial[state.name].to(like.dtype)
        if state.name in initial
        else start[state.start]
        .reshape((1,) * (2 + len(state.axes)))
        .expand(batch, heads, *(axis.size.bind(sizes) for axis in state.axes))
        for state in program.states
    }
    return Begun(leaves, states, (batch, steps, heads), like)


def emitted(
    program: Program, values: Sequence[Tensor], inputs: Mapping[str, Tensor], begun: Begun, reverse: bool
) -> tuple[Tensor, ...]:
    """Outputs in the order of the steps and in the inputs' dtype, from their values."""
    dtype = begun.like.dtype
    if inputs:
        first, *rest = (tensor.dtype for tensor in inputs.values())
        for other in rest:
            first = torch.promote_types(first, other)
        dtype = first
    whole = [value.expand(*begun.full, *value.shape[3:]).to(dtype) for value in values]
    return tuple(value.flip(1) if reverse else value for value in whole)


def extent(
    inputs: Mapping[str, Tensor], params: Mapping[str, Tensor], initial: Mapping[str, Tensor]
) -> tuple[int, int]:
    """The number of sequences and of heads."""
    heads = 1
    for found in (
        *(t.shape[2] for t in inputs.values()),
        *(t.shape[0] for t in params.values()),
        *(t.shape[1] for t in initial.values()),
    ):
        heads = found if found > heads else heads  # torch.compile knows no max() of a list
    batches = [t.shape[0] for t in (*inputs.values(), *initial.values())]
    return batches[0] if batches else 1, heads


def _steps(
    program: Program,
    sizes: Mapping[str, int],
    leaves: Mapping[tuple[str, str], Tensor],
    states: Mapping[str, Tensor],
    full: tuple[int, int, int],
    like: Tensor,
) -> tuple[dict[int, Tensor], tuple[Tensor, ...]]:
    """The values of outputs at every step, and the final states.

    Values that read no state are computed for all steps at once before the loop, those that only
    outputs need for all steps at once after it; each value is computed once, and so clipped once.
    """
    body, outputs = program.body, [output.value for output in program.outputs]
    inner = depends_on(body, ["state"])
    nexts = [state.next for state in program.states]
    needed = live(body, (*nexts, *outputs))
    looped = {p for p in live(body, nexts) if inner[p]} | {
        p for p in needed if body[p].op == "leaf" and body[p].attrs[0] == "state"
    }
    after = {p for p in needed if inner[p]} - looped
    reads = {arg for p in (*looped, *after) for arg in body[p].args} | set(nexts) | set(outputs)
    before = evaluate(body, [p for p in sorted(needed & reads) if not inner[p]], leaves, sizes, 3, full=full, like=like)
    kept = sorted(looped & ({arg for p in after for arg in body[p].args} | set(outputs)))
    stacks, final = _loop(program, sizes, looped, before, states, full, like, kept)
    return evaluate(body, outputs, leaves, sizes, 3, known={**before, **stacks}, full=full, like=like), final


def _loop(
    program: Program,
    sizes: Mapping[str, int],
    looped: set[int],
    before: Mapping[int, Tensor],
    states: Mapping[str, Tensor],
    full: tuple[int, int, int],
    like: Tensor,
    kept: Sequence[int],
) -> tuple[dict[int, Tensor], tuple[Tensor, ...]]:
    """The values ``kept`` at every step, stacked, and the final states."""
    body = program.body
    batch, steps, heads = full
    read = {arg for p in looped for arg in body[p].args} | {s.next for s in program.states}
    per_step = {p: _each_step(value, steps) for p, value in before.items() if p in read}
    records: dict[int, list[Tensor]] = {p: [] for p in kept}
    current = dict(states)
    nexts = [state.next for state in program.states]
    for step in range(steps):
        known = {p: values[step] for p, values in per_step.items()}
        leaves = {("state", name): value for name, value in current.items()}
        values = evaluate(body, [*nexts, *kept], leaves, sizes, 2, known=known, full=(batch, heads), like=like)
        for p in kept:
            records[p].append(values[p].expand(batch, heads, *values[p].shape[2:]))
        current = {s.name: values[s.next].expand(batch, heads, *values[s.next].shape[2:]) for s in program.states}
    stacks = {}
    for p in kept:
        axes = (axis.size.bind(sizes) for axis in body[p].axes)
        stacks[p] = torch.stack(records[p], 1) if steps else like.new_empty(batch, 0, heads, *axes)
    return stacks, tuple(current[s.name] for s in program.states)


def _each_step(value: Tensor, steps: int) -> Sequence[Tensor]:
    """A value at each step; one that does not vary is the same tensor each time."""
    return [value.select(1, 0)] * steps if value.shape[1] == 1 else value.unbind(1)
