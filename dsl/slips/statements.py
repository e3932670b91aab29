"""Slips in the frame of a statement: its keyword, its names, its `=`, its range and its place."""

from __future__ import annotations

from ..diagnostics import Diagnostic
from ..lexer import STATEMENTS, Token
from ..source import Span
from ..suggest import closest
from .failure import ARITHMETIC, COMPARISONS, OPERANDS, Failure, quoted

SYNONYMS: dict[str, str] = {
    "dimensions": "dims", "axes": "dims", "size": "dims", "sizes": "dims", "constant": "const",
    "hidden": "state", "memory": "state", "arg": "input", "args": "input", "data": "input",
    "weight": "param", "weights": "param", "buffer": "param",
    "fn": "def", "func": "def", "function": "def", "lambda": "def", "var": "let", "set": "let",
    "update": "transition", "step": "transition", "next": "transition",
    "return": "output", "emit": "output", "read": "output", "module": "layer",
    "for": "repeat", "loop": "repeat", "while": "repeat",
}  # fmt: skip
"""What other languages call the statements."""

FORMS: dict[str, str] = {
    "dims": "dims K, V",
    "const": "const N = 2",
    "state": "state S[K, V]",
    "input": "input q[K], k[K]",
    "param": "param W[V, V] init identity",
    "def": "def f(a, b) = a * b",
    "gate": "gate g in (0, 1] = ...",
    "let": "let x = ...",
    "transition": "transition S' = ...",
    "output": "output o[V] = ...",
    "layer": "layer { ... }",
}
"""Each statement in its usual form."""

PROPERTIES: dict[str, tuple[str, ...]] = {"input": ("unit", "in"), "param": ("init", "frozen")}


def header(f: Failure) -> Diagnostic | None:
    """The first line of the file."""
    if f.begin != 0:
        if f.at_start and f.token.text == "recurrence" and not f.block:
            return f.error("E0105", "a file holds one recurrence", "", "put the second one in a file of its own")
        return None
    help_ = "begin the file with a line such as `recurrence my_layer`"
    if f.keyword != "recurrence":
        near = f.token.type == "NAME" and closest(f.token.text, ("recurrence",))
        help_ = "did you mean `recurrence`?" if near else help_
        return f.error("E0105", "the file does not begin with `recurrence` and its name", "", help_)
    if len(f.before) == 1:
        if f.token.type == "_NEWLINE":
            return f.error("E0105", "the recurrence has no name", "a name is missing here", help_)
        return f.error("E0105", f"{quoted(f.token)} is not a name", "", "a name begins with a letter or `_`")
    if f.token.type == "MINUS":
        written = [token.text for token in _rest_of_line(f, f.begin + 1)]
        plain = "".join(written).replace("-", "_")
        help_ = f"write `recurrence {plain}`" if plain.isidentifier() else "write `_` instead"
        return f.error("E0105", "a name cannot contain `-`", "", help_)
    return f.error("E0105", "nothing follows the name on the first line", "", "remove it")


def _rest_of_line(f: Failure, index: int) -> list[Token]:
    rest = []
    while index < len(f.tokens) and f.tokens[index].type != "_NEWLINE":
        rest.append(f.tokens[index])
        index += 1
    return rest


def repeat(f: Failure) -> Diagnostic | None:
    """The head of a repeat, and loops of other languages."""
    inside = f.block in ("transition", "repeat")
    loop = f.at_start and f.token.text in ("for", "while", "loop", "range")
    if not (inside and (loop or (f.keyword == "repeat" and not f.at_start))):
        return None
    if f.wants_operand and f.token.type == "_NEWLINE":
        return None
    return f.error("E0123", "a sub-step is written `repeat j < N { ... }`", "", notes=(
        "`j` counts from 0 to N - 1, and N is a `const`",))  # fmt: skip


def line_goes_on(f: Failure) -> Diagnostic | None:
    """A line that begins with an operator."""
    if not f.at_start or f.token.type not in ARITHMETIC | COMPARISONS | {"_COMMA", "TRANSPOSE"}:
        return None
    message = f"a line cannot begin with {quoted(f.token)}"
    return f.error("E0110", message, "", "to go over several lines put the expression in parentheses",
                   notes=("the statement of the line before has ended there",))  # fmt: skip


def in_transition(f: Failure) -> Diagnostic | None:
    """An item of a transition block that is none."""
    if f.block not in ("transition", "repeat") or not f.at_start or f.token.type != "NAME":
        return None
    word, after = f.token.text, f.following.type if f.following else ""
    if after in ("_EQ", "EQUAL", "LSQB"):
        return f.error("E0108", "a transition block assigns to primed names", f"`{word}` without its prime",
                       f"write `{word}' = ...` for a state, or `let {word} = ...` for a helper value")  # fmt: skip
    if word == "transition":
        return f.error("E0117", "a transition block holds bare assignments", "", "leave `transition` out")
    if word in STATEMENTS:
        return f.error("E0117", f"`{word}` cannot stand inside a transition block", "",
                       "move it before the block; inside stand `S' = ...`, `let` and `repeat`")  # fmt: skip
    near = SYNONYMS.get(word) or closest(word, ("let", "repeat", "transition"))
    helps = (f"did you mean `{near}`?",) if near in ("let", "repeat") else ()
    return f.error("E0104", f"`{word}` starts no item of a transition block", "", *helps,
                   notes=("inside stand `S' = ...`, `let` and `repeat`",))  # fmt: skip


def in_layer(f: Failure) -> Diagnostic | None:
    """An item of a layer block that is none."""
    if f.block != "layer":
        return None
    if f.at_start and f.token.type == "PRIMED":
        return f.error("E0108", "a layer block has no states", "", "the layer sees inputs, outputs, `x` and `y`")
    if f.previous is f.first and f.keyword in (*STATEMENTS, "repeat") and f.token.type in ("NAME", "PRIMED"):
        return f.error("E0117", f"`{f.keyword}` cannot stand inside a layer block", "",
                       "inside stand plain assignments: `q, k = linear(x)`", span=f.first.span)  # fmt: skip
    return None


def unknown(f: Failure) -> Diagnostic | None:
    """A line of the file that begins with no statement's keyword."""
    if f.block or not f.at_start:
        return None
    word, after = f.token.text, f.following.type if f.following else ""
    known = (f"a statement begins with one of {', '.join(STATEMENTS[1:])}",)
    if f.token.type == "PRIMED":
        return f.error("E0104", f"`{word}` starts no statement", "", f"write `transition {word} = ...`")
    if f.token.type != "NAME":
        return f.error("E0104", f"{quoted(f.token)} starts no statement", "", notes=known)
    if word == "repeat":
        return f.error("E0117", "`repeat` stands only inside a transition block", "",
                       "write `transition { repeat j < N { ... } }`")  # fmt: skip
    if after in ("_EQ", "EQUAL"):
        return f.error("E0104", f"`{word} = ...` is no statement", "", f"write `let {word} = ...`")
    near = SYNONYMS.get(word.lower()) or closest(word, STATEMENTS)
    if near is not None and near != "repeat":
        form = FORMS.get(near)
        help_ = f"did you mean `{near}`" + (f", as in `{form}`?" if word in SYNONYMS and form else "?")
        return f.error("E0104", f"`{word}` starts no statement", "", help_)
    return f.error("E0104", f"`{word}` starts no statement", "", notes=known)


def prime(f: Failure) -> Diagnostic | None:
    """A prime too many, or one too few."""
    word = f.token.text
    if f.token.type == "PRIMED" and f.wants_name:
        if f.keyword == "output":
            help_ = f"give the output a name of its own: `output o = {word}`"
        elif f.keyword in ("let", "gate", "const"):
            help_ = f"write `transition {word} = ...` for the state after the step, or leave the prime out"
        else:
            help_ = f"leave the prime out: `{word[:-1]}`"
        return f.error("E0108", f"`{word}` cannot be declared: only a transition makes it", "", help_)
    if f.token.type == "NAME" and f.expected >= {"PRIMED", "_LBRACE"} and f.keyword == "transition":
        return f.error("E0108", "a transition assigns to a primed name", f"`{word}` without its prime",
                       f"write `transition {word}' = ...`")  # fmt: skip
    return None


def block_opening(f: Failure) -> Diagnostic | None:
    """A transition or a layer without its brace on the line."""
    if "_LBRACE" not in f.expected or f.wants_operator:
        return None
    after = f.following
    if f.token.type == "_NEWLINE" and after is not None and after.type == "_LBRACE":
        message = f"`{{` stands on the line of `{f.keyword}`"
        return f.error("E0100", message, "expected `{` here", f"write `{f.keyword} {{`")
    form = "`transition S' = ...` or `transition { ... }`" if f.keyword == "transition" else "`layer { ... }`"
    return f.error("E0100", f"{quoted(f.token)} cannot follow `{f.keyword}`", "", f"write {form}")


def double_equal(f: Failure) -> Diagnostic | None:
    """``let x == 1``."""
    if f.token.type == "EQUAL" and "_EQ" in f.expected:
        return f.error("E0107", "`==` compares two values", "", "bind a value with `=`")
    return None


def range_bounds(f: Failure) -> Diagnostic | None:
    """A range without brackets, with a bound too few or too many, or where none can stand."""
    form = "write it as in `in (0, 1]`: `(` and `)` leave the bound out, `[` and `]` take it in"
    before = f.before
    ranges = [index for index, token in enumerate(before) if token.type == "IN"]
    if ranges and ranges[-1] == len(before) - 1:
        return f.error("E0115", "a range stands in brackets", "expected `(` or `[`", form)
    if ranges and f.open and f.open[0] is before[ranges[-1] + 1]:
        inner, depth = before[ranges[-1] + 2 :], len(f.open)
        commas = sum(token.type == "_COMMA" for token in inner)
        if depth == 1 and inner and not f.wants_operand:
            if f.token.type in ("RPAR", "RSQB") and not commas:
                return f.error("E0115", "a range has two bounds", "the upper bound is missing", form)
            if f.token.type == "_COMMA":
                return f.error("E0115", "a range has two bounds", "one bound too many", form)
            if not commas and f.token.type in ("NUMBER", "NAME", "COLON"):
                return f.error("E0115", "a `,` stands between the bounds of a range", "", form)
        return None
    if f.token.type == "IN" and f.keyword in ("state", "param", "dims", "const", "output", "let") and not f.wants_name:
        if f.wants_operator or f.wants_operand:
            return None
        return f.error("E0115", f"a range cannot be promised for `{f.keyword}`", "",
                       "only inputs and gates have ranges; bound other values with `clamp(x, lo, hi)`")  # fmt: skip
    if "IN" in f.expected and f.token.type in ("LPAR", "LSQB"):
        return f.error("E0115", "`in` is missing before the range", "", form)
    if "IN" in f.expected and f.token.type in COMPARISONS - {"EQUAL"}:
        return f.error("E0115", "a promised range is written with `in`", "", "write it as in `in (0, inf)`")
    return None


def axes(f: Failure) -> Diagnostic | None:
    """The brackets after a declared name."""
    previous, pending = f.previous, f.open
    if f.token.type == "LSQB" and previous is not None and previous.type == "RSQB" and not f.wants_operator:
        return f.error("E0114", "all axes stand in one pair of brackets", "", "write `[K, V]`")
    if not pending or pending[-1].type != "LSQB" or f.wants_operator or f.wants_operand:
        return None
    if "_COMMA" in f.expected and "RSQB" in f.expected:
        if f.token.type == "LSQB":
            opener = pending[-1].span
            return f.error("E0102", "`[` is never closed", "opened here", "add `]` where it ends", span=opener)
        if f.token.type == "NAME" and previous is not None:
            help_ = f"write `{previous.text}, {f.token.text}`"
            return f.error("E0114", "a `,` stands between two axes", "", help_)
        return f.error("E0114", "an axis is a single name", "", "declare another size with `dims` or `const`")
    if not f.wants_name:
        return None
    if f.token.type == "NUMBER":
        help_ = f"declare `const N = {f.token.text}` and write `N` here"
        return f.error("E0114", "an axis is a name, not a number", "", help_)
    if f.token.type == "RSQB" and previous is pending[-1]:
        return f.error("E0114", "the brackets are empty", "", "a scalar has no brackets")
    return f.error("E0114", "an axis is missing", f"expected a name before {quoted(f.token)}")


def property_or_comma(f: Failure) -> Diagnostic | None:
    """A word after an item of a declaration: a misspelt property, or a comma left out."""
    if f.token.type != "NAME" or "_COMMA" not in f.expected or f.wants_operator or f.open:
        return None
    word, known = f.token.text, PROPERTIES.get(f.keyword, ())
    if word in ("init", "frozen", "unit"):
        owner = "an input" if word == "unit" else "a parameter"
        helps = ("a start value is written `state m = -inf`",) if word == "init" and f.keyword == "state" else ()
        return f.error("E0121", f"`{word}` is a property of {owner}", f"not of `{f.keyword}`", *helps)
    near = closest(word, known)
    last = f.following is not None and f.following.type not in ("_COMMA", "LSQB")
    if near is not None and last:
        return f.error("E0121", f"`{word}` is no property of `{f.keyword}`", "", f"did you mean `{near}`?")
    helps = (f"write `{_joined(f.before)}, {word}`",) if len(f.before) <= 12 else ()
    return f.error("E0121", f"a `,` is missing before `{word}`", "", *helps)


def value_of_declaration(f: Failure) -> Diagnostic | None:
    """``input x = 1``, ``param W = 0``, ``dims K = 4``."""
    word = f.keyword
    if f.token.type == "_EQ" and not f.open and not (f.wants_operator or f.wants_operand):
        if word == "param" and "INIT" in f.expected:
            return f.error("E0107", "a parameter has no `=`", "", "write its start as `init zeros`, or bind a `let`")
        if word == "input" and "UNIT" in f.expected:
            return f.error("E0107", "an input has no value: it comes with the data", "", "bind a value with `let`")
    return size_of_dimension(f) if word == "dims" else None


def size_of_dimension(f: Failure) -> Diagnostic | None:
    """``dims K = 4``, ``dims N = M / 2``."""
    separators = [i for i, token in enumerate(f.before) if token.type == "_COMMA"]
    item = f.before[separators[-1] + 1 if separators else 1 :]
    if [token.type for token in item[1:]] == ["_EQ", "NUMBER"] and f.token.type in ("_NEWLINE", "_COMMA"):
        helps = f"write `const {item[0].text} = {item[2].text}`"
        return f.error("E0112", "a dimension has no fixed size", "expected a dimension's name", helps,
                       span=item[2].span)  # fmt: skip
    if len(item) < 2 or item[1].type != "_EQ" or f.token.type == "_NEWLINE":
        return None
    message = "a dimension has the size of another one or a whole multiple of it"
    return f.error("E0112", message, "", "write it as in `dims M, N = 2 * M`")


def missing_equal(f: Failure) -> Diagnostic | None:
    """A name and its value without `=` between them, or a name without a value."""
    if "_EQ" not in f.expected:
        return None
    if f.token.type == "_NEWLINE":
        form = FORMS.get(f.keyword, "")
        helps = (f"write it as in `{form}`",) if form else ()
        return f.error("E0107", "a value is missing", "expected `=` and an expression", *helps)
    if "_COMMA" in f.expected and f.token.type not in OPERANDS | {"MINUS"}:
        return None
    helps = (f"write `{_joined(f.before)} = ...`",) if len(f.before) <= 12 else ()
    return f.error("E0107", "`=` is missing", f"expected `=` before {quoted(f.token)}", *helps)


def _joined(tokens: list[Token]) -> str:
    """The head of a statement as it would be written."""
    keyword = f"{tokens[0].text} " if tokens[0].text in STATEMENTS and len(tokens) > 1 else tokens[0].text
    spaced = {"_COMMA": ", ", "IN": " in "}
    return keyword + "".join(spaced.get(token.type, token.text) for token in tokens[1:])


def no_name(f: Failure) -> Diagnostic | None:
    """A word, a number or nothing where a name is declared."""
    if not f.wants_name:
        return None
    if f.token.type == "IN" or f.token.text == "inf":
        return f.error("E0112", f"`{f.token.text}` is a reserved word", "", "choose another name")
    if f.token.type == "_NEWLINE":
        form = FORMS.get(f.keyword)
        helps = (f"write it as in `{form}`",) if form else ()
        return f.error("E0112", f"a name is missing after {quoted(f.previous or f.first)}", "expected a name", *helps)
    return f.error("E0112", f"{quoted(f.token)} is not a name", "expected a name")


def missing_header(tokens: list[Token], end: int) -> tuple[Diagnostic | None, Token | None]:
    """What to say of a file that does not begin with its name, and the name if it stands elsewhere."""
    help_ = "begin the file with a line such as `recurrence my_layer`"
    if not tokens:
        message = "the file is empty: a recurrence begins with `recurrence` and its name"
        return Diagnostic("E0105", message, Span(end, end), helps=(help_,)), None
    first = tokens[0]
    if first.text == "recurrence" or not (first.type == "NAME" and first.text in STATEMENTS):
        return None, None
    for before, token, name in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.text == "recurrence" and before.type == "_NEWLINE" and name.type == "NAME":
            message = "`recurrence` must be the first statement"
            return Diagnostic("E0105", message, token.span, helps=("move this line to the top of the file",)), name
    message = "the file does not begin with `recurrence` and its name"
    return Diagnostic("E0105", message, first.span, "expected `recurrence NAME` before this", helps=(help_,)), None


def too_many_blocks(brace: Token) -> Diagnostic:
    """The message for blocks inside blocks inside blocks."""
    help_ = "merge some of the `repeat` blocks"
    return Diagnostic("E0118", "blocks are nested too deeply", brace.span, "one block too many", helps=(help_,))


def too_many_brackets(bracket: Token) -> Diagnostic:
    """The message for brackets inside brackets inside brackets."""
    help_ = "name parts of the expression with `let`"
    return Diagnostic("E0118", "brackets are nested too deeply", bracket.span, "one too many", helps=(help_,))


def too_long(length: int, limit: int) -> Diagnostic:
    """The message for a text that is not read at all."""
    message = f"the file has {length} characters, more than the {limit} that are read"
    return Diagnostic("E0125", message, Span(0, 0), notes=("a recurrence has some twenty lines",))
