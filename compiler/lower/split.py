"""What a library does for all steps at once, and what is left for kernels that walk the steps.

A product of an input with a matrix of the params needs no state: it is one large matrix product over
all steps before the loop (``Win @ u``). A product with such a matrix that only outputs read is one
after it (``C @ h``). A matrix that is computed from params (``exp(W)``) is computed once. Everything else
stays in the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from ...dsl.source import Span
from ..ir.program import Body, Initialiser, Input, Instr, Output, Param, Program, State, depends_on, live
from ..ir.types import EVERYTHING
from .naming import tensor_name

_Named = TypeVar("_Named", Input, Param, State, Output)


@dataclass(frozen=True)
class Split:
    """A recurrence in three parts.

    ``core`` is what kernels run: a program of its own whose extra inputs are computed before and
    whose extra outputs are read after. ``before`` names values of the original body that become
    inputs or params of the core; ``taps`` names those that it puts out for ``after``, the outputs of the
    original program that are computed from taps (and inputs and params) for all steps at once.
    Leaves and outputs of the core are called as :func:`naming.tensor_name` says.
    """

    program: Program
    core: Program
    before: tuple[tuple[str, int], ...]
    taps: tuple[tuple[str, int], ...]
    after: tuple[tuple[str, int], ...]


def split(program: Program) -> Split:
    """Take products with matrices of the params that need not wait for the state out of the loop."""
    body = program.body
    of_state = depends_on(body, ("state",))
    of_param, of_data = depends_on(body, ("param",)), depends_on(body, ("state", "input"))
    matrix = [of_param[i] and not of_data[i] and len(instr.axes) >= 2 for i, instr in enumerate(body)]
    stepped = live(body, (s.next for s in program.states))
    if any(body[p].op == "clip_grad" and not of_state[p] for p in live(body, program.roots())):
        # What is clipped is the whole cotangent of one step, so such a value must not be computed in two places.
        return Split(program, _core(program, (), (), frozenset()), (), (), ())
    late = _late(program, matrix, of_state, stepped)
    taps = _taps(body, late, of_state, (o.value for o in program.outputs))
    roots = (*(s.next for s in program.states), *taps, *_plain(program, late))
    needed = live(body, roots)
    products = {p for p in needed if _is_product(body, p, matrix) and not of_state[p]}
    weights = {
        arg
        for p in needed
        if body[p].op == "contract" and of_state[p]
        for arg in body[p].args
        if matrix[arg] and body[arg].op != "leaf"
    }
    early = sorted((products | weights) & live(_cut(body, products | weights), roots))
    before = tuple((f"before_{n}", p) for n, p in enumerate(early))
    named_taps = tuple((f"tap_{n}", p) for n, p in enumerate(taps))
    after = tuple((o.name, o.value) for o in program.outputs if o.value in late)
    return Split(program, _core(program, before, named_taps, late), before, named_taps, after)


def _is_product(body: Body, position: int, matrix: list[bool]) -> bool:
    instr = body[position]
    return instr.op == "contract" and any(matrix[arg] for arg in instr.args)


def _late(program: Program, matrix: list[bool], of_state: tuple[bool, ...], stepped: frozenset[int]) -> frozenset[int]:
    """Values that only outputs read and that come from a product of a vector with a matrix of the params.

    Vectors only: keeping matrices of every step for a later product would cost more than it saves.
    """
    body = program.body
    late: set[int] = set()
    for position, instr in enumerate(body):
        product = _is_product(body, position, matrix) and of_state[position] and position not in stepped
        vector = product and all(len(body[arg].axes) <= 1 for arg in instr.args if of_state[arg])
        if vector or any(arg in late for arg in instr.args):
            late.add(position)
    return frozenset(late)


def _taps(body: Body, late: frozenset[int], of_state: tuple[bool, ...], outputs: Iterable[int]) -> list[int]:
    """Values of the state that late values read and that are not late themselves."""
    needed = live(body, (value for value in outputs if value in late))
    return sorted({a for p in needed if p in late for a in body[p].args if a not in late and of_state[a]})


def _plain(program: Program, late: frozenset[int]) -> tuple[int, ...]:
    return tuple(o.value for o in program.outputs if o.value not in late)


def _cut(body: Body, values: set[int]) -> Body:
    """The body in which the given values read nothing."""
    return tuple(replace(instr, op="leaf", args=()) if i in values else instr for i, instr in enumerate(body))


def _core(
    program: Program, before: tuple[tuple[str, int], ...], taps: tuple[tuple[str, int], ...], late: frozenset[int]
) -> Program:
    names = {position: name for name, position in before}
    varies = depends_on(program.body, ("input",))
    body: list[Instr] = [
        replace(instr, op="leaf", args=(), attrs=("input" if varies[i] else "param", names[i]))
        if i in names
        else replace(instr, attrs=(instr.attrs[0], tensor_name(instr.attrs[1])))
        if instr.op == "leaf"
        else instr
        for i, instr in enumerate(program.body)
    ]
    roots = [s.next for s in program.states] + [p for _, p in taps] + list(_plain(program, late))
    needed = live(tuple(body), (*roots, *(s.start for s in program.states)))
    number = {old: new for new, old in enumerate(sorted(needed))}
    kept = tuple(replace(body[p], args=tuple(number[a] for a in body[p].args)) for p in sorted(needed))
    leaves = {i.attrs for i in kept if i.op == "leaf"}
    inputs = [i for i in map(_renamed, program.inputs) if ("input", i.name) in leaves]
    inputs += [
        Input(name, program.body[p].axes, EVERYTHING, False, _span(program, p)) for name, p in before if varies[p]
    ]
    params = [p for p in map(_renamed, program.params) if ("param", p.name) in leaves]
    params += [
        Param(name, program.body[p].axes, Initialiser(), False, _span(program, p))
        for name, p in before
        if not varies[p]
    ]
    outputs = [replace(_renamed(o), value=number[o.value]) for o in program.outputs if o.value not in late]
    outputs += [Output(name, program.body[p].axes, number[p], _span(program, p)) for name, p in taps]
    return replace(
        program,
        inputs=tuple(inputs),
        params=tuple(params),
        states=tuple(replace(_renamed(s), start=number[s.start], next=number[s.next]) for s in program.states),
        gates=(),
        outputs=tuple(outputs),
        body=kept,
    )


def _renamed(item: _Named) -> _Named:
    return replace(item, name=tensor_name(item.name))


def _span(program: Program, position: int) -> Span:
    span = program.body[position].span
    return span if span is not None else program.states[0].span
