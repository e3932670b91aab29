"""How messages look, and what they are as data."""

from __future__ import annotations

from recurra.dsl import Diagnostic, Source, Span, parse_partial
from recurra.dsl.diagnostics import Label
from recurra.dsl.highlight import STYLES, pieces, to_html, to_terminal
from recurra.dsl.render import LONGEST, columns, render, render_all, to_json
from recurra.dsl.suggest import closest, distance

GRU = "recurrence gru\n\n\n\nparam Wn[H, D]\n\n\n\n\n\n\n  let n = tanh(Wn @ x + r * h2)\n"


def at(text: str, part: str) -> Span:
    start = text.index(part)
    return Span(start, start + len(part))


def test_look_of_the_language_contract() -> None:
    diagnostic = Diagnostic(
        "E0207",
        "`+` needs operands that align by axis name",
        at(GRU, "r * h2"),
        "[H2]",
        (Label(at(GRU, "Wn @ x"), "[H]"),),
        ("`Wn` is declared [H, D] on line 5",),
        ("rename the axis, or contract it with `@`",),
    )
    assert render(Source("gru.rec", GRU), diagnostic) == (
        "error[E0207]: `+` needs operands that align by axis name\n"
        "  --> gru.rec:12:25\n"
        "   |\n"
        "12 |   let n = tanh(Wn @ x + r * h2)\n"
        "   |                ------   ^^^^^^ [H2]\n"
        "   |                [H]\n"
        "   = note: `Wn` is declared [H, D] on line 5\n"
        "   = help: rename the axis, or contract it with `@`\n"
    )


def shown(text: str, diagnostic: Diagnostic) -> list[str]:
    """The lines between the position and the notes."""
    return render(Source("f", text), diagnostic).splitlines()[3:]


def test_labels_on_other_lines_with_a_gap() -> None:
    text = "one\ntwo\nthree\nfour\nfive\n"
    labels = (Label(at(text, "one"), "first"), Label(at(text, "four"), ""))
    assert shown(text, Diagnostic("E0100", "m", at(text, "five"), "here", labels)) == [
        "1 | one",
        "  | --- first",
        "...",
        "4 | four",
        "  | ----",
        "5 | five",
        "  | ^^^^ here",
    ]


def test_several_labels_under_one_line() -> None:
    text = "let n = tanh(Wn @ x + r)"
    labels = (Label(at(text, "tanh"), "one"), Label(at(text, "x"), "two"), Label(at(text, "r)"), "three"))
    assert shown(text, Diagnostic("E0100", "m", at(text, "Wn"), "main", labels)) == [
        "1 | let n = tanh(Wn @ x + r)",
        "  |         ---- ^^   -   -- three",
        "  |         |    |    two",
        "  |         |    main",
        "  |         one",
    ]


def test_overlapping_labels() -> None:
    text = "a + b * c"
    labels = (Label(at(text, "a + b * c"), "whole"),)
    assert shown(text, Diagnostic("E0100", "m", at(text, "b"), "part", labels)) == [
        "1 | a + b * c",
        "  | ----^----",
        "  | |   part",
        "  | whole",
    ]


def test_span_over_several_lines() -> None:
    text = "let x = f(a,\n\n\n  b)\n"
    assert shown(text, Diagnostic("E0100", "m", at(text, "f(a,\n\n\n  b)"), "call")) == [
        "1 | let x = f(a,",
        "  |         ^^^^",
        "...",
        "4 |   b)",
        "  |   ^^ call",
    ]


def test_tabs_and_wide_characters() -> None:
    text = "\tlet 日本\t= \u0301x\x07"
    assert shown(text, Diagnostic("E0100", "m", at(text, "x"), "here")) == [
        "1 |     let 日本    = \u0301x\ufffd",
        "  |                   ^ here",
    ]
    assert columns("日本\t\u0301x") == 9


def test_end_of_file_and_empty_text() -> None:
    assert shown("ab\n", Diagnostic("E0100", "m", Span(3, 3), "end")) == ["2 |", "  | ^ end"]
    assert shown("", Diagnostic("E0100", "m", Span(0, 0))) == ["1 |", "  | ^"]
    assert shown("ab", Diagnostic("E0100", "m", Span(2, 3), "after")) == ["1 | ab", "  |   ^ after"]


def test_long_lines_are_shown_in_part() -> None:
    text = "a" * 1000 + "!" + "b" * 1000
    line, under = shown(text, Diagnostic("E0100", "m", at(text, "!"), "here"))
    assert len(line) < LONGEST + 20 and line.startswith("1 | ...a") and line.endswith("b...")
    assert under.index("^") == line.index("!")


def test_no_control_character_or_surrogate_is_printed() -> None:
    text = "recurrence r\nlet x = \x1b[31m \ud800\n"
    spec = Source("\x1bname", text)
    out = render_all(spec, parse_partial(spec)[1])
    assert "\x1b" not in out and out.encode()


def test_colour_changes_nothing_but_colour() -> None:
    import re

    spec = Source("f.rec", "recurrence r\ninput q unit unit\nlet x = (2]\n")
    plain = render_all(spec, parse_partial(spec)[1])
    coloured = render_all(spec, parse_partial(spec)[1], colour=True)
    assert coloured != plain
    assert [line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", coloured).split("\n")] == plain.split("\n")


def test_json() -> None:
    spec = Source("f.rec", "recurrence r\ninput q unit unit\n")
    (diagnostic,) = parse_partial(spec)[1]
    assert to_json(spec, diagnostic) == {
        "severity": "error",
        "code": "E0116",
        "message": "`unit` is given twice",
        "file": "f.rec",
        "range": {"start": {"line": 2, "column": 14}, "end": {"line": 2, "column": 18}},
        "label": "again here",
        "labels": [
            {"range": {"start": {"line": 2, "column": 9}, "end": {"line": 2, "column": 13}}, "text": "first here"}
        ],
        "notes": [],
        "helps": ["keep one of the two"],
    }


def test_closest() -> None:
    assert closest("trasition", ["let", "transition"]) == "transition"
    assert closest("sigmiod", ["sigmoid", "sign"]) == "sigmoid"
    assert closest("State", ["state", "stat"]) == "state"
    assert closest("xyz", ["let", "transition"]) is None
    assert closest("a", ["b"]) is None
    assert closest("let", ["let"]) is None


def test_distance_counts_swaps_once_and_stops_early() -> None:
    assert distance("ab", "ba", 3) == 1
    assert distance("kitten", "sitting", 5) == 3
    assert distance("kitten", "sitting", 1) == 2
    assert distance("", "abc", 5) == 3


def test_highlighting_covers_the_text() -> None:
    text = 'recurrence r # c\n"""Doc & co."""\ngate gate in (0, 1] = exp(S\') ~ 2\n'
    spec = Source("f.rec", text)
    found = [(text[span.start : span.end], kind) for span, kind in pieces(spec)]
    assert "".join(piece for piece, _ in found) == text
    kinds = [(piece, kind) for piece, kind in found if kind in STYLES]
    assert kinds == [
        ("recurrence", "keyword"),
        ("# c", "comment"),
        ('"""Doc & co."""', "doc"),
        ("gate", "keyword"),
        ("in", "keyword"),
        ("0", "number"),
        ("1", "number"),
        ("exp", "function"),
        ("S'", "state"),
        ("~", "error"),
        ("2", "number"),
    ]
    assert '<span class="rec-doc">&quot;&quot;&quot;Doc &amp; co.' in to_html(spec)
    assert "\x1b[1;35mgate\x1b[0m gate" in to_terminal(spec)
