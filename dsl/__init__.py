"""The language front end: `.rec` text to syntax tree, messages about it, and its layout.

Nothing is imported until it is asked for, so that importing one module of the package costs no more than that module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codes import explain as explain
    from .diagnostics import Diagnostic as Diagnostic
    from .diagnostics import SpecError as SpecError
    from .formatter import format_source as format_source
    from .parser import parse as parse
    from .parser import parse_partial as parse_partial
    from .render import render_all as render_all
    from .source import Source as Source
    from .source import Span as Span

_HOMES = {
    "Diagnostic": "diagnostics",
    "Source": "source",
    "Span": "source",
    "SpecError": "diagnostics",
    "explain": "codes",
    "format_source": "formatter",
    "parse": "parser",
    "parse_partial": "parser",
    "render_all": "render",
}

__all__ = [
    "Diagnostic",
    "Source",
    "Span",
    "SpecError",
    "explain",
    "format_source",
    "parse",
    "parse_partial",
    "render_all",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
