"""What each piece of a `.rec` text is, for colours in a terminal or an editor."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .lexer import OPERATORS, Token, scan
from .parser import keywords
from .source import Source, Span

STYLES: dict[str, str] = {
    "keyword": "\x1b[1;35m",
    "function": "\x1b[34m",
    "state": "\x1b[1;33m",
    "number": "\x1b[36m",
    "comment": "\x1b[2m",
    "doc": "\x1b[32m",
    "error": "\x1b[31m",
}
"""Terminal colours by kind; names, operators and spaces keep the terminal's own."""

KINDS: dict[str, str] = {
    "SPACE": "space", "NEWLINE": "space", "COMMENT": "comment", "DOC": "doc", "NUMBER": "number", "IN": "keyword",
    "PRIMED": "state", "TRANSPOSE": "operator",
    "OPEN_DOC": "error", "STRING": "error", "FOREIGN": "error", "ILLEGAL": "error", "BAD_NUMBER": "error",
}  # fmt: skip


def pieces(source: Source) -> Iterator[tuple[Span, str]]:
    """Every piece of the text in order with its kind: a key of ``STYLES``, ``name``, ``operator`` or ``space``.

    Works on any text, broken ones too; the pieces cover it without gaps.
    """
    marked = keywords(source)
    tokens = list(scan(source.text))
    for token, after in zip(tokens, [*tokens[1:], None], strict=False):
        yield token.span, _kind(token, after, marked)


def _kind(token: Token, after: Token | None, marked: dict[int, str]) -> str:
    if token.start in marked:
        return "keyword"
    if token.type == "NAME":
        return "function" if after is not None and after.type == "LPAR" else "name"
    return KINDS.get(token.type, "operator" if token.text in OPERATORS else "name")


def to_terminal(source: Source) -> str:
    """The text with ANSI colours."""
    return "".join(
        f"{STYLES[kind]}{source.text[span.start : span.end]}\x1b[0m"
        if kind in STYLES
        else source.text[span.start : span.end]
        for span, kind in pieces(source)
    )


def to_html(source: Source) -> str:
    """The text as a ``<pre>`` element whose pieces carry the classes ``rec-keyword``, ``rec-number``, ..."""
    parts = []
    for span, kind in pieces(source):
        text = escape(source.text[span.start : span.end])
        parts.append(f'<span class="rec-{kind}">{text}</span>' if kind in STYLES else text)
    return f'<pre class="rec">{"".join(parts)}</pre>'
