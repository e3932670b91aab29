"""Tokens to syntax tree, going on after every mistake.

The grammar is grammar.lark. When a statement cannot be read, the parser's stack is unwound to where a statement may
begin, the terminal ``BROKEN`` takes the statement's place, and reading goes on after its end (the error
productions of yacc). So every statement gives at most one message, in time linear in the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, UnexpectedToken
from lark.lexer import Lexer
from lark.parsers.lalr_analysis import Shift

from . import ast
from .build import MAX_DEPTH, Builder, Header, Refused
from .diagnostics import Diagnostic, SpecError
from .layout import layout
from .lexer import KEYWORDS, Token
from .recovery import continues, declared, opens_block
from .slips import Failure, diagnose
from .slips.statements import missing_header, too_long, too_many_blocks, too_many_brackets
from .source import Source, Span

MAX_BLOCKS = 16
"""Levels of blocks: the stages that walk them recursively must not run out of stack."""

MAX_LENGTH = 100_000
"""Characters of a text; longer ones are not read."""

MAX_ERRORS = 100
"""After so many syntax errors a text is no specification, and reading it ends."""


class _NoLexer(Lexer):
    """Lark asks for a lexer; tokens are fed one by one instead."""

    def __init__(self, _conf: Any) -> None:
        pass

    def lex(self, lexer_state: Any, parser_state: Any) -> Any:  # pragma: no cover
        raise NotImplementedError


@cache
def _lark() -> Lark:
    text = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer=_NoLexer, strict=True, transformer=Builder())


def parse(source: Source) -> ast.Recurrence:
    """The syntax tree of a `.rec` text; raises SpecError with all independent syntax errors."""
    recurrence, diagnostics, _ = parse_partial(source)
    if diagnostics or recurrence is None:
        raise SpecError(source, diagnostics)
    return recurrence


def parse_partial(source: Source) -> tuple[ast.Recurrence | None, tuple[Diagnostic, ...], frozenset[str]]:
    """What could be read of a `.rec` text, what could not, and the names that the latter may have declared.

    The tree lacks the broken statements (and broken items of blocks); it is None if no statement could be read.
    A broken assignment to a state counts as a name with its prime: ``S'``. A tree without a readable header is
    called ``unnamed``.
    """
    if len(source.text) > MAX_LENGTH:
        return None, (too_long(len(source.text), MAX_LENGTH),), frozenset()
    return _Reader(source).read()


def keywords(source: Source) -> dict[int, str]:
    """Where keywords stand in a text (by the offset of their first character), and their terminals.

    A word such as ``gate`` is a keyword in one place and a name in another; only the grammar knows.
    """
    if len(source.text) > MAX_LENGTH:
        return {}
    reader = _Reader(source)
    reader.read()
    return reader.keywords


class _Reader:
    """One run of the parser over one text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens, self.diagnostics = layout(source.text)
        self.state: Any = _lark().parse_interactive("").parser_state
        self.table = self.state.parse_conf.states
        self.lost: set[str] = set()
        self.begin = 0  # where the current statement or item starts
        self.brackets = 0  # how many round and square ones are open
        self.blocks: list[int] = []  # where the statements start whose blocks are open
        self.keywords: dict[int, str] = {}
        self.title: Token | None = None  # the name, if `recurrence` stands in the wrong place

    def read(self) -> tuple[ast.Recurrence | None, tuple[Diagnostic, ...], frozenset[str]]:
        """Feed every token, recover from every error, and put the tree together."""
        self.open_file()
        position = 0
        while position < len(self.tokens):
            token = self.retag(self.tokens[position])
            try:
                self.refuse_nesting(token)
                self.state.feed_token(token)
            except (UnexpectedToken, Refused) as error:
                position = self.recover(position, error)
                if len(self.diagnostics) >= MAX_ERRORS:
                    return None, _cut_short(self.diagnostics), frozenset(self.lost)
                continue
            self.passed(position, token)
            position += 1
        end = len(self.source.text)
        header, statements = self.state.feed_token(Token("$END", "", end, end), True)
        return self.result(header, statements), self.independent(), frozenset(self.lost)

    def independent(self) -> tuple[Diagnostic, ...]:
        """The messages in order; if a brace is itself a mistake, none about a brace that stays open."""

        def at_brace(diagnostic: Diagnostic) -> bool:
            return self.source.text.startswith("{", diagnostic.span.start)

        mistaken = any(at_brace(d) and d.code != "E0102" for d in self.diagnostics)
        kept = (d for d in self.diagnostics if not (mistaken and d.code == "E0102" and at_brace(d)))
        return tuple(sorted(kept, key=lambda d: (d.span, d.code)))

    def open_file(self) -> None:
        """Report a missing header and go on as if it were there."""
        diagnostic, self.title = missing_header(self.tokens, len(self.source.text))
        if diagnostic is None:
            return
        self.diagnostics.append(diagnostic)
        self.feed_broken(0)

    def retag(self, token: Token) -> Token:
        """Make a name a keyword where only the keyword can stand."""
        if token.type == "NAME" and token.text in KEYWORDS:
            keyword = KEYWORDS[token.text]
            row = self.table[self.state.state_stack[-1]]
            if "NAME" not in row and keyword in row:
                self.keywords[token.start] = keyword
                return token._replace(type=keyword)
        return token

    def refuse_nesting(self, token: Token) -> None:
        """Refuse a bracket that nests too deeply."""
        if token.type == "_LBRACE" and len(self.blocks) >= MAX_BLOCKS:
            raise Refused(too_many_blocks(token))
        if token.type in ("LPAR", "LSQB") and self.brackets >= MAX_DEPTH:
            raise Refused(too_many_brackets(token))

    def passed(self, position: int, token: Token) -> None:
        """Keep count of open blocks and brackets, and of where the statement starts, after a token was read."""
        match token.type:
            case "_LBRACE":
                self.blocks.append(self.begin)
                self.begin = position + 1
            case "RBRACE":
                self.begin = self.blocks.pop()
            case "LPAR" | "LSQB":
                self.brackets += 1
            case "RPAR" | "RSQB":
                self.brackets -= 1
            case "_NEWLINE":
                self.begin = position + 1

    def recover(self, position: int, error: UnexpectedToken | Refused) -> int:
        """Report an error, drop the statement or item it is in, and say where to go on."""
        if isinstance(error, Refused):
            self.diagnostics.append(error.diagnostic)
        elif self.tokens[position].text != "recurrence" or self.title not in self.tokens[position : position + 2]:
            expected = self.acceptable(error.expected)
            block = self.tokens[self.blocks[-1]].text if self.blocks else ""
            self.diagnostics.append(diagnose(Failure(self.tokens, self.begin, position, expected, block)))
        end = self.end_of_broken(position)
        self.lost |= declared(self.tokens[self.begin : end])
        self.feed_broken(self.tokens[self.begin].start)
        self.begin = end + 1
        self.brackets = 0
        return end + 1

    def acceptable(self, candidates: Iterable[str]) -> frozenset[str]:
        """Which terminals could really come next: an entry of an LALR table alone may promise too much."""
        return frozenset(terminal for terminal in candidates if self.leads_on(terminal))

    def leads_on(self, terminal: str) -> bool:
        """Whether the reductions that a terminal triggers end in its shift."""
        stack, base = self.state.state_stack, len(self.state.state_stack)
        added: list[int] = []
        while True:
            top = added[-1] if added else stack[base - 1]
            if terminal not in self.table[top]:
                return False
            action, rule = self.table[top][terminal]
            if action is Shift:
                return True
            for _ in rule.expansion:
                if added:
                    added.pop()
                else:
                    base -= 1
            top = added[-1] if added else stack[base - 1]
            added.append(self.table[top][rule.origin.name][1])

    def feed_broken(self, start: int) -> None:
        """Unwind to where a statement, or an item of the innermost open block, may begin and put BROKEN there."""
        state = self.state
        braces = sum(_is_brace(value) for value in state.value_stack)
        while True:
            if braces == len(self.blocks) and "BROKEN" in self.table[state.state_stack[-1]]:
                try:
                    state.feed_token(Token("BROKEN", "", start, start))
                    break
                except UnexpectedToken:
                    continue  # reductions were undone: look further down
            state.state_stack.pop()
            braces -= _is_brace(state.value_stack.pop())
        state.feed_token(Token("_NEWLINE", "", start, start))

    def end_of_broken(self, position: int) -> int:
        """The `_NEWLINE` that ends the statement with an error at ``position``, continuation lines included."""
        end = self.end_of_line(position)
        head = opens_block(self.tokens, self.begin, end)
        while continues(self.tokens, self.begin, end, self.column, head, bool(self.blocks)):
            end = self.end_of_line(end + 1)
        return end

    def end_of_line(self, position: int) -> int:
        depth = 0
        for index in range(position, len(self.tokens)):
            match self.tokens[index].type:
                case "_LBRACE":
                    depth += 1
                case "RBRACE" if depth:
                    depth -= 1
                case "_NEWLINE" if not depth:
                    return index
        return len(self.tokens) - 1

    def column(self, token: Token) -> int:
        """The column of a token's first character."""
        return self.source.position(token.start)[1]

    def result(self, header: Header, statements: tuple[ast.Statement, ...]) -> ast.Recurrence | None:
        """The whole tree, or None if nothing was read."""
        name = header.name or (ast.Ident(self.title.span, self.title.text) if self.title else None)
        if name is None and not statements:
            return None
        span = Span(self.tokens[0].start, max(token.end for token in self.tokens[-2:]))
        return ast.Recurrence(span, name or ast.Ident(Span(span.start, span.start), "unnamed"), header.doc,
                              statements, self.source)  # fmt: skip


def _is_brace(value: object) -> bool:
    return isinstance(value, Token) and value.type == "_LBRACE"


def _cut_short(diagnostics: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Say at the last message that reading ended there."""
    *kept, last = sorted(diagnostics, key=lambda d: d.span)[:MAX_ERRORS]
    note = f"more than {MAX_ERRORS} syntax errors: the rest of the file was not read"
    return (*kept, replace(last, notes=(*last.notes, note)))
