"""Where statements end: tokens without spaces and comments, one ``_NEWLINE`` after each statement.

Newlines inside ``( )`` and ``[ ]`` are dropped. A bracket that is never closed ends at the line that begins the next
statement, so that it spoils one statement and not the rest of the file.
"""

from __future__ import annotations

from .diagnostics import Diagnostic, Label
from .lexer import STATEMENTS, TRIVIA, Token, scan

BLOCKS = frozenset({"transition", "layer", "repeat"})
STARTERS = frozenset({*STATEMENTS, "repeat"})


def layout(text: str) -> tuple[list[Token], list[Diagnostic]]:
    """The tokens the grammar reads, and what is wrong with braces and semicolons.

    A round or square bracket that stays open becomes an ``UNCLOSED`` token with the bracket's own span at the end of
    its statement. A brace that stays open is reported here and closed, so that its contents count.
    """
    layouter = _Layout(list(scan(text)), len(text))
    layouter.run()
    return layouter.out, layouter.diagnostics


class _Layout:
    def __init__(self, raw: list[Token], end: int) -> None:
        self.raw = raw
        self.end = end
        self.out: list[Token] = []
        self.diagnostics: list[Diagnostic] = []
        self.open: list[Token] = []
        self.braces = 0  # how many of them are braces
        self.closed = _closed_braces(raw)
        self.semicolon_seen = False
        self.first = 0  # where the statement starts in ``out``
        self.value = False  # whether an `=` was seen in the statement

    def run(self) -> None:
        line_start = True
        for index, token in enumerate(self.raw):
            match token.type:
                case "SPACE" | "COMMENT":
                    continue
                case "NEWLINE":
                    line_start = True
                    if not self.in_parentheses:
                        self.newline(token)
                    continue
            if line_start and self.open and _begins_statement(self.raw, index):
                self.close_parentheses(token.start)
                if token.text in STATEMENTS and token.text != "let":
                    self.close_braces(token.start, matched=False)
            line_start = False
            self.place(token)
        self.close_parentheses(self.end)
        self.close_braces(self.end, matched=True)
        self.newline(Token("_NEWLINE", "", self.end, self.end))

    @property
    def in_parentheses(self) -> bool:
        return bool(self.open) and self.open[-1].type != "_LBRACE"

    def place(self, token: Token) -> None:
        """Put one visible token where it belongs and keep the stack of open brackets."""
        match token.type:
            case "_LBRACE" if self.value or self.in_parentheses:
                token = token._replace(type="STRAY_BRACE")  # a slip for a round bracket, and treated as one
                self.open.append(token)
            case "_LBRACE":
                self.open.append(token)
                self.braces += 1
            case "LPAR" | "LSQB":
                self.open.append(token)
            case "RBRACE" if self.in_parentheses and self.open[-1].type == "STRAY_BRACE":
                self.open.pop()
            case "RPAR" | "RSQB" if self.in_parentheses:
                self.open.pop()
            case "RBRACE" if self.in_headless_repeat():
                pass  # it closes the brace that was forgotten
            case "RBRACE" if self.braces:
                self.close_parentheses(token.start)
                self.newline(Token("_NEWLINE", "", token.start, token.start))
                self.open.pop()
                self.braces -= 1
            case "RPAR" | "RSQB" if self.open and self.open[-1].start not in self.closed and self.at_start:
                self.close_wrongly(token)
                return
            case "SEMICOLON" if not self.in_parentheses:
                if not self.open and not self.semicolon_seen:
                    self.semicolon_seen = True
                    self.diagnostics.append(_stray_semicolon(token))
                self.newline(token)
                return
        if self.at_start:
            self.first = len(self.out)
        self.out.append(token)
        self.value = token.type == "_EQ" or (self.value and token.type != "_LBRACE")

    @property
    def at_start(self) -> bool:
        """Whether the next token begins an item of a block."""
        return bool(self.out) and self.out[-1].type in ("_NEWLINE", "_LBRACE")

    def in_headless_repeat(self) -> bool:
        """Whether the statement that is being read is ``repeat j < N S' = ...`` without its opening brace."""
        head = self.out[self.first : self.first + 2]
        return not self.at_start and len(head) == 2 and head[0].text == "repeat" and head[1].type == "NAME"

    def close_wrongly(self, token: Token) -> None:
        """Take a round or square bracket on its own for the brace that is missing."""
        opener = self.open.pop()
        self.braces -= 1
        message = f"`{{` is closed by `{token.text}`"
        labels = (Label(opener.span, "opened here"),)
        self.diagnostics.append(Diagnostic("E0103", message, token.span, "expected `}`", labels))
        self.out.append(token._replace(type="RBRACE"))

    def newline(self, token: Token) -> None:
        """End the statement, unless nothing stands in it."""
        if self.out and self.out[-1].type not in ("_NEWLINE", "_LBRACE"):
            self.out.append(token._replace(type="_NEWLINE"))
            self.value = False

    def close_parentheses(self, position: int) -> None:
        """Give up on the round and square brackets that are open."""
        innermost = self.open[-1] if self.in_parentheses else None
        while self.in_parentheses:
            self.open.pop()
        if innermost is not None:
            self.out.append(innermost._replace(type="UNCLOSED"))
            self.newline(Token("_NEWLINE", "", position, position))

    def close_braces(self, position: int, matched: bool) -> None:
        """Close the open braces, those that have a partner further on only if ``matched``; one message for all."""
        outermost = None
        while self.open and (matched or self.open[-1].start not in self.closed):
            outermost = self.open.pop()
            self.braces -= 1
            self.newline(Token("_NEWLINE", "", position, position))
            self.out.append(Token("RBRACE", "", position, position))
            self.newline(Token("_NEWLINE", "", position, position))
        if outermost is not None:
            help_ = "add a `}` on a line of its own after the last assignment"
            diagnostic = Diagnostic("E0102", "`{` is never closed", outermost.span, "opened here", helps=(help_,))
            self.diagnostics.append(diagnostic)


def _closed_braces(raw: list[Token]) -> frozenset[int]:
    """Where the braces open that some later brace closes."""
    pending: list[int] = []
    closed: set[int] = set()
    for token in raw:
        if token.type == "_LBRACE":
            pending.append(token.start)
        elif token.type == "RBRACE" and pending:
            closed.add(pending.pop())
    return frozenset(closed)


def _begins_statement(raw: list[Token], index: int) -> bool:
    """Whether a line starts with what can only be a new statement, even if brackets are open before it."""
    words = _line_head(raw, index)
    first, second = words[0], words[1] if len(words) > 1 else None
    if second is None:
        return False
    if first.type == "PRIMED":
        return second.type == "_EQ"
    if first.type != "NAME":
        return False
    if first.text in STARTERS and second.type == "NAME":
        return True
    if first.text == "transition" and second.type == "PRIMED":
        return True
    if first.text in BLOCKS and second.type == "_LBRACE":
        return True
    return words[-1].type == "_EQ"


def _line_head(raw: list[Token], index: int) -> list[Token]:
    """The first two tokens of a line, and those after them while they read ``a, b, c =``."""
    head: list[Token] = []
    for position in range(index, len(raw)):
        token = raw[position]
        if token.type == "NEWLINE":
            break
        if token.type in TRIVIA:
            continue
        head.append(token)
        wanted = "NAME" if len(head) % 2 else "_COMMA"
        if token.type != wanted and len(head) >= 2:
            break
    return head


def _stray_semicolon(token: Token) -> Diagnostic:
    return Diagnostic(
        "E0119",
        "`;` separates assignments inside braces only",
        token.span,
        label="write a new line instead",
        notes=("one statement stands on one line; later `;` of this file are not listed",),
    )
