"""Matrix products of chunk kernels as Triton text: each in a branch of its own, sums of them in place.

Triton gives all warps to the rows of products that feed each other within one block of code. A chunk has too few rows
for that: half of the warps then repeat what others do, and hold it. Across the branch of an `if` products do not count
as such, and the assembler does not mix the operands of one with those of the next. The condition always holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ASSIGNED = re.compile(r"( *)(\w+) (\+?)= (.+)")
_PRODUCT = "_product("


def product(x: str, y: str, precision: str | None) -> str:
    """The product of two tiles, which the helper of this name computes in a branch."""
    form = f', "{precision}"' if precision else ""
    return f"{_PRODUCT}{x}, {y}, steps{form})"


def in_place(statement: str) -> str:
    """A statement in which products that are added to something start from it: no second tile for the sum."""
    found = _ASSIGNED.fullmatch(statement)
    if found is None:
        return statement
    indent, target, plus, text = found.groups()
    first, *others = [target] * bool(plus) + list(_terms(text))
    if not any(map(_is_product, others)):
        return statement
    for term in others:
        first = f"_product_onto({first}, {term.removeprefix(_PRODUCT)}" if _is_product(term) else f"{first} + {term}"
    return f"{indent}{target} = {first}"


def _terms(text: str) -> Iterator[str]:
    """The terms of a sum."""
    depth = start = 0
    for at, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if depth == 0 and text.startswith(" + ", at):
            yield text[start:at]
            start = at + 3
    yield text[start:]


def _is_product(term: str) -> bool:
    """Whether a term is nothing but one product."""
    return term.startswith(_PRODUCT) and closed(term)


def closed(text: str) -> bool:
    """Whether the first bracket closes at the end."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and letter == ")":
            return at == len(text) - 1
    return False
