"""Loop nests keep the order of what they compute, for every kernel of every recurrence there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from unit.kernels.against_reference import UNSEEN, ZOO, sizes_of, spec, zoo
from unit.kernels.specs import specs

from recurra.compiler.codegen.cpp import nests_of
from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.lower.kernel_ir import Kernel, Ref, Statement
from recurra.compiler.lower.layout import Label
from recurra.compiler.lower.nests import REDUCTIONS, Nest, Nests
from recurra.compiler.options import KernelOptions

ELSEWHERE = ("select", "entry", "transpose")
"""Operations that read other entries than the one that they compute."""

Labels = tuple[Label, ...]

WRITES = ("assign", "accumulate", "zeros")
"""Operations that change a variable that is there already."""


@dataclass(frozen=True)
class Section:
    """A section of a kernel, and the loop nests that became of it."""

    kernel: Kernel
    name: str
    nests: Nests

    @property
    def statements(self) -> tuple[Statement, ...]:
        return self.kernel.sections[self.name]

    def definitions(self, name: str) -> list[tuple[int, int, Statement]]:
        """Where a value is computed: nest, place in the nest, statement."""
        return [
            (n, place, s)
            for n, nest in enumerate(self.nests.nests)
            for place, s in enumerate(nest.statements)
            if s.target == name
        ]

    def readings(self) -> Iterator[tuple[int, int, Nest, Statement, Ref]]:
        """Every operand: nest, place in the nest, the nest itself, statement, operand."""
        for n, nest in enumerate(self.nests.nests):
            for place, s in enumerate(nest.statements):
                for arg in s.args:
                    if arg.name:
                        yield n, place, nest, s, arg

    def problems(self) -> list[str]:
        """What is wrong with the nests."""
        found = [*self._unordered(), *self._forgotten(), *self._overwritten(), *self._lost()]
        return [f"{self.kernel.name}, {self.name}: {text}" for text in found]

    # ------------------------------------------------------------ order and memory

    def _unordered(self) -> Iterator[str]:
        """Operands that are not there yet, or not where they are looked for."""
        carried, outside = _carried(self.kernel), self._outside()
        for n, place, nest, s, arg in self.readings():
            sources = self.definitions(arg.name)
            if arg.name in carried or arg.name in self.nests.views:
                continue
            if not sources:
                if arg.name not in outside:
                    yield f"{s.target or s.op} reads {arg.name}, which nothing computes"
                continue
            here = [(at, source) for m, at, source in sources if m == n]
            if here:
                ((at, source),) = here
                if at >= place:
                    yield f"{s.target or s.op} reads {arg.name} before it is computed"
                if source.op in REDUCTIONS:
                    yield f"{s.target or s.op} reads the sum {arg.name} before it is complete"
                if s.op in ELSEWHERE or arg.labels != source.labels or not _everywhere(source.labels, nest):
                    yield f"{s.target or s.op} reads other entries of {arg.name} in its own nest"
            elif all(m > n for m, _, _ in sources):
                yield f"{s.target or s.op} reads {arg.name} of a later nest"
            elif not self._is_kept(arg.name):
                yield f"{s.target or s.op} reads {arg.name}, which has no memory outside of its nest"

    def _forgotten(self) -> Iterator[str]:
        """Values that other sections read and that have no memory."""
        others = (body for name, body in self.kernel.sections.items() if name != self.name)
        read = {arg.name for body in others for s in body for arg in s.args if arg.name}
        for name in read & {s.target for nest in self.nests.nests for s in nest.statements}:
            if not self._is_kept(name):
                yield f"other sections read {name}, which has no memory"

    def _is_kept(self, name: str) -> bool:
        return name in self.nests.memory or name in self.nests.homes

    def _outside(self) -> set[str]:
        """What the section finds: values of other sections, and what is kept of the steps of a chunk."""
        others = {s.target for name, body in self.kernel.sections.items() if name != self.name for s in body}
        return others | {t.name for t in self.kernel.tensors if t.place == "segment"}

    # ------------------------------------------------------------ variables that change

    def _overwritten(self) -> Iterator[str]:
        """Old values that are read where the new one already stands, and new ones where it does not stand yet."""
        for order, write in enumerate(self.statements):
            if write.op not in WRITES or write.target not in _carried(self.kernel):
                continue
            for at, place, nest, s, labels in self._places_of(write):
                for n, where, _, reader, arg in self.readings():
                    if arg.name != write.target or reader is s:
                        continue
                    old = reader in self.statements[:order]
                    point = reader.op not in ELSEWHERE and arg.labels == labels and _everywhere(labels, nest)
                    same = n == at and point and s.op not in REDUCTIONS
                    if old and not (n < at or same):
                        yield f"{reader.target or reader.op} reads {arg.name} after it was overwritten"
                    if not old and not (n > at or (same and where > place)):
                        yield f"{reader.target or reader.op} reads {arg.name} before it is written"

    def _places_of(self, write: Statement) -> Iterator[tuple[int, int, Nest, Statement, Labels]]:
        """The statements that write a variable's memory: its own, or that of the value that is computed there."""
        names = {write.target, *(value for value, home in self.nests.homes.items() if home == write.target)}
        for n, nest in enumerate(self.nests.nests):
            for place, s in enumerate(nest.statements):
                if s.target in names and (s.op in WRITES or s.target in self.nests.homes or _adds(s)):
                    yield n, place, nest, s, s.labels

    # ------------------------------------------------------------ nothing is lost

    def _lost(self) -> Iterator[str]:
        """Stores and changes of variables that are not done, or twice."""
        done = Counter(s for nest in self.nests.nests for s in nest.statements)
        for s in self.statements:
            if s.op == "store" and done[s] != 1:
                yield f"a store to {s.attrs[0].name} is done {done[s]} times"
            if s.op in ("assign", "accumulate") and not done[s]:
                (arg,) = s.args
                in_place = s.op == "assign" and self.nests.homes.get(arg.name) == s.target
                summed = s.op == "accumulate" and any(_adds(d) for _, _, d in self.definitions(s.target))
                if not in_place and not summed:
                    yield f"{s.target} does not change"


def _everywhere(labels: Labels, nest: Nest) -> bool:
    """Whether a value has an entry of its own at each point of a nest."""
    return set(labels) == set(nest.labels)


def _adds(s: Statement) -> bool:
    """Whether a sum adds to what its target holds."""
    return s.op == "product_sum" and len(s.attrs) > 2


def _carried(kernel: Kernel) -> set[str]:
    """Variables that sections hand on and change."""
    return {
        s.target
        for name, body in kernel.sections.items()
        for s in body
        if s.op in WRITES or (s.op == "load" and name.endswith("initial"))
    }


def sections(program: Program, *preferred: int) -> list[Section]:
    made = compile_kernels(program, sizes_of(program, *preferred), KernelOptions(), backend="cpu")
    return [Section(kernel, name, nests) for kernel in made.kernels for name, nests in nests_of(kernel).items()]


@pytest.mark.parametrize("path", [*ZOO, *UNSEEN], ids=lambda path: path.stem)
def test_nests_of_every_kernel(path: Path) -> None:
    """At sizes at which weights are read in place, and at which they are copied."""
    program = spec(path.read_text(encoding="utf-8"), path.name)
    for preferred in ((5, 3), (80, 96)):
        found = sections(program, *preferred)
        assert len({section.kernel.name for section in found}) in (4, 5) and any(s.nests.nests for s in found)
        assert not [problem for section in found for problem in section.problems()]


@given(specs())
def test_nests_of_drawn_kernels(text: str) -> None:
    assert not [problem for section in sections(spec(text), 2, 3) for problem in section.problems()]


# ---------------------------------------------------------------- the check itself


def _turned(nests: Nests) -> Nests:
    return replace(nests, nests=nests.nests[::-1])


def _forgetful(nests: Nests) -> Nests:
    return replace(nests, memory={})


def _without_stores(nests: Nests) -> Nests:
    kept = (replace(n, statements=tuple(s for s in n.statements if s.op != "store")) for n in nests.nests)
    return replace(nests, nests=tuple(kept))


def _too_early(nests: Nests) -> Nests:
    """What is computed in the memory of a state, before all others that read the state."""
    (value,) = nests.homes
    first = next(n for n in nests.nests if any(s.target == value for s in n.statements))
    return replace(nests, nests=(first, *(n for n in nests.nests if n is not first)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_turned, "of a later nest"),
        (_forgetful, "has no memory"),
        (_without_stores, "a store to o is done 0 times"),
        (_too_early, "after it was overwritten"),
    ],
)
def test_what_is_wrong_is_seen(change: Callable[[Nests], Nests], message: str) -> None:
    (step,) = (s for s in sections(zoo("delta_net"), 5, 3) if s.kernel.name == "delta_net_infer" and s.name == "step")
    assert not step.problems()
    assert any(message in problem for problem in replace(step, nests=change(step.nests)).problems())
