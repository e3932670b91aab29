"""Slips that show in one token: characters, numbers, quotes and operators of other languages."""

from __future__ import annotations

import unicodedata

from ..diagnostics import Diagnostic
from .failure import Failure

LOOKALIKES: dict[str, str] = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u2217": "*",
    "\u2299": "*", "\u00f7": "/", "\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "\u2019": "'", "\u2032": "'",
    "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u00a0": "a space", "\u200b": "nothing", "\ufeff": "nothing",
    "\u22a4": ".T", "\u1d40": ".T", "\u221e": "inf", "\u2208": "in", "\u00b2": "^2", "\u2297": "outer(a, b)",
    "\uff08": "(", "\uff09": ")", "\uff0c": ",", "\uff1d": "=",
}  # fmt: skip
"""Characters of papers and word processors, and what to write for them."""

FOREIGN: dict[str, tuple[str, str, str]] = {
    "//": ("E0120", "`//` is not an operator", "divide with `/`; a comment begins with `#`"),
    "+=": ("E0107", "a value cannot be changed in place", "write `S' = S' + ...`"),
    "-=": ("E0107", "a value cannot be changed in place", "write `S' = S' - ...`"),
    "*=": ("E0107", "a value cannot be changed in place", "write `S' = S' * ...`"),
    "/=": ("E0107", "a value cannot be changed in place", "write `S' = S' / ...`"),
    "->": ("E0120", "`->` is not an operator", "a function is written `def f(a, b) = ...`"),
    ":=": ("E0107", "a value is bound with `=`", "write `=`"),
    "&": ("E0120", "`&` is not an operator", "nest two `where(condition, a, b)`"),
    "&&": ("E0120", "`&&` is not an operator", "nest two `where(condition, a, b)`"),
    "|": ("E0120", "`|` is not an operator", "nest two `where(condition, a, b)`; an absolute value is `abs(x)`"),
    "||": ("E0120", "`||` is not an operator", "nest two `where(condition, a, b)`; a norm is `norm(x)`"),
    "?": ("E0120", "`?` is not an operator", "choose with `where(condition, a, b)`"),
    "!": ("E0120", "`!` is not an operator", "compare with `!=`, or swap the branches of `where`"),
    "~": ("E0120", "`~` is not an operator", "write `1 - x`"),
    "%": ("E0120", "`%` is not an operator", "there is no remainder in the language"),
    "\\": ("E0120", "a line cannot be continued with `\\`", "put the expression in parentheses"),
    "$": ("E0101", "`$` means nothing here", "leave it out"),
    "`": ("E0101", "a backquote means nothing here", "leave it out"),
}


def unclosed(f: Failure) -> Diagnostic | None:
    """A bracket that stays open to the end of the file or to the next statement."""
    if f.token.type != "UNCLOSED":
        return None
    opener = f.token.text
    closer = {"(": "`)`", "[": "`]`", "{": "`}`"}[opener]
    if any(token.type == "IN" and token.end <= f.token.start for token in f.before[-8:]) and _opens_range(f):
        closer = "`)` or `]`"
    return f.error("E0102", f"`{opener}` is never closed", "opened here", f"add {closer} where it ends")


def _opens_range(f: Failure) -> bool:
    """Whether the bracket is the one of ``in (0, 1]``."""
    return any(
        token.type == "IN" and after.start == f.token.start
        for token, after in zip(f.before, f.before[1:], strict=False)
    )


def illegal(f: Failure) -> Diagnostic | None:
    """A character that is no part of the language."""
    if f.token.type != "ILLEGAL":
        return None
    text = f.token.text
    char = text[0]
    shown = f"`{text[:20]}`" if text.isprintable() else f"U+{ord(char):04X}"
    name = unicodedata.name(char, "")
    if char == "'":
        message = "`'` follows a state's name directly, and only once"
        return f.error("E0101", message, "", "write `S'` for the state after the step")
    if char in LOOKALIKES:
        return f.error(
            "E0101", f"{shown} is not used in the language", name.lower(), f"write {_code(LOOKALIKES[char])}"
        )
    if any(c.isalpha() for c in text):
        label = name.lower() if len(text) == 1 else ""
        return f.error("E0101", f"{shown} is not used in the language", label, _ascii_help(text),
                       notes=("names are made of the letters a-z and A-Z, digits and `_`",))  # fmt: skip
    return f.error("E0101", f"{shown} means nothing here", name.lower(), "leave it out")


def _code(replacement: str) -> str:
    return replacement if replacement in ("a space", "nothing") else f"`{replacement}`"


def _ascii_help(text: str) -> str:
    """How to write a word in ASCII: Greek letters by their names, others without their accents."""
    words = []
    for char in text:
        name = unicodedata.name(char, "")
        if name.startswith("GREEK") and " LETTER " in name:
            word = name.split(" LETTER ")[1].split(" WITH ")[0].replace("FINAL ", "").replace("LAMDA", "LAMBDA")
            words.append(word.lower() if "SMALL" in name else word.capitalize())
        else:
            words.append(unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode())
    plain = "_".join(words) if any(len(word) > 1 for word in words) else "".join(words)
    return f"write `{plain}`" if plain.replace("_", "").isalnum() else "spell the name in plain letters"


def text(f: Failure) -> Diagnostic | None:
    """Quotes: a docstring in the wrong place, left open, or with one quote."""
    match f.token.type:
        case "OPEN_DOC":
            return f.error("E0113", "the docstring is never closed", "opened here", 'end it with `"""`',
                           span=f.token.span.__class__(f.token.start, f.token.start + 3))  # fmt: skip
        case "DOC":
            place = "a docstring stands only right after the `recurrence` line"
            return f.error("E0113", place, "", "move it there, or write a comment: `# ...`")
        case "STRING" if f.at_start:
            return f.error("E0113", "a docstring has three quotes on either side", "", 'write `"""..."""`')
        case "STRING":
            return f.error("E0120", "there are no strings in the language", "", "write a comment: `# ...`")
    return None


def bad_number(f: Failure) -> Diagnostic | None:
    """A literal that is no number, or none that a float can hold."""
    token, previous = f.token, f.previous
    if token.type == "BAD_NUMBER":
        return f.error("E0109", "this number does not fit a 64-bit float", "", "write `inf` or `0` if that is meant")
    if previous is None or previous.type != "NUMBER" or previous.end != token.start or previous.text == "inf":
        return None
    span = previous.span | token.span
    if token.type == "NUMBER":
        return f.error("E0109", "a number has one decimal point", "", span=span)
    if token.type != "NAME":
        return None
    if token.text in ("e", "E"):
        return f.error("E0109", "the exponent of this number is missing", "", f"write `{previous.text}e-6`", span=span)
    if token.text.startswith("_") and token.text[1:].isdigit():
        plain = f"{previous.text}{token.text[1:]}"
        return f.error("E0109", "digits cannot be grouped with `_`", "", f"write `{plain}`", span=span)
    label = "read as a number and a name"
    return f.error("E0111", "an operator is missing between a number and a name", label,
                   f"write `{previous.text} * {token.text}`; a name cannot begin with a digit", span=span)  # fmt: skip


def foreign(f: Failure) -> Diagnostic | None:
    """An operator of another language."""
    if f.token.type != "FOREIGN":
        return None
    code, message, help_ = FOREIGN[f.token.text]
    return f.error(code, message, "", help_)


def stray_brace(f: Failure) -> Diagnostic | None:
    """A brace inside an expression."""
    if f.token.type != "STRAY_BRACE":
        return None
    return f.error("E0120", "braces enclose blocks only", "", "group an expression with `( )`")


def semicolon(f: Failure) -> Diagnostic | None:
    """A semicolon inside parentheses."""
    if f.token.type != "SEMICOLON":
        return None
    return f.error("E0119", "`;` separates assignments inside braces only", "", "arguments are separated by `,`")


def power(f: Failure) -> Diagnostic | None:
    """``**`` for ``^``."""
    if f.token.type != "POWER":
        return None
    return f.error("E0106", "a power is written with `^`", "", "write `^`, as in `K^-0.5`")


def attribute(f: Failure) -> Diagnostic | None:
    """``x.t``, ``torch.exp``: a point that is not ``.T``."""
    if f.token.type != "DOT":
        return None
    after, previous = f.following, f.previous
    if after is None or after.type != "NAME":
        return f.error("E0124", "`.` stands only in numbers and in `.T`", "")
    span = f.token.span | after.span
    if previous is not None and previous.text in ("torch", "np", "numpy", "math", "F", "jnp"):
        whole = previous.span | after.span
        return f.error("E0124", "functions have no prefix", "", f"write `{after.text}(...)`", span=whole)
    if after.text in ("t", "transpose", "mT", "H"):
        return f.error("E0124", f"`.{after.text}` is not known", "", "the transpose is `.T`", span=span)
    help_ = f"call the function instead: `{after.text}(...)`"
    return f.error("E0124", "the only thing after a `.` is `T`, the transpose", "", help_, span=span)
