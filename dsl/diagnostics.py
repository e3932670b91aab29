"""What a message about a `.rec` file is made of, before it is rendered."""

from __future__ import annotations

from dataclasses import dataclass

from .source import Source, Span


@dataclass(frozen=True, slots=True)
class Label:
    """Text under a second place of the source that explains the first."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message: a registered code, what is wrong, where, and what to write instead.

    ``message`` is one sentence without a final stop. ``label`` stands under the primary span,
    ``labels`` under other places. ``notes`` state facts, ``helps`` say what to write instead.
    """

    code: str
    message: str
    span: Span
    label: str = ""
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()


class SpecError(Exception):
    """A `.rec` text that cannot be compiled: all its independent errors, in the order of the text."""

    def __init__(self, source: Source, diagnostics: tuple[Diagnostic, ...]) -> None:
        self.source = source
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: (d.span, d.code)))
        super().__init__(source, self.diagnostics)

    def __str__(self) -> str:
        from .render import render_all  # late: render imports this module's classes

        return render_all(self.source, self.diagnostics)
