"""What a broken statement leaves behind: where it ends, and which names it may have declared."""

from __future__ import annotations

from collections.abc import Callable

from .lexer import STATEMENTS, Token

JOINS = frozenset({
    "PLUS", "MINUS", "STAR", "SLASH", "AT", "CARET", "POWER", "LT", "LE", "GT", "GE", "EQUAL", "UNEQUAL", "_EQ",
    "_COMMA", "COLON", "DOT", "TRANSPOSE", "RPAR", "RSQB", "LPAR", "LSQB", "_LBRACE", "FOREIGN",
})  # fmt: skip
"""Tokens that cannot begin a statement: a line with one of them in front goes on with the line before it."""

BLOCKS = frozenset({"transition", "layer", "repeat", "for", "while"})
"""Words that begin a block, here or in other languages."""

DANGLING = JOINS - {"RPAR", "RSQB", "TRANSPOSE"}
"""Tokens that cannot end a statement."""


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
            case "PRIMED" if not value:
                names.add(token.text)
            case "NAME" if unclosed or (depth <= 0 and not value):
                names.add(token.text)
                if _next_type(tokens, index) in ("_EQ", "EQUAL"):
                    names.add(token.text + "'")  # the prime may have been forgotten
    if tokens and tokens[0].text in STATEMENTS:
        names.discard(tokens[0].text)
    return frozenset(names)


def continues(tokens: list[Token], begin: int, end: int, column: Callable[[Token], int], head: bool) -> bool:
    """Whether the line after the `_NEWLINE` at ``end`` belongs to the broken statement that starts at ``begin``.

    ``head`` says that the statement is the head of a block without its brace (``opens_block``).
    """
    if end + 1 >= len(tokens):
        return False
    following = tokens[end + 1]
    if head and following.type != "RBRACE":
        return following.type == "_LBRACE" or column(following) > column(tokens[begin])
    if following.type in JOINS:
        return True
    if following.type == "RBRACE" or looks_new(tokens, end + 1):
        return False
    deeper = column(following) > column(tokens[begin])
    return end > begin and (tokens[end - 1].type in DANGLING or deeper)


def opens_block(tokens: list[Token], begin: int, end: int) -> bool:
    """Whether the statement is the head of a block without its brace."""
    if tokens[begin].text not in BLOCKS:
        return False
    return not any(token.type in ("_EQ", "EQUAL", "_LBRACE") for token in tokens[begin:end])


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
