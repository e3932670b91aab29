"""How large a benchmark is: sequences, steps, heads and the size of every dimension."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat

from ...compiler.checks import check_sizes
from ...dsl.suggest import closest
from ..errors import CallError
from ..recurrence import Recurrence
from ..verify.data import fitting_sizes

LEAD = {"B": 2, "T": 1024, "H": 4}
"""Sequences, steps and heads, with their defaults."""

SIZE = 64
"""The default of every dimension."""


@dataclass(frozen=True)
class Shape:
    """Sequences ``batch``, ``steps``, ``heads``, and ``sizes`` for every dimension of one recurrence."""

    batch: int
    steps: int
    heads: int
    sizes: Mapping[str, int]

    @property
    def lead(self) -> tuple[int, int, int]:
        """The leading dimensions of inputs and outputs."""
        return self.batch, self.steps, self.heads

    def as_data(self) -> dict[str, int]:
        """Plain data for JSON: ``B``, ``T``, ``H``, then the dimensions."""
        return {"B": self.batch, "T": self.steps, "H": self.heads, **self.sizes}

    def __str__(self) -> str:
        return " ".join(f"{name}={size}" for name, size in self.as_data().items())


def shape_of(recurrence: Recurrence, given: Mapping[str, int]) -> Shape:
    """The shape for one recurrence; entries of ``given`` that it does not have are meant for others.

    A dimension that is not given is 64, or the next size above that slices of the spec allow. CallError
    for sizes below 1 and for those that a slice does not fit into. A recurrence without inputs has one
    sequence, as nothing says otherwise.
    """
    for name, size in given.items():
        if size < 1:
            raise CallError(recurrence.name, name, "must be a whole number >= 1", came=str(size))
    program = recurrence.program
    own = {name: size for name, size in given.items() if name in recurrence.dims and name not in LEAD}
    sizes = fitting_sizes(program, repeat(SIZE), recurrence.bind_sizes(own))
    problems = check_sizes(program, sizes)
    if problems:
        raise CallError(recurrence.name, "", problems[0])
    batch, steps, heads = (given.get(name, default) for name, default in LEAD.items())
    return Shape(batch if program.inputs else 1, steps, heads, sizes)


def check_names(given: Iterable[str], recurrences: Iterable[Recurrence]) -> None:
    """ValueError for a name that is neither B, T, H nor a dimension of any of the recurrences."""
    known = dict.fromkeys([*LEAD, *(dim for recurrence in recurrences for dim in recurrence.dims)])
    for name in given:
        if name not in known:
            guess = closest(name, known)
            hint = f"did you mean {guess}?" if guess else f"there are {', '.join(known)}"
            raise ValueError(f"no size {name}; {hint}")
