"""The formatter: one layout, the same meaning, every comment."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.dsl import Source, SpecError, format_source, parse
from recurra.dsl.dump import dump
from recurra.dsl.lexer import scan

ROOT = Path(__file__).parents[3]
SPECS = sorted([*ROOT.glob("examples/**/*.rec"), *ROOT.glob("tests/fixtures/valid/**/*.rec")])

UNTIDY = '''recurrence   x   """doc
  second"""
# above


# below
dims K,V
state S[ K,V ],m=-inf
param a[ K ] init  -1 , b  frozen   # tight
gate  g in(0,1]=a   # wide
let x=-a^-b*( -c )[ 1 :-2 ] .T   #unspaced
let y = f(a,   # first
       b

       ,c)
transition{S'=a;
 repeat j<N{S'=b;;T'=c;}  # why

 # before
}

layer { q,k=linear( x ); }


'''

TIDY = '''recurrence x
"""doc
  second"""
# above

# below
dims K, V
state S[K, V], m = -inf
param a[K] init -1, b frozen  # tight
gate g in (0, 1] = a          # wide
let x = -a^-b * (-c)[1:-2].T  #unspaced
let y = f(a,                  # first
  b
  , c)
transition {
  S' = a
  repeat j < N { S' = b; T' = c }  # why

  # before
}

layer { q, k = linear(x) }
'''


def formatted(text: str) -> str:
    return format_source(Source("x.rec", text))


def comments(text: str) -> list[str]:
    return [token.text.rstrip() for token in scan(text) if token.type == "COMMENT"]


def test_layout() -> None:
    assert formatted(UNTIDY) == TIDY


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_specs_keep_their_meaning(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    once = formatted(text)
    assert formatted(once) == once
    assert dump(parse(Source("a", once))) == dump(parse(Source("a", text)))
    assert comments(once) == comments(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("let x = 1 .T", "let x = 1 .T"),
        ("let x = 1.0e-06+ .5", "let x = 1.0e-06 + .5"),
        ("let x = a   -   -b", "let x = a - -b"),
        ("let x = a<-b", "let x = a < -b"),
        ("let x = ((a))", "let x = ((a))"),
        ("transition { S' = a }", "transition { S' = a }"),
        ("transition { S' = a # c\n}", "transition {\n  S' = a  # c\n}"),
        ("transition { # c\n S' = a }", "transition {  # c\n  S' = a\n}"),
        ("transition {\n\n\n S' = a\n\n\n}", "transition {\n  S' = a\n}"),
        ("layer { }", "layer {}"),
        ("layer {\n}", "layer {\n}"),
        ("let x = f(\na,\nb\n)", "let x = f(\n  a,\n  b\n)"),
        ("def f( a,b )=a", "def f(a, b) = a"),
        ("let x = f (a) [0]", "let x = f(a)[0]"),
        ("input gate[K] unit", "input gate[K] unit"),
        ("let init = init (a)", "let init = init(a)"),
        ("transition{let q=a;S'=q}", "transition { let q = a; S' = q }"),
    ],
)
def test_statement(text: str, expected: str) -> None:
    assert formatted(f"recurrence r\n{text}\n") == f"recurrence r\n{expected}\n"


def test_line_ends_and_byte_order_mark_go() -> None:
    assert formatted("\ufeffrecurrence r\r\n\r\n\r\nlet x = 1  # c\r\n") == "recurrence r\n\nlet x = 1  # c\n"


def test_broken_text_is_refused() -> None:
    with pytest.raises(SpecError):
        formatted("recurrence r\nlet x = = 1\n")


PIECES = [token.text for token in scan(UNTIDY)]


INSERTED = [" ", "\n", "# c\n", "\t", "(", ")", ";", "\n\n", ""]


@given(st.lists(st.tuples(st.integers(0, len(PIECES) - 1), st.sampled_from(INSERTED)), max_size=6))
def test_mutated_texts(changes: list[tuple[int, str]]) -> None:
    """Whatever still parses is formatted without a change of meaning, and formatting it again changes nothing."""
    pieces = list(PIECES)
    for index, piece in changes:
        pieces[index] = piece if pieces[index].isspace() or not piece.strip() else pieces[index] + piece
    text = "".join(pieces)
    try:
        before = dump(parse(Source("a", text)))
    except SpecError:
        return
    once = formatted(text)
    assert formatted(once) == once
    assert dump(parse(Source("a", once))) == before
    assert comments(once) == comments(text)
