"""Lines of generated code that remember where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from ...dsl.source import Span


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a block, without its indentation, and where it comes from."""

    text: str
    span: Span | None = None
