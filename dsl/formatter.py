"""One layout for every `.rec` file.

Works on tokens, so that comments, numbers and parentheses stay as they were written. Line breaks inside brackets
and one-line blocks stay where the author put them; spaces, indentation and blank lines are decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .lexer import Token, scan
from .parser import keywords, parse
from .source import Source

INDENT = "  "

BEFORE_VALUE = frozenset({
    "PLUS", "MINUS", "STAR", "SLASH", "AT", "CARET", "LT", "LE", "GT", "GE", "EQUAL", "UNEQUAL", "_EQ", "_COMMA",
    "COLON", "LPAR", "LSQB", "IN", "INIT",
})  # fmt: skip
"""Tokens after which a minus is a sign and not a difference."""

TIGHT_BEFORE = frozenset({"_COMMA", "COLON", "CARET", "RPAR", "RSQB", "TRANSPOSE", "SEMICOLON"})
"""Tokens without a space before them."""

TIGHT_AFTER = frozenset({"LPAR", "LSQB", "COLON", "CARET", "SIGN"})
"""Tokens without a space after them."""

CALLABLE = frozenset({"NAME", "PRIMED", "RPAR", "RSQB", "TRANSPOSE", "NUMBER"})
"""Tokens that a bracket follows directly: a call, an index or axes."""


def format_source(source: Source) -> str:
    """The text in its one layout, with the same meaning and all its comments; formatting it again changes nothing.

    Raises SpecError if the text has syntax errors.
    """
    parse(source)
    marked = keywords(source)
    tokens = [
        token._replace(type=marked.get(token.start, token.type)) for token in scan(source.text) if token.type != "SPACE"
    ]
    layouter = _Layouter(tokens)
    layouter.run()
    return _join(layouter.lines)


@dataclass(slots=True)
class _Line:
    """One line of the result: its depth, its text, and the comment after it."""

    depth: int
    text: str = ""
    comment: str = ""


@dataclass(slots=True)
class _Layouter:
    tokens: list[Token]
    lines: list[_Line] = field(default_factory=list)
    line: _Line | None = None
    open: list[Token] = field(default_factory=list)
    previous: Token | None = None  # the last token that is no line end, comment or semicolon
    blank: bool = False  # whether a blank line is due before the next line

    def run(self) -> None:
        spread = _spread_braces(self.tokens)
        for index, token in enumerate(self.tokens):
            after = self.tokens[index + 1].type if index + 1 < len(self.tokens) else "NEWLINE"
            match token.type:
                case "NEWLINE":
                    self.end_line()
                    self.blank = self.blank or after == "NEWLINE"
                case "COMMENT":
                    self.comment(token)
                case "SEMICOLON":
                    if after not in ("NEWLINE", "COMMENT", "SEMICOLON", "RBRACE") and self.line is not None:
                        self.line.text += ";"
                case "DOC":
                    self.end_line()
                    self.write(token._replace(text=token.text.replace("\r\n", "\n")))
                case "_LBRACE":
                    self.write(token)
                    self.open.append(token)
                    if token.start in spread and after != "COMMENT":
                        self.end_line()
                case "RBRACE":
                    opener = self.open.pop()
                    if opener.start in spread:
                        self.end_line()
                    self.write(token, tight=self.previous is opener)
                case "LPAR" | "LSQB":
                    self.write(token)
                    self.open.append(token)
                case "RPAR" | "RSQB":
                    self.open.pop()
                    self.write(token)
                case _:
                    self.write(token)
        self.end_line()

    def write(self, token: Token, tight: bool = False) -> None:
        """Append a token to the line, with the space that belongs before it."""
        if token.type in ("PLUS", "MINUS") and _is_sign(self.previous):
            token = token._replace(type="SIGN")
        if self.line is None:
            self.begin_line(token)
        elif not tight and _space(self.previous, token):
            self.line.text += " "
        assert self.line is not None
        self.line.text += token.text
        self.previous = token

    def begin_line(self, token: Token) -> None:
        inner = bool(self.open) and self.open[-1].type != "_LBRACE"
        if self.blank and self.lines and not inner and self.previous_opens() and token.type != "RBRACE":
            self.lines.append(_Line(0))
        self.blank = False
        self.line = _Line(len(self.open))

    def previous_opens(self) -> bool:
        """Whether a blank line may stand after the line before: not right after an opening brace."""
        return not (self.lines[-1].text.endswith("{") and self.previous is not None)

    def end_line(self) -> None:
        if self.line is not None:
            self.lines.append(self.line)
        self.line = None

    def comment(self, token: Token) -> None:
        """A comment ends its line; alone on a line it is indented like what could stand there."""
        if self.line is None:
            self.begin_line(token)
        assert self.line is not None
        self.line.comment = token.text.rstrip()
        self.end_line()


def _spread_braces(tokens: list[Token]) -> frozenset[int]:
    """The offsets of the opening braces whose contents are over several lines."""
    pending: list[tuple[int, int]] = []
    spread: set[int] = set()
    breaks = 0
    for token in tokens:
        match token.type:
            case "NEWLINE" | "COMMENT":
                breaks += 1
            case "_LBRACE":
                pending.append((token.start, breaks))
            case "RBRACE":
                start, before = pending.pop()
                if breaks > before:
                    spread.add(start)
    return frozenset(spread)


def _is_sign(previous: Token | None) -> bool:
    return previous is None or previous.type in BEFORE_VALUE or previous.type == "SIGN"


def _space(previous: Token | None, token: Token) -> bool:
    """Whether a space stands between two tokens of one line."""
    if previous is None or previous.type in TIGHT_AFTER:
        return False
    if token.type == "TRANSPOSE":
        return previous.type == "NUMBER"  # `1.T` would read as the number `1.`
    if token.type in TIGHT_BEFORE:
        return False
    if token.type in ("LPAR", "LSQB"):
        return previous.type not in CALLABLE
    return True


def _join(lines: list[_Line]) -> str:
    """The text, with the comments of neighbouring lines in one column."""
    texts = [INDENT * line.depth + line.text if line.text else "" for line in lines]
    out: list[str] = []
    for index, line in enumerate(lines):
        if not line.comment:
            out.append(texts[index])
        elif not line.text:
            out.append(INDENT * line.depth + line.comment)
        else:
            out.append(texts[index].ljust(_comment_column(lines, texts, index)) + line.comment)
    return "\n".join(out) + "\n"


def _comment_column(lines: list[_Line], texts: list[str], index: int) -> int:
    """Two columns after the longest of the neighbouring lines that have text and a comment."""
    first = last = index
    while first > 0 and lines[first - 1].comment and lines[first - 1].text:
        first -= 1
    while last + 1 < len(lines) and lines[last + 1].comment and lines[last + 1].text:
        last += 1
    return max(len(texts[i].split("\n")[-1]) for i in range(first, last + 1)) + 2
