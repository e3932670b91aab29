"""What went wrong in a statement that the grammar cannot read: kind words for the usual slips.

A slip is a function that recognises one kind of mistake and returns its message, or None. They are asked in order,
the ones that need the least context first.
"""

from __future__ import annotations

from collections.abc import Callable

from ..diagnostics import Diagnostic
from . import characters, expressions, statements
from .failure import Failure, quoted

__all__ = ["Failure", "diagnose"]

SLIPS: tuple[Callable[[Failure], Diagnostic | None], ...] = (
    characters.unclosed,
    characters.illegal,
    characters.text,
    characters.bad_number,
    characters.foreign,
    characters.stray_brace,
    characters.semicolon,
    characters.power,
    characters.attribute,
    expressions.wrong_closer,
    statements.header,
    statements.repeat,
    statements.line_goes_on,
    statements.in_transition,
    statements.in_layer,
    statements.unknown,
    statements.prime,
    statements.block_opening,
    statements.double_equal,
    statements.range_bounds,
    statements.axes,
    expressions.index_list,
    expressions.list_of_values,
    expressions.colon,
    statements.property_or_comma,
    statements.value_of_declaration,
    statements.missing_equal,
    statements.no_name,
    expressions.equal_inside,
    expressions.chained,
    expressions.missing_operand,
    expressions.missing_operator,
)

WORDS: dict[str, str] = {
    "_NEWLINE": "the end of the line", "_EQ": "`=`", "_COMMA": "`,`", "NAME": "a name", "NUMBER": "a number",
    "PRIMED": "a primed name", "RPAR": "`)`", "RSQB": "`]`", "RBRACE": "`}`", "LSQB": "`[`", "LPAR": "`(`",
    "_LBRACE": "`{`", "LT": "`<`", "IN": "`in`", "UNIT": "`unit`", "INIT": "`init`", "FROZEN": "`frozen`",
    "COLON": "`:`", "DOC": "a docstring",
}  # fmt: skip


def diagnose(failure: Failure) -> Diagnostic:
    """The message for a failure: the first slip that recognises it, or what was expected instead."""
    for slip in SLIPS:
        diagnostic = slip(failure)
        if diagnostic is not None:
            return diagnostic
    wanted = [WORDS[name] for name in WORDS if name in failure.expected]
    if failure.wants_operator:
        wanted.append("an operator")
    label = f"expected {_either(wanted)}" if wanted else ""
    return failure.error("E0100", f"{quoted(failure.token)} cannot stand here", label)


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
