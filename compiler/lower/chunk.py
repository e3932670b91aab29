"""What a recurrence in affine normal form needs of the chunk algorithm (algorithms.md sections 2 to 4).

The *roles* are the values of the prologue (decays, keys, values, queries) under the names that the algorithm gives
them; the *facts* say which parts of the algorithm there are. Kernels are made of both in chunk_kernels.py, the
algorithm itself is printed by codegen/chunk.py and the files beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..analysis.affine import AffineForm
from ..analysis.ranges import promises, ranges
from ..autodiff.reverse import reverse
from ..ir.builder import Builder
from ..ir.program import Body, Program
from ..ir.types import Axes
from . import naming


@dataclass(frozen=True)
class Role:
    """A value of the prologue under the name that the template gives it; ``axes`` beside the chunk's steps.

    ``gradient`` is whether the template computes the cotangent ``d_NAME``.
    """

    name: str
    value: int
    axes: Axes
    gradient: bool = True

    @property
    def kind(self) -> str:
        """The name without its numbers."""
        return self.name.split("_")[0]


PHASES = {
    "keys": ("log", "raw", "key", "erase", "scale", "write"),
    "values": ("value", "given"),
    "queries": ("query",),
}
"""Kinds of roles by the part of the algorithm that needs them first."""


_WORDS = """
apart asked base border earlier end erase flip given handed hit inverse key late later link log micro moved moment near
new odd part past query raw read row same scale score seen step sub total until upto value wanted write written wrote
"""
_VARIABLE = re.compile(
    rf"shift|after_\w+|(d_)?({'|'.join(_WORDS.split())})(_(\d+|all|at|d|t|log|rows|{'|'.join(_WORDS.split())}))*_*"
)


def is_free(name: str) -> bool:
    """Whether a variable of the prologue or epilogue may have this name: the algorithm takes all that are made of its
    own words."""
    return naming.is_free(name) and _VARIABLE.fullmatch(name) is None


@dataclass(frozen=True)
class Memory:
    """A state of the group in kernels: its variable, whether it has no columns, and which rows of a step are given
    something to write to it."""

    state: str
    vector: bool
    rows: tuple[bool, ...]


@dataclass(frozen=True)
class Given:
    """A write of what was given, and to which states."""

    values: tuple[bool, ...]


@dataclass(frozen=True)
class Query:
    """A query, over the mixed axis or a column, before or after the step."""

    name: str
    before: bool
    over: str


@dataclass(frozen=True)
class ReadOut:
    """What a query reads of a member."""

    name: str
    member: int
    query: str
    over: str
    before: bool


@dataclass(frozen=True)
class ChunkFacts:
    """What of the algorithm a recurrence needs, for the printer.

    ``decay`` is none, scalar or channel; ``logs`` are per link, and ``raws``: decays that may be 0 or, if ``signed``,
    negative. A step has ``substeps`` rows that read the state (a power of two; 0: none does), row i in link
    ``links[i]``, of which ``reader``, ``scale`` and ``post`` say whether it reads, with a scale, after the link's
    decay. ``operand`` is the type of operands of matrix products and ``precision`` the form of float32 ones. ``asked``
    are the reads that the backward computes again. Over ``span`` steps (a power of two) decays per channel are proved
    too weak for their inverse to overflow.
    """

    chunk: int
    operand: str
    precision: str
    decay: str
    logs: tuple[str | None, ...]
    raws: tuple[str | None, ...]
    signed: bool
    links: tuple[int, ...]
    substeps: int
    reader: tuple[bool, ...]
    scale: tuple[bool, ...]
    post: tuple[bool, ...]
    members: tuple[Memory, ...]
    given: tuple[Given, ...]
    queries: tuple[Query, ...]
    reads: tuple[ReadOut, ...]
    asked: tuple[str, ...] = ()
    span: int = 1

    @property
    def scaled(self) -> bool:
        return any(self.scale)


@dataclass(frozen=True)
class ChunkOptions:
    """How kernels compute: ``operand`` is the element type of matrix products (``tl.float32``, ``tl.bfloat16``,
    ``tl.float16``), ``precision`` the form of float32 ones; ``started`` whether start states are given, ``packed``
    whether sequences of different lengths lie one after another."""

    operand: str
    precision: str
    strided: bool
    started: bool = True
    packed: bool = False


def roles_and_facts(
    program: Program, form: AffineForm, states: Mapping[str, str], chunk: int, options: ChunkOptions
) -> tuple[tuple[Role, ...], ChunkFacts]:
    """The values of the prologue by name and the parts of the algorithm that a normal form needs."""
    mix = (form.mix,)
    roles: list[Role] = []
    logs: list[str | None] = []
    raws: list[str | None] = []
    wide = mix if form.per_channel else ()
    for number, link in enumerate(form.links):
        logs.append(None if link.decay is None else f"log_{number}")
        raws.append(f"raw_{number}" if link.decay is not None and link.decay.raw else None)
        if link.decay is not None:
            # where a decay may be 0 its logarithm has no gradient: it gets its own (codegen/chunk_decays.py)
            roles.append(Role(f"log_{number}", link.decay.log, wide, gradient=not link.decay.raw))
            if link.decay.raw:
                roles.append(Role(f"raw_{number}", link.decay.value, wide))
    pairs = [(number, pair) for number, link in enumerate(form.links) for pair in link.pairs]
    several = len(form.links) > 1
    rows = [(n, pair) for n, pair in pairs if pair.read is not None or several]
    given = [pair for _, pair in pairs if pair.read is None and not several]
    for i, (_, pair) in enumerate(rows):
        roles.append(Role(f"key_{i}", pair.key, mix))
        if pair.read is not None:
            roles.append(Role(f"erase_{i}", pair.read, mix))
            if pair.scale is not None:
                roles.append(Role(f"scale_{i}", pair.scale, ()))
        roles += _values(form, f"value_{i}", pair.values)
    for j, pair in enumerate(given):
        roles.append(Role(f"write_{j}", pair.key, mix))
        roles += _values(form, f"given_{j}", pair.values)
    queries, reads = _queries(form, roles)
    members = tuple(
        Memory(states[m.state], m.column is None, tuple(pair.values[i] is not None for _, pair in rows))
        for i, m in enumerate(form.members)
    )
    return tuple(roles), ChunkFacts(
        chunk=chunk,
        operand=options.operand,
        precision=options.precision,
        decay="channel" if form.per_channel else "scalar" if form.decays else "none",
        logs=tuple(logs),
        raws=tuple(raws),
        signed=form.signed,
        links=tuple(n for n, _ in rows),
        substeps=1 << (len(rows) - 1).bit_length() if rows else 0,
        reader=tuple(pair.read is not None for _, pair in rows),
        scale=tuple(pair.scale is not None for _, pair in rows),
        post=tuple(pair.post for _, pair in rows),
        members=members,
        given=tuple(Given(tuple(v is not None for v in pair.values)) for pair in given),
        queries=queries,
        reads=reads,
        span=_safe_span(program, form, chunk, options) if form.per_channel else 1,
    )


def _safe_span(program: Program, form: AffineForm, chunk: int, options: ChunkOptions) -> int:
    """Steps over which keys can be divided by their decays: by the proved range of the decays' logarithms, which may
    also grow."""
    bounds = ranges(form.body, promises(program))
    logs = [bounds[link.decay.log] for link in form.links if link.decay is not None]
    step = sum(max(-log.low, log.high) for log in logs) / math.log(2)
    most = LEAST_EXPONENT["tl.float16" if options.operand == "tl.float16" else "others"]
    span = 1
    while 2 * span <= chunk and 2 * span * step <= most:
        span *= 2
    return span


LEAST_EXPONENT = {"tl.float16": 8, "others": 96}
"""Powers of two that an operand may be scaled up by, with room for its own size: numbers end at 2^16 and 2^128."""


def _values(form: AffineForm, name: str, values: Sequence[int | None]) -> list[Role]:
    found = []
    for i, (member, value) in enumerate(zip(form.members, values, strict=True)):
        if value is not None:
            found.append(Role(f"{name}_{i}", value, () if member.column is None else (member.column,)))
    return found


def _queries(form: AffineForm, roles: list[Role]) -> tuple[tuple[Query, ...], tuple[ReadOut, ...]]:
    """Distinct queries, and what each reads."""
    index = {member.state: i for i, member in enumerate(form.members)}
    queries: dict[tuple[Any, ...], Query] = {}
    reads = []
    for item in form.reads:
        member = index[item.state]
        column = form.members[member].column
        axes = (form.mix,) if item.over == "mix" else (column,) if column is not None else ()
        key = (item.query, item.over, item.before, member if item.over == "column" else None)
        if key not in queries:
            queries[key] = Query(f"query_{len(queries)}", item.before, item.over)
            roles.append(Role(queries[key].name, item.query, axes))
        reads.append(ReadOut(item.name, member, queries[key].name, item.over, item.before))
    return tuple(queries.values()), tuple(reads)


@dataclass(frozen=True)
class ChunkAdjoint:
    """Prologue and epilogue with their adjoints in one body."""

    body: Body
    inputs: tuple[tuple[str, int | None], ...]
    params: tuple[tuple[str, int | None], ...]
    reads: tuple[tuple[str, int | None], ...]


def chunk_adjoint(program: Program, form: AffineForm, roles: Sequence[Role]) -> ChunkAdjoint:
    """Cotangents of reads from those of outputs; of inputs and params from those of outputs and of all roles."""
    builder = Builder(form.body)
    seeds: dict[int, int] = {}

    def seed(value: int, name: str) -> None:
        leaf = builder.leaf("cotangent", name, builder.axes(value))
        seeds[value] = builder.add(seeds[value], leaf) if value in seeds else leaf

    for (name, value), output in zip(form.outputs, program.outputs, strict=True):
        assert name == output.name
        seed(value, name)
    outside = dict(seeds)
    for role in roles:
        if role.gradient and builder.body[role.value].op not in ("const", "size"):
            narrow = builder.axes(role.value)
            if narrow == role.axes:
                seed(role.value, f"role {role.name}")
            else:  # the role spreads a scalar over its axes
                leaf = builder.leaf("cotangent", f"role {role.name}", role.axes)
                total = builder.sum(leaf, 0)
                seeds[role.value] = builder.add(seeds[role.value], total) if role.value in seeds else total
    positions = {i.attrs: p for p, i in enumerate(form.body) if i.op == "leaf"}
    asked = [("input", i.name) for i in program.inputs]
    asked += [("param", p.name) for p in program.params if not p.frozen]
    wrt = [positions[leaf] for leaf in asked if leaf in positions]
    reads = [positions["read", r.name] for r in form.reads if ("read", r.name) in positions]
    of_reads = reverse(builder, outside, reads)
    found = reverse(builder, seeds, wrt)

    def named(kind: str) -> tuple[tuple[str, int | None], ...]:
        return tuple((name, found.get(positions.get((k, name), -1))) for k, name in asked if k == kind)

    return ChunkAdjoint(
        tuple(builder.body),
        named("input"),
        named("param"),
        tuple((r.name, of_reads.get(positions.get(("read", r.name), -1))) for r in form.reads),
    )
