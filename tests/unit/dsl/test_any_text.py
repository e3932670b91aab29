"""Whatever the text, the front end answers with messages, soon."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.dsl import Source, SpecError, format_source, parse, parse_partial, render_all
from recurra.dsl.highlight import pieces
from recurra.dsl.lexer import KEYWORDS, OPERATORS
from recurra.dsl.parser import MAX_LENGTH
from recurra.dsl.render import to_json

WORDS = [
    *KEYWORDS,
    *OPERATORS,
    "in",
    "inf",
    "S",
    "S'",
    "K",
    "1",
    "0.5",
    " ",
    "\n",
    "\n  ",
    '"""',
    "# c",
    ".T",
    "\u03b1",
    "'",
    "+=",
]


def answer(text: str) -> None:
    """Everything the front end does with a text."""
    spec = Source("any.rec", text)
    recurrence, diagnostics, lost = parse_partial(spec)
    assert recurrence is not None or diagnostics
    assert all(0 <= d.span.start <= d.span.end <= len(text) + 1 for d in diagnostics)
    render_all(spec, diagnostics).encode()
    assert [to_json(spec, d)["code"] for d in diagnostics] == [d.code for d in diagnostics]
    assert all(isinstance(name, str) for name in lost)
    assert "".join(text[span.start : span.end] for span, _ in pieces(spec)) == text
    try:
        once = format_source(spec)
    except SpecError as error:
        assert error.diagnostics == tuple(sorted(diagnostics, key=lambda d: (d.span, d.code)))
    else:
        assert not diagnostics
        assert format_source(Source("any.rec", once)) == once


@given(st.text())
def test_any_characters(text: str) -> None:
    answer(text)


@given(st.text(st.characters(codec=None, categories=None)))
def test_any_code_points(text: str) -> None:
    answer("recurrence r\n" + text)


@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_words(words: list[str]) -> None:
    answer("recurrence r\n" + " ".join(words))


@given(st.lists(st.sampled_from(WORDS), max_size=30), st.lists(st.sampled_from(WORDS), max_size=30))
def test_a_broken_statement_spoils_no_other(before: list[str], after: list[str]) -> None:
    """A good statement on its own line between any others keeps its meaning, if brackets around it are closed."""
    closed = [word for word in (*before, *after) if word not in ("{", "}", '"""')]
    half = len(closed) // 2
    text = f"recurrence r\n{' '.join(closed[:half])}\ndims Q_Q\n{' '.join(closed[half:])}\n"
    recurrence, _, _ = parse_partial(Source("any.rec", text))
    assert recurrence is not None
    assert any("Q_Q" in repr(statement) for statement in recurrence.statements)


H = "recurrence r\n"
N = MAX_LENGTH - 100
LARGE = {
    "nothing": "",
    "zeros": "\0" * N,
    "line ends": "\n" * N,
    "surrogates": "\ud800" * N,
    "open parentheses": H + "let x = " + "(" * N,
    "open brackets": H + "let x = a" + "[" * N,
    "closing": ")" * N,
    "open braces": H + "transition " + "{" * N,
    "closing braces": "}" * N,
    "braces in parentheses": H + "let x = " + "(" * (N // 2) + "}" * (N // 2),
    "blocks": H + "transition {" + "repeat j<2{" * (N // 11),
    "parentheses": H + "let x = " + "(" * (N // 3) + "a" + ")" * (N // 3),
    "signs": H + "let x = " + "-" * N + "a",
    "sum": H + "let x = a" + "+a" * (N // 2),
    "powers": H + "let x = a" + "^a" * (N // 2),
    "indices": H + "let x = a" + "[0]" * (N // 3),
    "digits": H + "let x = " + "9" * N,
    "word": H + "let x = 1" + "e" * N,
    "quotes": '"' * N,
    "docstrings": H + '"""\n' * (N // 4),
    "commas": H + "dims " + "K," * (N // 2),
    "bad lines": "foo bar\n" * (N // 8),
    "open lines": H + "let x = f(\n" * (N // 12),
    "continuation": H + "let x =\n" + "+\n" * (N // 2),
    "indented": H + "transition\n" + "  a\n" * (N // 4),
    "million": "x" * 10**6,
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_large_texts(name: str) -> None:
    begin = time.perf_counter()
    answer(LARGE[name])
    assert time.perf_counter() - begin < 30  # some seconds; the limit leaves room for a loaded machine


def test_reading_takes_linear_time() -> None:
    def seconds(lines: int) -> float:
        text = H + "let x = a + b * c\n" * lines
        begin = time.perf_counter()
        parse(Source("r.rec", text))
        return time.perf_counter() - begin

    seconds(10)
    assert min(seconds(4000) for _ in range(3)) < 40 * min(seconds(400) for _ in range(3))


def test_starting_needs_nothing_heavy() -> None:
    """Parsing imports neither torch nor triton nor sympy, and importing the package not even the parser."""
    code = (
        "import sys, recurra.dsl; assert 'lark' not in sys.modules\n"
        "recurra.dsl.parse(recurra.dsl.Source('r.rec', 'recurrence r\\nlet x = 1'))\n"
        "assert not {'torch', 'triton', 'sympy', 'numpy', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
