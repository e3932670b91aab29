"""The affine normal form (algorithms.md section 1): a recurrence as decay, writes, erasing reads and read-outs.

Per step and sub-step, for a matrix state ``S`` that is mixed along one of its axes:

    S <- diag(exp g) S + sum_i k_i n_i^T,    n_i = z_i + c_i (r_i^T S)

Everything but ``S`` is a value that reads inputs and params only: the *prologue*. Outputs are functions of the reads
``q^T S`` and of inputs: the *epilogue*. Both are ordinary bodies of the typed IR. Operator form and free form of a
transition have the same normal form; :mod:`.proof` proves it for the spec at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..ir.builder import Builder
from ..ir.program import Body, Program, State, live
from ..ir.types import Axes, Axis
from .linear import Reason
from .links import RawLink, RawPair, Subject, link_of, merged
from .logarithm import log_decay
from .products import Algebra, Product, Vector, value_of
from .readout import Read, read_out
from .terms import NotLinear, Terms, WrongAxis, placed

MAX_ROWS = 8
"""The most rank-one updates with reads per step."""


@dataclass(frozen=True)
class Pair:
    """A rank-one write: along ``key``, per member of the group the value ``values`` (None: nothing given) plus
    ``scale * (read @ S)``. ``scale`` None is 1; ``post``: the read sees the decayed state."""

    key: int
    values: tuple[int | None, ...]
    read: int | None
    scale: int | None
    post: bool


@dataclass(frozen=True)
class Decay:
    """A decay as a natural logarithm and, where it can be negative, a sign; ``value`` is the decay itself, and where it
    ``vanishes`` it can be 0."""

    log: int
    sign: int | None
    vanishes: bool
    value: int

    @property
    def raw(self) -> bool:
        """Whether the logarithm is not enough: for its sign, or for its gradient."""
        return self.sign is not None or self.vanishes


@dataclass(frozen=True)
class Link:
    """One sub-step: decay (None: none), then pairs, which all read before any of them writes."""

    decay: Decay | None
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Member:
    """A state of the group: mixed along axis ``position``; ``column`` is its other axis (None for a vector)."""

    state: str
    axes: Axes
    position: int

    @property
    def mix(self) -> Axis:
        return self.axes[self.position]

    @property
    def column(self) -> Axis | None:
        return self.axes[1 - self.position] if len(self.axes) == 2 else None


@dataclass(frozen=True)
class AffineForm:
    """The normal form of states that share a transition.

    ``body`` begins with the program's own; positions in ``links``, ``reads`` and ``outputs`` are values of it. Outputs
    read the results of ``reads`` as leaves ("read", name). ``per_channel``: some decay varies along the mixed axis.
    """

    body: Body
    members: tuple[Member, ...]
    links: tuple[Link, ...]
    reads: tuple[Read, ...]
    outputs: tuple[tuple[str, int], ...]

    @property
    def mix(self) -> Axis:
        return self.members[0].mix

    @property
    def per_channel(self) -> bool:
        return any(link.decay is not None and bool(self.body[link.decay.log].axes) for link in self.links)

    @property
    def decays(self) -> bool:
        return any(link.decay is not None for link in self.links)

    @property
    def signed(self) -> bool:
        return any(link.decay is not None and link.decay.sign is not None for link in self.links)

    def values(self) -> tuple[int, ...]:
        """Every value of the prologue that a chunk algorithm needs."""
        found: list[int] = []
        for link in self.links:
            if link.decay is not None:
                found += [link.decay.log, *([link.decay.value] if link.decay.raw else ())]
                found += [] if link.decay.sign is None else [link.decay.sign]
            for pair in link.pairs:
                found += [v for v in (pair.key, pair.read, pair.scale, *pair.values) if v is not None]
        return tuple(dict.fromkeys((*found, *(r.query for r in self.reads))))


class NotAffine(Exception):
    """Why a recurrence has no affine normal form, and where."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


def affine_form(program: Program) -> AffineForm:
    """The normal form of a program all of whose states share one transition (NotAffine with the reason if not).

    Axes are tried in order; one along which read-outs contract the state is preferred.
    """
    if not program.states:
        raise NotAffine(Reason("there is no state", None))
    widest = max(program.states, key=lambda s: len(s.axes))
    _check_shape(widest)
    found: list[AffineForm] = []
    errors: list[NotAffine | NotLinear] = []
    for axis in widest.axes:
        try:
            form = _form(program, axis.name)
        except (NotAffine, NotLinear) as error:
            errors.append(error)
            continue
        if all(read.over == "mix" for read in form.reads):
            return form
        found.append(form)
    if found:
        return found[0]
    reason = _best(errors)
    raise NotAffine(reason if reason.span is not None else replace(reason, span=widest.span))


def _best(errors: Sequence[NotAffine | NotLinear]) -> Reason:
    """Of the reasons per axis the first that is not about the choice of the axis, or all."""
    for error in errors:
        if not isinstance(error, WrongAxis):
            return error.reason
    texts = dict.fromkeys(error.reason.text for error in errors)
    return replace(errors[0].reason, text=", and ".join(texts))


def _check_shape(state: State) -> None:
    names = [axis.name for axis in state.axes]
    if not 1 <= len(names) <= 2:
        what = "a scalar" if not names else f"of {len(names)} axes"
        raise NotAffine(Reason(f"`{state.name}` is {what}: there is nothing for a low rank to mix", state.span))
    if len(set(names)) != len(names):
        raise NotAffine(Reason(f"both axes of `{state.name}` are {names[0]}", state.span))


def _form(program: Program, mix: str) -> AffineForm:
    builder = Builder(program.body)
    algebra = Algebra(builder)
    members = []
    chains = []
    names = {state.name for state in program.states}
    for state in program.states:
        _check_alone(program, state, names)
    for state in program.states:
        axes = [axis.name for axis in state.axes]
        if mix not in axes or len(axes) > 2:
            raise NotAffine(Reason(f"`{state.name}` has no axis {mix} to share", state.span))
        member = Member(state.name, state.axes, axes.index(mix))
        members.append(member)
        chains.append(_chain(program, algebra, state, member.position))
    size = builder.size(members[0].mix.size)
    try:
        groups = _aligned([merged(algebra, chain, size) for chain in chains], members, program)
    except NotAffine:
        groups = _aligned([merged(algebra, chain, size, early=True) for chain in chains], members, program)
    links = tuple(_link(program, algebra, group, members) for group in groups)
    if sum(pair.read is not None for link in links for pair in link.pairs) > MAX_ROWS:
        raise NotAffine(Reason(f"more than {MAX_ROWS} reads of the state per step", program.states[0].span))
    reads, outputs = read_out(program, builder, algebra, {m.state: m.position for m in members})
    return AffineForm(tuple(builder.body), tuple(members), links, reads, outputs)


def _check_alone(program: Program, state: State, names: set[str]) -> None:
    body = program.body
    for position in sorted(live(body, (state.next,))):
        instr = body[position]
        if instr.op == "leaf" and instr.attrs[0] == "state" and instr.attrs[1] in names - {state.name}:
            raise NotAffine(Reason(f"`{state.name}` reads `{instr.attrs[1]}`, which shares its stratum", instr.span))


# ---------------------------------------------------------------- the chain of sub-steps


def _chain(program: Program, algebra: Algebra, state: State, mixed: int) -> list[RawLink]:
    """The links from the state to its new value, one per value that every path passes."""
    body = program.body
    start = next((p for p, i in enumerate(body) if i.op == "leaf" and i.attrs == ("state", state.name)), None)
    names = tuple(axis.name for axis in state.axes)
    stops = _dominators(body, start, state.next, state.axes) if start is not None else [state.next]
    links = []
    previous = start
    for stop in stops:
        basis = {previous: state.name} if previous is not None else {}
        span = body[stop].span or state.span
        if stop != previous:
            found = Terms(algebra.builder, basis).of(stop)
            terms = [placed(algebra.builder, term, state.axes) for term in found]
            links.append(link_of(algebra, terms, mixed, Subject(state.name, names, span)))
        previous = stop
    return links or [RawLink(Product(), ())]


def _dominators(body: Body, start: int, end: int, axes: Axes) -> list[int]:
    """Values with the state's axes through which every path from it to its new value leads, the last included."""
    forward = [0] * len(body)
    forward[start] = 1
    for position in range(start + 1, end + 1):
        forward[position] = sum(forward[arg] for arg in body[position].args)
    backward = [0] * len(body)
    backward[end] = 1
    for position in range(end, start, -1):
        for arg in body[position].args:
            backward[arg] += backward[position]
    if not forward[end]:  # the new state does not read the old one
        return [end]
    found = [p for p in range(start + 1, end) if forward[p] * backward[p] == forward[end] and body[p].axes == axes]
    return [*found, end]


# ---------------------------------------------------------------- members


def _aligned(
    chains: Sequence[Sequence[RawLink]], members: Sequence[Member], program: Program
) -> list[tuple[RawLink, ...]]:
    """Link by link those of all members (NotAffine unless their decays and reads are the same)."""
    for member, chain in zip(members[1:], chains[1:], strict=True):
        span = program.states[[s.name for s in program.states].index(member.state)].span
        pair = f"`{members[0].state}` and `{member.state}`"
        if len(chain) != len(chains[0]):
            raise NotAffine(Reason(f"{pair} do not have the same sub-steps", span))
        for mine, first in zip(chain, chains[0], strict=True):
            if mine.decay != first.decay:
                raise NotAffine(Reason(f"{pair} do not share a decay", span))
            if {_reader(p) for p in mine.pairs if p.read is not None} != {
                _reader(p) for p in first.pairs if p.read is not None
            }:
                raise NotAffine(Reason(f"{pair} are not erased alike", span))
    return list(zip(*chains, strict=True))


def _reader(pair: RawPair) -> RawPair:
    """What identifies a pair: everything but what it was given."""
    return replace(pair, value=())


def _link(program: Program, algebra: Algebra, group: Sequence[RawLink], members: Sequence[Member]) -> Link:
    builder = algebra.builder
    given: dict[RawPair, list[RawPair | None]] = {}
    for index, link in enumerate(group):
        for pair in link.pairs:
            given.setdefault(_reader(pair), [None] * len(group))[index] = pair
    # reads first, each kind in an order that does not depend on how the spec was written
    order = sorted(given, key=lambda p: (p.read is None, [algebra.signature(v) for v in p.key]))
    mix = members[0].mix
    pairs = []
    for pair in order:
        values = tuple(
            None if own is None or not own.value else _given_value(algebra, own, member)
            for own, member in zip(given[pair], members, strict=True)
        )
        key = _along(algebra, pair.key, mix)
        read = None if pair.read is None else _along(algebra, pair.read, mix)
        plain = pair.read is None or pair.scale == (Product(),)
        scale = None if plain else value_of(algebra, algebra.ordered(pair.scale), ())
        pairs.append(Pair(key, values, read, scale, pair.post))
    decay = group[0].decay
    built = None if decay == Product() else Decay(*log_decay(program, builder, decay), value_of(algebra, (decay,), ()))
    return Link(built, tuple(pairs))


def _given_value(algebra: Algebra, pair: RawPair, member: Member) -> int:
    value = value_of(algebra, algebra.ordered(pair.value), ())
    column = member.column
    return value if column is None else algebra.builder.spread(value, (column,))


def _along(algebra: Algebra, vector: Vector, axis: Axis) -> int:
    value = algebra.vector_value(vector)
    return algebra.builder.spread(algebra.builder.const(1.0), (axis,)) if value is None else value
