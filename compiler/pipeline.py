"""The front half of the compiler on one page: text to a typed recurrence and the facts about it.

A stage is a pure function of the results before it. A stage that finds mistakes in the text returns them beside what
is right of it, so that later stages can find the mistakes that do not depend on those: all are raised together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType
from typing import Any

from ..dsl import ast
from ..dsl.diagnostics import Diagnostic, SpecError
from ..dsl.dump import dump
from ..dsl.parser import parse_partial
from ..dsl.source import Source
from .analysis.structure import TransitionFacts, classify, show_facts
from .checks import check_layer, check_ranges
from .frontend.elaborate import elaborate_partial
from .ir.program import Program, show_body
from .ir.verify import check_program
from .options import Options

Results = Mapping[str, Any]
Diagnostics = tuple[Diagnostic, ...]


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    ``run`` maps the source, the options and the results so far to a result and messages; ``show`` writes the
    result as text, ``verify`` raises IllFormed if it breaks the rules of its form. A ``strict`` stage only runs on
    a text without mistakes.
    """

    name: str
    what: str
    run: Callable[[Source, Options, Results], tuple[Any, Diagnostics]]
    show: Callable[[Any], str]
    verify: Callable[[Any], None] | None = None
    strict: bool = False


@dataclass(frozen=True)
class Result:
    """What a stage made, and the seconds it took."""

    stage: Stage
    value: Any
    seconds: float

    def __str__(self) -> str:
        return self.stage.show(self.value)


@dataclass(frozen=True)
class Compiled:
    """A recurrence after all stages, which ``stages`` gives by name in their order."""

    source: Source
    options: Options
    stages: Mapping[str, Result]

    @property
    def tree(self) -> ast.Recurrence:
        """The syntax tree."""
        tree: ast.Recurrence = self.stages["parse"].value[0]
        return tree

    @property
    def program(self) -> Program:
        """The typed recurrence."""
        program: Program = self.stages["elaborate"].value
        return program

    @property
    def facts(self) -> tuple[TransitionFacts, ...]:
        """What is known of every state's transition."""
        facts: tuple[TransitionFacts, ...] = self.stages["analyse"].value
        return facts

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_source, (self.source, self.options)


def compile_source(source: Source, options: Options | None = None) -> Compiled:
    """Run every stage; SpecError with all independent mistakes of the text."""
    options = options or Options()
    results: dict[str, Result] = {}
    values: dict[str, Any] = {}
    mistakes: list[Diagnostic] = []
    for stage in STAGES:
        if mistakes and stage.strict:
            break
        began = perf_counter()
        value, found = stage.run(source, options, values)
        mistakes += found
        if value is None:
            break
        if stage.verify is not None and not mistakes:
            stage.verify(value)
        values[stage.name] = value
        results[stage.name] = Result(stage, value, perf_counter() - began)
    if mistakes:
        raise SpecError(source, tuple(mistakes))
    return Compiled(source, options, MappingProxyType(results))


# ---------------------------------------------------------------- the stages


def _parse(source: Source, options: Options, results: Results) -> tuple[Any, Diagnostics]:
    tree, mistakes, lost = parse_partial(source)
    return (None if tree is None else (tree, lost)), mistakes


def _elaborate(source: Source, options: Options, results: Results) -> tuple[Program, Diagnostics]:
    tree, lost = results["parse"]
    return elaborate_partial(tree, dict(options.consts), lost)


def _check(source: Source, options: Options, results: Results) -> tuple[Any, Diagnostics]:
    tree, lost = results["parse"]
    ranges, mistakes = check_ranges(results["elaborate"])
    return ranges, (*mistakes, *check_layer(tree, lost))


def _analyse(source: Source, options: Options, results: Results) -> tuple[Any, Diagnostics]:
    return classify(results["elaborate"]), ()


STAGES: tuple[Stage, ...] = (
    Stage("parse", "the syntax tree", _parse, lambda value: dump(value[0])),
    Stage("elaborate", "the typed step", _elaborate, lambda value: show_body(value.body), check_program),
    Stage("check", "the ranges of gates", _check, lambda value: "\n".join(f"{k} in {v}" for k, v in value.items())),
    Stage("analyse", "what kind of transition it is", _analyse, show_facts, strict=True),
)
"""Every stage of the front half, in order."""
