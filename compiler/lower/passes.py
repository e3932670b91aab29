"""A recurrence as a chain of passes over the sequence, each with a strategy of its own.

States that others read but that read none of them come first (strata): a running maximum is a pass by itself, and for
the memory that it stabilises it is an input. The same holds for read-outs: the second memory of a chain is asked
with what came out of the first. What a pass hands on are vectors per step: states, and what queries read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..analysis.structure import strata
from ..ir.program import Input, Output, Program, State, live
from ..ir.types import EVERYTHING, Axes


@dataclass(frozen=True)
class Pass:
    """One pass: a program of its own, whose inputs named ``between_...`` are outputs of earlier passes."""

    program: Program
    handed: tuple[str, ...]
    """Names of its outputs that later passes read and the caller does not see."""


class NotSeparable(Exception):
    """Why states cannot be taken one group after the other."""


def passes(program: Program, fits: Callable[[Program], bool]) -> tuple[Pass, ...]:
    """The passes of a program in order; groups on one level are taken together where the joint program ``fits``.

    NotSeparable if a later group would need a whole matrix of every step.
    """
    maker = _Maker(program)
    order: list[list[str]] = []
    for level in maker.levels():
        joined: list[list[str]] = []
        for group in level:
            for other in joined:
                if fits(_draft(maker, [*other, *group], order)):
                    other += group
                    break
            else:
                joined.append(list(group))
        order += joined
    return maker.build(order)


def _draft(maker: _Maker, group: Sequence[str], before: Sequence[Sequence[str]]) -> Program:
    """The program of a group on its own, for judging: its states, transitions, and the outputs that it completes."""
    taken = {*group, *(name for names in before for name in names)}
    rest = [names for level in maker.levels() for names in level if not taken & set(names)]
    order = [*before, list(group), *rest]
    return maker.build(order)[len(before)].program


class _Maker:
    def __init__(self, program: Program) -> None:
        self.program, self.body = program, program.body
        self.owner_states = self._states_of_values()
        self.basis: dict[int, str] = {}
        for state in program.states:
            self.basis[state.next] = state.name
        for position, instr in enumerate(self.body):
            if instr.op == "leaf" and instr.attrs[0] == "state":
                self.basis[position] = instr.attrs[1]

    def _states_of_values(self) -> list[frozenset[str]]:
        found: list[frozenset[str]] = []
        for instr in self.body:
            own = frozenset((instr.attrs[1],)) if instr.op == "leaf" and instr.attrs[0] == "state" else frozenset()
            found.append(own.union(*(found[arg] for arg in instr.args)))
        return found

    # ------------------------------------------------------------ order

    def levels(self) -> list[list[tuple[str, ...]]]:
        """Groups of states that read each other, level by level."""
        reads = {s.name: tuple(sorted(self.owner_states[s.next])) for s in self.program.states}
        for name, others in self._queries().items():
            reads[name] = tuple(dict.fromkeys((*reads[name], *others)))
        groups = strata(reads)
        level: dict[str, int] = {}
        for group in groups:
            before = {other for name in group for other in reads[name]} - set(group)
            at = max((level[other] + 1 for other in before), default=0)
            level |= dict.fromkeys(group, at)
        return [[g for g in groups if level[g[0]] == at] for at in range(max(level.values(), default=-1) + 1)]

    def _queries(self) -> dict[str, set[str]]:
        """For each state the states that what it is read with depends on."""
        found: dict[str, set[str]] = {s.name: set() for s in self.program.states}
        for position in live(self.body, (o.value for o in self.program.outputs)):
            for name in self._read_by(position):
                for arg in self.body[position].args:
                    found[name] |= self.owner_states[arg] - {name}
        transitions = {s.name: self.owner_states[s.next] for s in self.program.states}
        return {name: {o for o in others if name not in transitions[o]} for name, others in found.items()}

    def _read_by(self, position: int) -> set[str]:
        """The states of which a value is a reduction: whole operands in, fewer axes out."""
        instr = self.body[position]
        if instr.op not in ("contract", "sum", "amax") or position in self.basis:
            return set()
        return {name for arg in instr.args for name in self._whole(arg) if self._lost(instr.axes, name)}

    def _lost(self, axes: Axes, state: str) -> bool:
        own = next(s for s in self.program.states if s.name == state)
        return not {axis.name for axis in own.axes} <= {axis.name for axis in axes}

    def _whole(self, position: int) -> set[str]:
        """The states of which a value has every entry."""
        if position in self.basis:
            return {self.basis[position]}
        instr = self.body[position]
        found = {name for arg in instr.args for name in self._whole(arg)}
        return {name for name in found if not self._lost(instr.axes, name)}

    # ------------------------------------------------------------ programs

    def build(self, order: Sequence[Sequence[str]]) -> tuple[Pass, ...]:
        """The passes in this order."""
        place = {name: index for index, group in enumerate(order) for name in group}
        last = len(order) - 1

        def owner(position: int) -> int:
            return max((place[name] for name in self.owner_states[position]), default=-1)

        outputs: dict[int, list[Output]] = {index: [] for index in range(len(order))}
        for output in self.program.outputs:
            at = owner(output.value)
            outputs[last if at < 0 else at].append(output)
        handed: dict[int, dict[int, str]] = {index: {} for index in range(len(order))}
        made: list[Pass] = []
        for index in range(last, -1, -1):
            states = [s for s in self.program.states if place[s.name] == index]
            own = [*outputs[index], *(self._output(name, p) for p, name in handed[index].items())]
            roots = [*(s.next for s in states), *(o.value for o in own)]
            cuts = self._cuts(roots, index, owner)
            for position in cuts:
                taken = handed[owner(position)]
                taken.setdefault(position, self._name(f"between_{owner(position)}_{len(taken)}"))
            names = {p: handed[owner(p)][p] for p in cuts}
            made.append(Pass(self._program(states, own, names), tuple(handed[index].values())))
        return tuple(reversed(made))

    def _name(self, name: str) -> str:
        """A name like this that the author does not use."""
        items = (*self.program.leaves(), *self.program.outputs)
        while any(item.name == name for item in items):
            name += "_"
        return name

    def _cuts(self, roots: Iterable[int], index: int, owner: Callable[[int], int]) -> list[int]:
        """Values of earlier passes that the roots need."""
        found: dict[int, None] = {}
        stack, seen = list(roots), set[int]()
        while stack:
            position = stack.pop()
            if position in seen:
                continue
            seen.add(position)
            at = owner(position)
            if 0 <= at < index and (position in self.basis or self._read_by(position)):
                if len(self.body[position].axes) > 1:
                    raise NotSeparable(f"a later part reads all of `{self.basis.get(position, 'a state')}`")
                found[position] = None
            else:
                stack += self.body[position].args
        return sorted(found)

    def _output(self, name: str, position: int) -> Output:
        span = self.body[position].span or self.program.states[0].span
        return Output(name, self.body[position].axes, position, span)

    def _program(self, states: Sequence[State], outputs: Sequence[Output], cuts: Mapping[int, str]) -> Program:
        program = self.program
        body = tuple(
            replace(instr, op="leaf", args=(), attrs=("input", cuts[p])) if p in cuts else instr
            for p, instr in enumerate(self.body)
        )
        roots = [*(s.next for s in states), *(s.start for s in states), *(o.value for o in outputs)]
        needed = sorted(live(body, roots))
        number = {old: new for new, old in enumerate(needed)}
        kept = tuple(replace(body[p], args=tuple(number[a] for a in body[p].args)) for p in needed)
        leaves = {instr.attrs for instr in kept if instr.op == "leaf"}
        span = program.states[0].span
        between = [
            Input(name, self.body[p].axes, EVERYTHING, False, self.body[p].span or span) for p, name in cuts.items()
        ]
        return replace(
            program,
            states=tuple(replace(s, start=number[s.start], next=number[s.next]) for s in states),
            inputs=(*(i for i in program.inputs if ("input", i.name) in leaves), *between),
            params=tuple(p for p in program.params if ("param", p.name) in leaves),
            outputs=tuple(replace(o, value=number[o.value]) for o in outputs),
            gates=(),
            body=kept,
        )
