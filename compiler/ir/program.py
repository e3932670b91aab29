"""The typed IR: a recurrence as flat static single assignments.

A body is a tuple of instructions; an instruction's identity is its position, and its operands
stand before it. All evaluators are one loop over a body. Equal instructions are stored once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...dsl.ast import Layer
from ...dsl.source import Source, Span
from .size import Size
from .types import EVERYTHING, Axes, Interval, show_axes


@dataclass(frozen=True, slots=True)
class Instr:
    """One value: ``op(args)`` with the attributes described in ops.py.

    ``span`` is where the value was written and ``name`` what the user called it; neither is part
    of its identity.
    """

    op: str
    args: tuple[int, ...] = ()
    attrs: tuple[Any, ...] = ()
    axes: Axes = ()
    span: Span | None = field(default=None, compare=False)
    name: str | None = field(default=None, compare=False)


Body = tuple[Instr, ...]


@dataclass(frozen=True, slots=True)
class Dim:
    """A symbolic size, its own or ``times`` that of the dimension ``alias``, which has its own."""

    name: str
    alias: str | None
    span: Span
    times: int = 1

    @property
    def size(self) -> Size:
        """The size in dimensions that have their own."""
        return Size.of(self.alias or self.name) * self.times


def related_sizes(dims: Iterable[Dim], sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes and those that follow from them; ValueError, saying why, where none do."""
    own: dict[str, int] = {}
    givers: dict[str, str] = {}
    for dim in dims:
        if dim.name not in sizes:
            continue
        size, root = sizes[dim.name], dim.alias or dim.name
        if size % dim.times:
            raise ValueError(f"{dim.name} = {size} is not {dim.times} times a whole {root}")
        if own.setdefault(root, size // dim.times) != size // dim.times:
            giver = givers[root]
            raise ValueError(f"{dim.name} = {size} does not go with {giver} = {sizes[giver]}: {dim.name} is {dim.size}")
        givers.setdefault(root, dim.name)
    return {dim.name: dim.size.bind(own) for dim in dims if (dim.alias or dim.name) in own}


@dataclass(frozen=True, slots=True)
class State:
    """Memory. ``start`` and ``next`` are values of the body: its default start (no input, param
    or state is read there) and its value after the step."""

    name: str
    axes: Axes
    start: int
    next: int
    span: Span


@dataclass(frozen=True, slots=True)
class Input:
    """Per-step data; ``range`` and ``unit`` (the last axis has L2 norm 1) are promises."""

    name: str
    axes: Axes
    range: Interval
    unit: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Initialiser:
    """How a param starts: a rule by name with its numbers, or ``expression`` of the head index.

    ``rule`` is one of zeros, ones, identity, orthogonal, normal, uniform, log_uniform,
    inv_softplus_log_uniform, arange, hippo_real, spectral, or ``expression``; then ``value`` is a value of
    the program's body that reads at most the leaf ("head", "head").
    """

    rule: str = "zeros"
    numbers: tuple[float, ...] = ()
    value: int | None = None


@dataclass(frozen=True, slots=True)
class Param:
    """Learned data per head; ``frozen`` makes it a buffer."""

    name: str
    axes: Axes
    init: Initialiser
    frozen: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Gate:
    """A declared gate: its value and the range its author promised (if any)."""

    name: str
    value: int
    declared: Interval | None
    span: Span


@dataclass(frozen=True, slots=True)
class Output:
    """What is emitted each step."""

    name: str
    axes: Axes
    value: int
    span: Span


@dataclass(frozen=True)
class Program:
    """A typed recurrence. Names are unique over dims, consts, states, inputs, params and outputs."""

    name: str
    doc: str
    dims: tuple[Dim, ...]
    consts: tuple[tuple[str, float], ...]
    states: tuple[State, ...]
    inputs: tuple[Input, ...]
    params: tuple[Param, ...]
    gates: tuple[Gate, ...]
    outputs: tuple[Output, ...]
    body: Body
    layer: Layer | None
    source: Source

    def roots(self) -> tuple[int, ...]:
        """The values of one step: new states, then outputs."""
        return (*(s.next for s in self.states), *(o.value for o in self.outputs))

    def leaves(self) -> tuple[Input | Param | State, ...]:
        """Everything that has a value before the step: inputs, params, then states."""
        return (*self.inputs, *self.params, *self.states)

    def leaf_ranges(self) -> dict[tuple[str, str], Interval]:
        """What is promised of leaves, for the range analysis."""
        return {("input", i.name): i.range for i in self.inputs if i.range != EVERYTHING}


def live(body: Sequence[Instr], roots: Iterable[int]) -> frozenset[int]:
    """The values that the roots need, roots included."""
    needed = set(roots)
    for position in range(len(body) - 1, -1, -1):
        if position in needed:
            needed.update(body[position].args)
    return frozenset(needed)


def depends_on(body: Body, kinds: Sequence[str]) -> tuple[bool, ...]:
    """For each value, whether it reads a leaf of one of the kinds."""
    result: list[bool] = []
    for instr in body:
        leaf = instr.op == "leaf" and instr.attrs[0] in kinds
        result.append(leaf or any(result[arg] for arg in instr.args))
    return tuple(result)


def users(body: Body) -> tuple[tuple[int, ...], ...]:
    """For each value, the values that read it."""
    result: list[list[int]] = [[] for _ in body]
    for position, instr in enumerate(body):
        for arg in dict.fromkeys(instr.args):
            result[arg].append(position)
    return tuple(map(tuple, result))


def show_body(body: Body, keep: Iterable[int] | None = None) -> str:
    """The body as text, one value a line: ``%7 [K, V] = mul %3 %5``."""
    kept = range(len(body)) if keep is None else sorted(keep)
    lines = []
    for position in kept:
        instr = body[position]
        words = [instr.op, *(f"%{arg}" for arg in instr.args)]
        words += [str(attr) if not isinstance(attr, tuple) else ",".join(map(str, attr)) for attr in instr.attrs]
        name = f"  # {instr.name}" if instr.name else ""
        lines.append(f"%{position} {show_axes(instr.axes)} = {' '.join(words)}{name}")
    return "\n".join(lines)
