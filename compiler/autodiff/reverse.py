"""The reverse pass over a body, and the adjoint of a recurrence's step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.builder import Builder
from ..ir.program import Body, Instr, Program
from .rules import RULES, Site

Named = tuple[tuple[str, int | None], ...]


def reverse(builder: Builder, seeds: Mapping[int, int], wrt: Sequence[int]) -> dict[int, int | None]:
    """Append the adjoint of a body: the cotangent of each value in ``wrt``, None where it is zero.

    ``seeds`` gives values of the body and their cotangents, values of the same axes. Only what
    depends on ``wrt`` is walked, from the last seed to the front; instructions carry the span of the
    value they differentiate.
    """
    cotangents: dict[int, int] = dict(seeds)
    end = max(cotangents, default=-1) + 1
    reaches = _reaches(builder.body[:end], wrt)
    span = builder.span
    for position in range(end - 1, -1, -1):
        if position not in cotangents or not reaches[position]:
            continue
        instr = builder.body[position]
        builder.span = instr.span
        site = Site(builder, instr, position, cotangents[position])
        for arg, rule in zip(instr.args, RULES[instr.op], strict=True):
            if rule is None or not reaches[arg]:
                continue
            part = rule(site)
            cotangents[arg] = builder.add(cotangents[arg], part) if arg in cotangents else part
    builder.span = span
    return {value: cotangents.get(value) for value in wrt}


def _reaches(body: Sequence[Instr], wrt: Sequence[int]) -> list[bool]:
    """For each value, whether it depends on one of ``wrt``."""
    wanted = set(wrt)
    result: list[bool] = []
    for position, instr in enumerate(body):
        result.append(position in wanted or any(result[arg] for arg in instr.args))
    return result


@dataclass(frozen=True)
class AdjointStep:
    """One step and its adjoint in one body, the step's own instructions first.

    ``seeds`` names the ``cotangent`` leaves: ``o`` for output ``o``, ``S'`` for the new state of
    ``S``, each with its position in the body. ``inputs``, ``params`` and ``states`` give, in
    declaration order, the cotangents of inputs, of learned params and of *old* states; None is zero.
    ``next`` are the values of the new states, ``own`` is how many values are the step's own.
    """

    body: Body
    seeds: tuple[tuple[str, int], ...]
    inputs: Named
    params: Named
    states: Named
    next: tuple[int, ...]
    own: int

    def roots(self) -> tuple[int, ...]:
        """The values of the adjoint: every cotangent that is not zero."""
        return tuple(value for _, value in (*self.states, *self.inputs, *self.params) if value is not None)


def adjoint_step(program: Program) -> AdjointStep:
    """The adjoint of one step, from the cotangents of its outputs and new states.

    Frozen params get no gradient.
    """
    builder = Builder(program.body)
    named = [(state.name + "'", state.next, state.axes, state.span) for state in program.states]
    named += [(output.name, output.value, output.axes, output.span) for output in program.outputs]
    seeds: dict[int, int] = {}
    leaves = []
    for name, value, axes, span in named:
        builder.span = span
        leaf = builder.leaf("cotangent", name, axes)
        leaves.append((name, leaf))
        seeds[value] = builder.add(seeds[value], leaf) if value in seeds else leaf
    positions = {i.attrs: p for p, i in enumerate(program.body) if i.op == "leaf"}
    asked = [("input", i.name) for i in program.inputs]
    asked += [("param", p.name) for p in program.params if not p.frozen]
    asked += [("state", s.name) for s in program.states]
    found = reverse(builder, seeds, [positions[leaf] for leaf in asked if leaf in positions])

    def cotangents(kind: str) -> Named:
        return tuple((name, found.get(positions.get((k, name), -1))) for k, name in asked if k == kind)

    return AdjointStep(
        tuple(builder.body),
        tuple(leaves),
        cotangents("input"),
        cotangents("param"),
        cotangents("state"),
        tuple(state.next for state in program.states),
        len(program.body),
    )
