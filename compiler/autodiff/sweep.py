"""What a pass over the sequence is made of, whatever it carries and in whichever direction it walks."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.program import Body, live
from ..ir.types import Axes
from .reverse import Named

FLOW = "flow"
"""The name of the flow (see two_pass.py) among kept leaves."""


@dataclass(frozen=True)
class Row:
    """A value per step that one pass writes for others: leaf ("saved", ``name``) where it is read."""

    name: str
    value: int
    axes: Axes


@dataclass(frozen=True)
class Sweep:
    """One pass: a body, new values of what it carries by state, what it writes per step, gradients and the new flow."""

    body: Body
    carried: tuple[tuple[str, int], ...] = ()
    rows: tuple[Row, ...] = ()
    inputs: Named = ()
    params: Named = ()
    flow: int | None = None

    def roots(self) -> tuple[int, ...]:
        found = [v for _, v in (*self.carried, *self.inputs, *self.params) if v is not None]
        return (*found, *(row.value for row in self.rows), *(() if self.flow is None else (self.flow,)))


def saved_rows(sweep: Sweep) -> set[str]:
    """The rows that a pass reads."""
    body = sweep.body
    return {body[p].attrs[1] for p in live(body, sweep.roots()) if body[p].op == "leaf" and body[p].attrs[0] == "saved"}
