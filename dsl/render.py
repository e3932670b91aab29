"""Messages as text for people, and as data for programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .diagnostics import Diagnostic, Label
from .source import Source, Span

TAB = 4
LONGEST = 240
"""Characters of a source line; of a longer one only the part around the mark is shown."""

BOLD, RED, BLUE, RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[1;34m", "\x1b[0m"


def render_all(source: Source, diagnostics: Iterable[Diagnostic], colour: bool = False) -> str:
    """All messages in the order of the text, a blank line between two."""
    ordered = sorted(diagnostics, key=lambda d: (d.span, d.code))
    return "\n".join(render(source, diagnostic, colour) for diagnostic in ordered)


def render(source: Source, diagnostic: Diagnostic, colour: bool = False) -> str:
    """One message with the lines of the source it is about; ends with a line break.

    Tabs count four columns, wide characters two, and what cannot be printed is shown as a replacement character.
    """
    paint = _Paint(colour)
    head = f"error[{diagnostic.code}]"
    lines = [paint(RED, head) + paint(BOLD, f": {printable(diagnostic.message)}")]
    marks = _marks(source, diagnostic)
    shown = sorted({mark.line for mark in marks})
    width = len(str(shown[-1]))
    blank = " " * width
    lines.append(f"{blank}{paint(BLUE, '-->')} {printable(source.at(diagnostic.span))}")
    lines.append(f"{blank} {paint(BLUE, '|')}")
    for before, number in zip((None, *shown), shown, strict=False):
        if before is not None and number > before + 1:
            lines.append(paint(BLUE, "..."))
        text, here = _clip(source.line(number), [mark for mark in marks if mark.line == number])
        lines.append(f"{paint(BLUE, f'{number:>{width}} |')} {expand(text)}".rstrip())
        for under in _underlines([_measured(text, mark) for mark in here], paint):
            lines.append(f"{blank} {paint(BLUE, '|')} {under}")
    for kind, texts in (("note", diagnostic.notes), ("help", diagnostic.helps)):
        for text in texts:
            first, *rest = printable(text).split("\n")
            lines.append(f"{blank} {paint(BLUE, '=')} {paint(BOLD, kind)}: {first}")
            lines += [f"{blank}   {' ' * len(kind)}  {line}" for line in rest]
    return "\n".join(lines) + "\n"


def to_json(source: Source, diagnostic: Diagnostic) -> dict[str, Any]:
    """A message as plain data: lines and columns are one-based, ends are exclusive."""
    return {
        "severity": "error",
        "code": diagnostic.code,
        "message": diagnostic.message,
        "file": source.name,
        "range": _range(source, diagnostic.span),
        "label": diagnostic.label,
        "labels": [{"range": _range(source, label.span), "text": label.text} for label in diagnostic.labels],
        "notes": list(diagnostic.notes),
        "helps": list(diagnostic.helps),
    }


def _range(source: Source, span: Span) -> dict[str, dict[str, int]]:
    places = (("start", source.position(span.start)), ("end", source.position(span.end)))
    return {name: {"line": line, "column": column} for name, (line, column) in places}


# ---------------------------------------------------------------- columns


def printable(text: str) -> str:
    """A text whose control characters and lone surrogates are shown as U+FFFD; line breaks stay."""
    return "".join(c if c == "\n" or _shows(c) else "\ufffd" for c in text)


def expand(text: str) -> str:
    """A source line as it is shown: tabs become spaces, what cannot be printed U+FFFD."""
    return "".join(" " * TAB if c == "\t" else c if _shows(c) else "\ufffd" for c in text)


def _shows(char: str) -> bool:
    return " " <= char <= "~" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")


def columns(text: str) -> int:
    """How many columns of a terminal a piece of a source line takes."""
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if char == "\t":
        return TAB
    if " " <= char <= "~":
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


# ---------------------------------------------------------------- underlines


@dataclass(frozen=True, slots=True)
class _Mark:
    """A run of characters of one line to underline."""

    line: int
    start: int
    end: int
    text: str
    primary: bool


class _Paint:
    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def __call__(self, style: str, text: str) -> str:
        return f"{style}{text}{RESET}" if self.colour and text else text


def _marks(source: Source, diagnostic: Diagnostic) -> list[_Mark]:
    """Every underlined run; a span over several lines is underlined at its first and its last line."""
    marks: list[_Mark] = []
    for label, primary in ((Label(diagnostic.span, diagnostic.label), True), *((x, False) for x in diagnostic.labels)):
        first, _ = source.position(label.span.start)
        last, _ = source.position(max(label.span.start, label.span.end - 1))
        if first == last:
            marks.append(_mark(source, first, label.span, label.text, primary))
        else:
            opening = Span(label.span.start, label.span.start + _rest(source, label.span.start))
            closing = Span(_line_start(source, label.span.end - 1), label.span.end)
            marks.append(_mark(source, first, opening, "", primary))
            marks.append(_mark(source, last, closing, label.text, primary))
    return marks


def _line_start(source: Source, offset: int) -> int:
    """The offset of the first visible character of the line."""
    number, column = source.position(offset)
    line = source.line(number)
    return offset - column + 1 + len(line) - len(line.lstrip())


def _rest(source: Source, offset: int) -> int:
    number, column = source.position(offset)
    return max(1, len(source.line(number).rstrip()) - column + 1)


def _mark(source: Source, number: int, span: Span, text: str, primary: bool) -> _Mark:
    _, column = source.position(span.start)
    return _Mark(number, column - 1, column - 1 + span.end - span.start, printable(text).replace("\n", " "), primary)


def _clip(text: str, marks: list[_Mark]) -> tuple[str, list[_Mark]]:
    """The part of a very long line around its first mark, and the marks moved with it."""
    if len(text) <= LONGEST:
        return text, marks
    first = max(0, min(mark.start for mark in marks) - LONGEST // 4)
    part = text[first : first + LONGEST]
    head = "..." if first else ""
    tail = "..." if first + LONGEST < len(text) else ""
    shift, limit = first - len(head), len(head) + len(part)
    moved = [replace(mark, start=min(mark.start - shift, limit), end=min(mark.end - shift, limit)) for mark in marks]
    return head + part + tail, moved


def _measured(text: str, mark: _Mark) -> _Mark:
    """A mark in columns of the terminal instead of characters, at least one wide."""
    start = columns(text[: mark.start])
    return replace(mark, start=start, end=start + max(1, columns(text[mark.start : mark.end])))


def _underlines(marks: list[_Mark], paint: _Paint) -> list[str]:
    """The lines under one source line: underlines, the last one's text beside it, the others' texts below."""
    ordered = sorted(marks, key=lambda m: (m.start, not m.primary))
    line: list[tuple[str, bool]] = []
    for mark in sorted(ordered, key=lambda m: m.primary):  # the primary one wins where two overlap
        line += [(" ", False)] * (mark.end - len(line))
        line[mark.start : mark.end] = [("^" if mark.primary else "-", mark.primary)] * (mark.end - mark.start)
    last = ordered[-1]
    beside = bool(last.text) and last.end == len(line)
    below = [mark for mark in ordered if mark.text and not (beside and mark is last)]
    first = _join(line, paint)
    rows = [f"{first} {paint(_style(last.primary), last.text)}" if beside else first]
    for index in range(len(below) - 1, -1, -1):
        mark = below[index]
        row = [(" ", False)] * mark.start
        for earlier in below[:index]:
            if earlier.start < mark.start:
                row[earlier.start] = ("|", earlier.primary)
        rows.append(_join(row, paint) + paint(_style(mark.primary), mark.text))
    return [row.rstrip() for row in rows]


def _style(primary: bool) -> str:
    return RED if primary else BLUE


def _join(cells: list[tuple[str, bool]], paint: _Paint) -> str:
    """Cells to text, one colour code per run."""
    out, run = "", ""
    kind = False
    for char, primary in (*cells, ("", not cells[-1][1]) if cells else ("", False)):
        if primary != kind or not char:
            out += paint(_style(kind), run) if run.strip() else run
            run, kind = "", primary
        run += char
    return out + run
