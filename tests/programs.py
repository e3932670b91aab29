"""Programs built by hand: declarations are what matters here, every state keeps its value."""

from __future__ import annotations

from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.program import Dim, Initialiser, Input, Output, Param, Program, State
from recurra.compiler.ir.size import Size
from recurra.compiler.ir.types import EVERYTHING, Axes, Axis, Interval
from recurra.dsl.source import Source, Span

SPAN = Span(0, 0)


def axes(text: str) -> Axes:
    """``"K V 2 M-2"``: names are dimensions, numbers constants."""
    found = []
    for word in text.split():
        name, _, minus = word.partition("-")
        size = Size(int(name)) if name.isdigit() else Size.of(name) - Size(int(minus or 0))
        found.append(Axis(word, size))
    return tuple(found)


def declare(
    *,
    dims: str = "K V",
    aliases: dict[str, str] | None = None,
    states: dict[str, str],
    inputs: dict[str, str],
    params: dict[str, str] | None = None,
    ranges: dict[str, Interval] | None = None,
    unit: tuple[str, ...] = (),
    inits: dict[str, Initialiser] | None = None,
) -> Program:
    """A program with these declarations, whose states stay and whose output is its first state."""
    builder = Builder()
    start = builder.const(0.0)
    leaves = {name: builder.leaf("state", name, axes(text)) for name, text in states.items()}
    first, text = next(iter(states.items()))
    return Program(
        "demo",
        "",
        (
            *(Dim(name, None, SPAN) for name in dims.split()),
            *(Dim(name, to, SPAN) for name, to in (aliases or {}).items()),
        ),
        (),
        tuple(State(name, axes(text), start, leaves[name], SPAN) for name, text in states.items()),
        tuple(
            Input(name, axes(text), (ranges or {}).get(name, EVERYTHING), name in unit, SPAN)
            for name, text in inputs.items()
        ),
        tuple(
            Param(name, axes(text), (inits or {}).get(name, Initialiser()), False, SPAN)
            for name, text in (params or {}).items()
        ),
        (),
        (Output("o", axes(text), leaves[first], SPAN),),
        tuple(builder.body),
        None,
        Source("demo.rec", ""),
    )
