"""What a broken statement leaves behind: where it ends, and which names it may have declared."""

from __future__ import annotations

from collections.abc import Callable

from .lexer import STATEMENTS, Token

JOINS = frozenset({
    "PLUS", "MINUS", "STAR", "SLASH", "AT", "CARET", "POWER", "LT", "LE", "GT", "GE", "EQUAL", "UNEQUAL", "_EQ",
    "_COMMA", "COLON", "DOT", "TRANSPOSE", "RPAR", "RSQB", "LPAR", "LSQB", "_LBRACE", "STRAY_BRACE", "FOREIGN",
})  # fmt: skip
"""Tokens that cannot begin a statement: a line with one of them in front goes on with the line before it."""

BLOCKS = frozenset({"transition", "layer", "repeat", "for", "while"})
"""Words that begin a block, here or in other languages."""

DANGLING = (JOINS | {"IN"}) - {"RPAR", "RSQB", "TRANSPOSE"}
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


def opens_block(tokens: list[Token], begin: int, end: int) -> bool:
    """Whether a broken statement is the head of a block without its brace, or holds a brace that is none."""
    kinds = {token.type for token in tokens[begin:end]}
    headless = tokens[begin].text in BLOCKS and not kinds & {"_EQ", "EQUAL", "_LBRACE"}
    return headless or "STRAY_BRACE" in kinds


def continues(
    tokens: list[Token], begin: int, end: int, column: Callable[[Token], int], head: bool, inside: bool
) -> bool:
    """Whether the line after the `_NEWLINE` at ``end`` belongs to the broken statement that starts at ``begin``.

    ``head`` is what ``opens_block`` says of its first line, ``inside`` whether a block is open.
    """
    if end + 1 >= len(tokens) or end <= begin:
        return False
    following = tokens[end + 1]
    if following.type in JOINS:
        return True
    if following.type == "RBRACE":
        return head and not inside
    deeper = column(following) > column(tokens[begin])
    if inside and not head:
        return not looks_new(tokens, end + 1) and (deeper or tokens[end - 1].type in DANGLING)
    if has_keyword(tokens, end + 1) and not (head and tokens[end + 1].text in ("let", "repeat")):
        return False
    return deeper or tokens[end - 1].type in DANGLING


def has_keyword(tokens: list[Token], index: int) -> bool:
    """Whether a token is a keyword that what follows makes a statement."""
    second = tokens[min(index + 1, len(tokens) - 1)]
    known = tokens[index].text in STATEMENTS or tokens[index].text == "repeat"
    return known and second.type in ("NAME", "PRIMED", "_LBRACE")


def looks_new(tokens: list[Token], index: int) -> bool:
    """Whether a statement or an item of a block seems to start at a token."""
    first, second = tokens[index], tokens[min(index + 1, len(tokens) - 1)]
    if first.type == "PRIMED":
        return second.type in ("_EQ", "EQUAL")
    return first.type == "NAME" and (second.type in ("_EQ", "_COMMA") or has_keyword(tokens, index))


def _next_type(tokens: list[Token], index: int) -> str:
    return tokens[index + 1].type if index + 1 < len(tokens) else ""
