"""Collecting messages: every mistake once, and nothing about what only follows from one."""

from __future__ import annotations

from collections.abc import Iterable

from ...dsl.diagnostics import Diagnostic, Label
from ...dsl.source import Source, Span
from ...dsl.suggest import closest


class Mistake(Exception):
    """An error in the spec, raised where it is found and reported by the expression around it."""

    def __init__(
        self,
        code: str,
        message: str,
        span: Span,
        label: str = "",
        *helps: str,
        labels: Iterable[Label] = (),
        notes: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.diagnostic = Diagnostic(code, message, span, label, tuple(labels), tuple(notes), helps)


class Silent(Exception):
    """An expression that reads something erroneous: it is erroneous too, and that has been said already."""


class Report:
    """The messages so far; the same message at the same place is kept once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._found: dict[tuple[Span, str], Diagnostic] = {}

    def add(self, mistake: Mistake) -> None:
        found = mistake.diagnostic
        self._found.setdefault((found.span, found.code), found)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(self._found.values())

    def line(self, span: Span) -> int:
        """The one-based line of a place."""
        return self.source.position(span.start)[0]


def did_you_mean(word: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """A help that names the candidate most like a word, if one is near."""
    near = closest(word, candidates)
    return (f"did you mean `{near}`?",) if near else ()


def listed(words: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
