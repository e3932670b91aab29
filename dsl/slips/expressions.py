"""Slips inside expressions: brackets, operands and operators."""

from __future__ import annotations

from ..diagnostics import Diagnostic, Label
from .failure import ARITHMETIC, CLOSERS, COMPARISONS, OPERANDS, Failure, quoted

PYTHON: dict[str, str] = {
    "if": "choose with `where(condition, a, b)`",
    "else": "choose with `where(condition, a, b)`",
    "for": "sub-steps are written `repeat j < N { ... }` inside `transition { ... }`",
    "and": "nest two `where(condition, a, b)`",
    "or": "nest two `where(condition, a, b)`",
    "is": "compare with `==`",
    "not": "swap the branches of `where`",
    "where": "write `where(condition, a, b)`, or bind the value in a `let` before",
}
"""Words of Python that are not operators here."""


def wrong_closer(f: Failure) -> Diagnostic | None:
    """A closing bracket that closes nothing, or something else."""
    wanted = CLOSERS.get(f.token.type)
    if wanted is None:
        return None
    pending = f.open
    if not pending:
        return f.error("E0103", f"{quoted(f.token)} closes nothing", "no bracket is open here", "remove it")
    if pending[-1].type == wanted:
        return None
    opener = pending[-1]
    closer = {"(": ")", "[": "]"}[opener.text]
    labels = (Label(opener.span, "opened here"),)
    message = f"`{opener.text}` is closed by {quoted(f.token)}"
    return f.error("E0103", message, f"expected `{closer}`", labels=labels)


def equal_inside(f: Failure) -> Diagnostic | None:
    """``=`` in the middle of an expression."""
    if f.token.type != "_EQ":
        return None
    pending, before = f.open, f.before
    if f.keyword == "def" and not any(token.type == "_EQ" for token in before):
        return f.error("E0107", "parameters of a function have no defaults", "", "write `def f(a, b) = ...`")
    if pending and len(before) > 1 and before[-1].type == "NAME" and before[-2].type in ("LPAR", "_COMMA"):
        message = "functions take no keyword arguments"
        return f.error("E0107", message, "", "give the value alone; to compare two values write `==`")
    if f.wants_operand or f.wants_operator:
        return f.error("E0107", "`=` cannot stand inside an expression", "", "to compare two values write `==`")
    return None


def chained(f: Failure) -> Diagnostic | None:
    """``a < b < c``, or a comparison where a plain number is needed."""
    if f.token.type not in COMPARISONS:
        return None
    depth = 0
    for token in reversed(f.before):
        if token.type in ("RPAR", "RSQB"):
            depth += 1
        elif token.type in ("LPAR", "LSQB"):
            depth -= 1
        elif token.type in COMPARISONS and depth == 0:
            labels = (Label(token.span, "first comparison"),)
            help_ = "nest two `where`: `where(a < b, where(b < c, x, y), y)`"
            return f.error("E0122", "comparisons cannot be chained", "second comparison", help_, labels=labels)
        if depth < 0:
            break
    return None


def index_list(f: Failure) -> Diagnostic | None:
    """``x[i, j]``, ``x[a:b:c]`` and ``x[]``."""
    pending = f.open
    if not pending or pending[-1].type != "LSQB":
        return None
    if f.token.type == "_COMMA":
        message = "an index takes one entry of the first axis"
        return f.error("E0114", message, "", "index twice: `x[i][j]`", labels=(Label(pending[-1].span, ""),))
    if f.token.type == "COLON":
        return f.error("E0114", "a slice has no step", "", "write `x[start:stop]`")
    if f.token.type == "RSQB" and f.wants_operand and f.previous is not None and f.previous.type == "LSQB":
        return f.error("E0114", "the index is missing", "", "write `x[j]` or `x[1:N]`")
    return None


def missing_operand(f: Failure) -> Diagnostic | None:
    """An expression that breaks off, or two operators in a row."""
    if not f.wants_operand or f.previous is None:
        return None
    after = quoted(f.previous)
    if f.token.type == "_NEWLINE":
        if f.previous.type == "_EQ":
            return f.error("E0110", "a value is missing after `=`", "nothing follows on this line",
                           "to write it on the next line put it in parentheses")  # fmt: skip
        return f.error("E0110", f"the expression breaks off after {after}", "a value is missing here",
                       "to go on on the next line put the expression in parentheses")  # fmt: skip
    if f.token.type == "IN":
        return f.error("E0112", "`in` is a reserved word", "", "choose another name")
    if f.token.type in ("_COMMA", "RPAR", "RSQB"):
        return f.error("E0110", f"a value is missing between {after} and {quoted(f.token)}", "expected a value here")
    if f.token.type in ARITHMETIC | COMPARISONS | {"TRANSPOSE", "CARET"}:
        return f.error(
            "E0110", f"a value is missing between {after} and {quoted(f.token)}", "", "remove one of the two"
        )
    return None


def list_of_values(f: Failure) -> Diagnostic | None:
    """``[1, 2]``, ``(a, b)`` and ``let x = a, b``."""
    if f.token.type == "LSQB" and f.wants_operand:
        return f.error("E0120", "there are no lists in the language", "", "join vectors with `concat(x, y)`")
    if f.token.type != "_COMMA" or f.wants_operand:
        return None
    if f.open:
        return f.error("E0120", "there are no tuples in the language", "", "parentheses hold one value")
    if "_EQ" in f.expected:
        return f.error("E0100", f"`{f.keyword}` binds one name", "", f"write a `{f.keyword}` for each name")
    return f.error("E0100", "a statement ends with its value", "", "write a statement of its own for each value")


def colon(f: Failure) -> Diagnostic | None:
    """A colon at the end of a line, as in Python."""
    if f.token.type != "COLON":
        return None
    if f.following is not None and f.following.type == "_NEWLINE":
        return f.error("E0120", "no colon ends a line in the language", "", "a block stands in braces: `{ ... }`")
    return f.error("E0120", "`:` stands only in a slice", "", "a slice is written `x[1:N]`; types are not written")


def missing_operator(f: Failure) -> Diagnostic | None:
    """Two values side by side."""
    if not f.wants_operator or f.token.type not in OPERANDS or f.previous is None:
        return None
    help_ = PYTHON.get(f.token.text) or PYTHON.get(f.previous.text)
    if help_ is not None:
        word = f.token if f.token.text in PYTHON else f.previous
        return f.error("E0120", f"`{word.text}` is not an operator", "", help_, span=word.span)
    if f.token.type == "IN":
        if f.keyword == "gate":
            return f.error("E0115", "the range of a gate stands before its `=`", "",
                           "write `gate g in (0, 1] = ...`")  # fmt: skip
        return f.error("E0115", "a range stands only after an input or before a gate's `=`", "")
    message = f"an operator is missing between {quoted(f.previous)} and {quoted(f.token)}"
    pending = f.open
    if pending and pending[-1].type == "LPAR":
        return f.error("E0111", message, "", "write an operator, or `,` between two arguments")
    return f.error("E0111", message, "", "write `*` for an element-wise product, `@` to contract an axis")
