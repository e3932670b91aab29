"""In which order statements are evaluated: what a new state needs comes first, and nothing may need itself."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.source import Span
from .clashes import ast_names
from .report import Mistake, Report

Unit = ast.Gate | ast.Let | ast.Output | ast.Transition


@dataclass(frozen=True, slots=True)
class Read:
    """A unit reads what another one makes, under a name, at a place."""

    target: int
    shown: str
    span: Span


def assigned(items: Sequence[ast.Assign | ast.Let | ast.Repeat]) -> Iterator[ast.Ident]:
    """The states that a transition assigns, once for every time they are written."""
    for item in items:
        if isinstance(item, ast.Assign):
            yield item.name
        elif isinstance(item, ast.Repeat):
            yield from assigned(item.body)


def expressions(unit: Unit) -> Iterator[ast.Expr]:
    """The expressions of a unit, in the order of the text."""
    if not isinstance(unit, ast.Transition):
        yield unit.value
        return
    pending = list(reversed(unit.body))
    while pending:
        item = pending.pop()
        if isinstance(item, ast.Repeat):
            yield item.bound
            pending += reversed(item.body)
        else:
            yield item.value


def names_of(expr: ast.Expr, functions: Mapping[str, ast.Def]) -> Iterator[ast.Name]:
    """The names that an expression uses, also through the functions that it calls (those at the call's place)."""
    yield from ast_names(expr)
    seen: set[str] = set()
    pending = [(call.function, call.function_span) for call in _calls(expr)]
    while pending:
        name, span = pending.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        function = functions[name]
        own = {ident.id for ident in function.parameters}
        for found in ast_names(function.body):
            if found.primed or found.id not in own:
                yield ast.Name(span, found.id, found.primed)
        pending += [(call.function, span) for call in _calls(function.body)]


def calls_any(expr: ast.Expr, functions: Container[str]) -> bool:
    """Whether an expression calls one of some functions."""
    return any(call.function in functions for call in _calls(expr))


def _calls(expr: ast.Expr) -> Iterator[ast.Call]:
    match expr:
        case ast.Call(args=args):
            yield expr
            for arg in args:
                yield from _calls(arg)
        case ast.Unary(operand=inner) | ast.Transpose(value=inner):
            yield from _calls(inner)
        case ast.Binary(left=left, right=right) | ast.Index(value=left, index=right):
            yield from _calls(left)
            yield from _calls(right)
        case ast.Slice(value=value):
            yield from _calls(value)


def in_order(units: Sequence[Unit], functions: Mapping[str, ast.Def], report: Report) -> list[int]:
    """The units so that each comes after those it reads, else as in the file.

    Units that need themselves are left out, with one message for each circle.
    """
    reads = _reads(units, functions)
    done: dict[int, bool] = {}
    ordered: list[int] = []
    for first in range(len(units)):
        if first not in done:
            _visit(first, reads, done, ordered, report)
    return ordered


def _reads(units: Sequence[Unit], functions: Mapping[str, ast.Def]) -> list[list[Read]]:
    makers: dict[str, int] = {}
    for i, unit in enumerate(units):
        if isinstance(unit, ast.Transition):
            for ident in assigned(unit.body):
                makers.setdefault(f"{ident.id}'", i)
        elif not isinstance(unit, ast.Output):
            makers.setdefault(unit.name.id, i)
    result: list[list[Read]] = []
    for i, unit in enumerate(units):
        found: dict[int, Read] = {}
        for expr in expressions(unit):
            for name in names_of(expr, functions):
                shown = f"{name.id}'" if name.primed else name.id
                target = makers.get(shown)
                if target is None or (target == i and isinstance(unit, ast.Transition) and unit.block):
                    continue
                if not name.primed and (target >= i or not isinstance(units[target], ast.Let | ast.Gate)):
                    continue  # names are declared before use: the name's own message says so
                found.setdefault(target, Read(target, shown, name.span))
        result.append(list(found.values()))
    return result


def _visit(first: int, reads: list[list[Read]], done: dict[int, bool], ordered: list[int], report: Report) -> None:
    """Depth first without recursion; ``done`` is False while a unit is on the path and after it failed."""
    path: list[tuple[int, Iterator[Read], Read | None]] = [(first, iter(reads[first]), None)]
    on_path = {first}
    failed: set[int] = set()
    while path:
        unit, pending, _ = path[-1]
        read = next(pending, None)
        if read is None:
            path.pop()
            on_path.discard(unit)
            done[unit] = unit not in failed
            if done[unit]:
                ordered.append(unit)
        elif read.target in on_path:
            start = next(i for i, (u, _, _) in enumerate(path) if u == read.target)
            circle = [step for _, _, step in path[start + 1 :] if step is not None] + [read]
            if not failed & {u for u, _, _ in path[start:]}:
                report.add(_circle(circle))
            failed.update(u for u, _, _ in path[start:])
        elif read.target not in done:
            path.append((read.target, iter(reads[read.target]), read))
            on_path.add(read.target)


def _circle(reads: Sequence[Read]) -> Mistake:
    last = reads[-1]
    if len(reads) == 1:
        return Mistake(
            "E0402",
            f"`{last.shown}` depends on itself",
            last.span,
            "",
            f"`{last.shown.rstrip(chr(39))}` is the state before the step",
            "sub-steps go into a block: `transition { ... }`",
        )
    # `a` reads `b` under b's name: the circle starts and ends with what the last read names.
    names = [last.shown, *(read.shown for read in reads)]
    primed = next((read.shown for read in reads if read.shown.endswith("'")), last.shown)
    return Mistake(
        "E0402",
        f"new states depend on each other in a circle: {' -> '.join(names)}",
        last.span,
        f"`{last.shown}` is needed before it is there",
        f"break the circle with the state before the step, such as `{primed.rstrip(chr(39))}` for `{primed}`",
        labels=[Label(read.span, f"reads `{read.shown}`") for read in reads[:-1]],
    )
