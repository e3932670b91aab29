"""What went wrong in a statement that the grammar cannot read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import ast
from .diagnostics import Diagnostic, Label
from .lexer import STATEMENTS, Token
from .source import Span


@dataclass(frozen=True, slots=True)
class Failure:
    """A token that cannot stand where it stands, and what is around it.

    ``begin`` is where its statement starts, ``expected`` the terminals that could have come, ``block`` the keyword
    of the innermost open block or the empty string.
    """

    tokens: list[Token]
    begin: int
    position: int
    expected: frozenset[str]
    block: str

    @property
    def token(self) -> Token:
        return self.tokens[self.position]


def diagnose(failure: Failure) -> Diagnostic | None:
    return Diagnostic("E0100", f"unexpected `{failure.token.text.strip()}`", failure.token.span)


def declared(tokens: list[Token]) -> frozenset[str]:
    """The names that a broken statement may have declared; an assigned state counts with its prime."""
    names: set[str] = set()
    depth, value = 0, False
    unclosed = any(token.type == "UNCLOSED" for token in tokens)
    for index, token in enumerate(tokens):
        match token.type:
            case "LPAR" | "LSQB":
                depth += 1
            case "RPAR" | "RSQB":
                depth -= 1
            case "_EQ" | "EQUAL":
                value = True
            case "_COMMA" | "_NEWLINE" | "_LBRACE" if depth <= 0:
                value = False
            case "PRIMED" if not value and _next_type(tokens, index) in ("_EQ", "EQUAL"):
                names.add(token.text)
            case "NAME" if unclosed or (depth <= 0 and not value):
                names.add(token.text)
    if tokens and tokens[0].text in STATEMENTS:
        names.discard(tokens[0].text)
    return frozenset(names)


def continues(tokens: list[Token], begin: int, end: int, column: Callable[[Token], int]) -> bool:
    """Whether the line after the `_NEWLINE` at ``end`` belongs to the broken statement that starts at ``begin``."""
    if end + 1 >= len(tokens):
        return False
    following = tokens[end + 1]
    if following.type in JOINS:
        return True
    if following.type == "RBRACE" or looks_new(tokens, end + 1):
        return False
    return end > begin and (tokens[end - 1].type in DANGLING or column(following) > column(tokens[begin]))


def looks_new(tokens: list[Token], index: int) -> bool:
    """Whether a statement or an item of a block seems to start at a token."""
    first, second = tokens[index], tokens[min(index + 1, len(tokens) - 1)]
    if first.type == "PRIMED":
        return second.type in ("_EQ", "EQUAL")
    if first.type != "NAME":
        return False
    known = first.text in STATEMENTS or first.text == "repeat"
    return second.type in ("_EQ", "_COMMA") or (known and second.type in ("NAME", "PRIMED", "_LBRACE"))


def _next_type(tokens: list[Token], index: int) -> str:
    return tokens[index + 1].type if index + 1 < len(tokens) else ""


def missing_header(tokens: list[Token], end: int) -> tuple[Diagnostic | None, ast.Ident | None]:
    """What to say of a file that does not begin with its name, and the name if it stands elsewhere."""
    if not tokens:
        message = "the file is empty: a recurrence begins with `recurrence` and its name"
        return Diagnostic("E0105", message, Span(end, end), helps=(FIRST_LINE,)), None
    first = tokens[0]
    if first.text == "recurrence" or not (first.type == "NAME" and first.text in STATEMENTS):
        return None, None
    for index in range(1, len(tokens) - 1):
        token, name = tokens[index], tokens[index + 1]
        if token.text == "recurrence" and tokens[index - 1].type == "_NEWLINE" and name.type == "NAME":
            message = "`recurrence` must be the first statement"
            label = Label(first.span, "this stands before it")
            help_ = "move this line to the top of the file"
            return Diagnostic("E0105", message, token.span, "", (label,), (), (help_,)), ast.Ident(name.span, name.text)
    message = "the file does not begin with `recurrence` and its name"
    return Diagnostic("E0105", message, first.span, "expected `recurrence NAME` before this", helps=(FIRST_LINE,)), None


def too_many_blocks(brace: Token) -> Diagnostic:
    """The message for blocks inside blocks inside blocks."""
    message = "blocks are nested too deeply"
    return Diagnostic("E0118", message, brace.span, "one block too many", helps=("merge some of the `repeat` blocks",))


FIRST_LINE = "begin the file with a line such as `recurrence my_layer`"

JOINS = frozenset({
    "PLUS", "MINUS", "STAR", "SLASH", "AT", "CARET", "POWER", "LT", "LE", "GT", "GE", "EQUAL", "UNEQUAL", "_EQ",
    "_COMMA", "COLON", "DOT", "TRANSPOSE", "RPAR", "RSQB", "LPAR", "LSQB", "_LBRACE", "FOREIGN",
})  # fmt: skip
"""Tokens that cannot begin a statement: a line with one of them in front goes on with the line before it."""

DANGLING = JOINS - {"RPAR", "RSQB", "TRANSPOSE"}
"""Tokens that cannot end a statement."""
