"""Text to tokens: one regular expression, no state, never an error.

What means nothing in the language becomes a token of a type the grammar does not know, so that the parser reports
it where it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from .source import Span


class Token(NamedTuple):
    """A piece of text: its terminal of the grammar, its characters, and where they stand."""

    type: str
    text: str
    start: int
    end: int

    @property
    def span(self) -> Span:
        """The characters covered."""
        return Span(self.start, self.end)


STATEMENTS = (
    "recurrence", "dims", "const", "state", "input", "param", "def", "gate", "let", "transition", "output", "layer",
)  # fmt: skip
"""Words that start a statement of the file."""

KEYWORDS: dict[str, str] = {word: word.upper() for word in (*STATEMENTS, "repeat", "unit", "init", "frozen")}
"""Words that are keywords only where a name cannot stand, with their terminals."""

RESERVED = ("in", "inf")
"""Words that can never be names."""

OPERATORS: dict[str, str] = {
    "+": "PLUS", "-": "MINUS", "*": "STAR", "/": "SLASH", "@": "AT", "^": "CARET",
    "<": "LT", "<=": "LE", ">": "GT", ">=": "GE", "==": "EQUAL", "!=": "UNEQUAL",
    "=": "_EQ", ",": "_COMMA", ":": "COLON", ";": "SEMICOLON", ".": "DOT", "**": "POWER",
    "(": "LPAR", ")": "RPAR", "[": "LSQB", "]": "RSQB", "{": "_LBRACE", "}": "RBRACE",
}  # fmt: skip
"""Operators and brackets with their terminals; SEMICOLON, DOT and POWER are in no rule of the grammar."""

SCANNER = re.compile(
    r"""
    (?P<SPACE>[ \t\f\r]+|\A\ufeff)
  | (?P<COMMENT>\#[^\n]*)
  | (?P<NEWLINE>\n)
  | (?P<DOC>\"{3}.*?\"{3})
  | (?P<OPEN_DOC>\"{3}[^\n]*(?:\n(?![ \t]*(?:dims|const|state|input|param|def|gate|let|output|transition|layer)
                                  [ \t]+[A-Za-z_{])[^\n]*)*)
  | (?P<STRING>\"[^\"\n]*\"?)
  | (?P<NUMBER>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
  | (?P<PRIMED>[A-Za-z_][A-Za-z0-9_]*')
  | (?P<NAME>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<TRANSPOSE>\.T(?![A-Za-z0-9_]))
  | (?P<FOREIGN>//|[+*/-]=|->|:=|&&?|\|\|?|[%~!?$\\`](?!=))
  | (?P<OPERATOR>\*\*|[<>=!]=|[-+*/@^<>=,:;.()\[\]{}])
  | (?P<ILLEGAL>[^\x00-\x7f]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)

TRIVIA = frozenset({"SPACE", "COMMENT", "NEWLINE"})


def scan(text: str) -> Iterator[Token]:
    """Every token of a text, spaces, comments and newlines included; their texts join up to the whole."""
    for match in SCANNER.finditer(text):
        kind = match.lastgroup or "ILLEGAL"
        written = match.group()
        if kind == "OPERATOR":
            kind = OPERATORS[written]
        elif kind == "NAME":
            kind = "IN" if written == "in" else "NUMBER" if written == "inf" else "NAME"
        elif kind == "NUMBER" and not representable(written):
            kind = "BAD_NUMBER"
        yield Token(kind, written, match.start(), match.end())


def representable(number: str) -> bool:
    """Whether a literal keeps its meaning as a float: neither overflows nor vanishes."""
    value = float(number)
    vanished = value == 0 and any(digit in "123456789" for digit in re.split("[eE]", number)[0])
    return not math.isinf(value) and not vanished
