"""The place where reading a statement failed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Label
from ..lexer import Token
from ..source import Span

OPERANDS = frozenset({"NAME", "NUMBER", "PRIMED", "LPAR", "IN"})
"""Tokens that begin a value, and the reserved word that is taken for one."""

COMPARISONS = frozenset({"LT", "LE", "GT", "GE", "EQUAL", "UNEQUAL"})

ARITHMETIC = frozenset({"PLUS", "MINUS", "STAR", "SLASH", "AT", "CARET"})

CLOSERS: dict[str, str] = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "_LBRACE"}


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
        """The token that does not fit."""
        return self.tokens[self.position]

    @property
    def first(self) -> Token:
        """The first token of the statement."""
        return self.tokens[self.begin]

    @property
    def previous(self) -> Token | None:
        """The token before, if it belongs to the statement."""
        return self.tokens[self.position - 1] if self.position > self.begin else None

    @property
    def following(self) -> Token | None:
        """The token after."""
        return self.tokens[self.position + 1] if self.position + 1 < len(self.tokens) else None

    @property
    def at_start(self) -> bool:
        """Whether the statement fails at its first token."""
        return self.position == self.begin

    @property
    def keyword(self) -> str:
        """The word the statement begins with."""
        return self.first.text

    @property
    def wants_operand(self) -> bool:
        """Whether a value could have come."""
        return "NUMBER" in self.expected

    @property
    def wants_operator(self) -> bool:
        """Whether an expression could have gone on."""
        return "PLUS" in self.expected

    @property
    def wants_name(self) -> bool:
        """Whether a name, and no other value, could have come."""
        return "NAME" in self.expected and not self.wants_operand

    @property
    def before(self) -> list[Token]:
        """The statement up to the token."""
        return self.tokens[self.begin : self.position]

    @property
    def open(self) -> list[Token]:
        """The round and square brackets that are open, outermost first."""
        pending: list[Token] = []
        for token in self.before:
            if token.type in ("LPAR", "LSQB"):
                pending.append(token)
            elif token.type in ("RPAR", "RSQB") and pending:
                pending.pop()
        return pending

    def error(
        self,
        code: str,
        message: str,
        label: str = "",
        *helps: str,
        labels: tuple[Label, ...] = (),
        notes: tuple[str, ...] = (),
        span: Span | None = None,
    ) -> Diagnostic:
        """A message at the token, or at the end of the text before it if the token is a line's end."""
        texts = [_shorten(text) for text in (message, label, *helps)]
        return Diagnostic(code, texts[0], span or self.place, texts[1], labels, notes, tuple(texts[2:]))

    @property
    def place(self) -> Span:
        """What to underline: the token, or the position after the last one for a line's end."""
        if self.token.type == "_NEWLINE" and self.previous is not None:
            return Span(self.previous.end, self.previous.end + 1)
        return self.token.span


def _shorten(text: str) -> str:
    """A message in which no word is longer than a line."""
    return re.sub(r"\S{60,}", lambda word: word.group()[:40] + "...", text)


def quoted(token: Token) -> str:
    """A token as it is named in a message."""
    if token.type == "_NEWLINE":
        return "the end of the line" if token.text != ";" else "`;`"
    return f"`{token.text}`"
