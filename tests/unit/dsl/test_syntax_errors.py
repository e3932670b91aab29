"""Every syntax error: one rendered message per fixture, and no second one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recurra.dsl import Source, SpecError, parse, parse_partial, render_all
from recurra.dsl.codes import BY_CODE, CODES, explain
from recurra.dsl.lexer import scan
from recurra.dsl.parser import MAX_ERRORS, MAX_LENGTH

INVALID = Path(__file__).parents[2] / "fixtures" / "invalid"
FIXTURES = sorted((INVALID / "syntax").glob("*.rec"))
SEVERAL = {"five_mistakes": 5, "tabs": 1, "windows_lines": 1}


def source(path: Path) -> Source:
    return Source(path.name, path.read_bytes().decode("utf-8"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_message(path: Path, request: pytest.FixtureRequest) -> None:
    spec = source(path)
    _, diagnostics, _ = parse_partial(spec)
    assert len(diagnostics) == SEVERAL.get(path.stem, 1)
    text = render_all(spec, diagnostics)
    golden = path.with_suffix(".txt")
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        parse(spec)
    assert str(caught.value) == text


def test_every_code_has_a_fixture() -> None:
    shown = {
        code
        for path in INVALID.rglob("*.txt")
        for code in re.findall(r"^error\[(E\d{4})\]", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    made_by_a_test = {"E0125"}  # its fixture would be a very long file
    assert {entry.code for entry in CODES} - made_by_a_test <= shown
    assert shown <= set(BY_CODE)


def test_codes_are_unique_and_ordered() -> None:
    codes = [entry.code for entry in CODES]
    assert codes == sorted(set(codes))


def test_too_long_text_is_not_read() -> None:
    recurrence, (diagnostic,), lost = parse_partial(Source("big.rec", "#" * (MAX_LENGTH + 1)))
    assert recurrence is None and diagnostic.code == "E0125" and not lost


def test_reading_ends_after_many_errors() -> None:
    spec = Source("junk.rec", "recurrence r\n" + "foo bar\n" * 1000)
    recurrence, diagnostics, _ = parse_partial(spec)
    assert recurrence is None and len(diagnostics) == MAX_ERRORS
    assert "rest of the file was not read" in diagnostics[-1].notes[-1]


def test_the_rest_of_the_file_is_kept() -> None:
    text = "recurrence r\ndims K\nstate S[K], n[K] unit\ninput a\ntransition {\n  let x = 2 **\n  S' = a * S\n}\n"
    recurrence, diagnostics, lost = parse_partial(Source("r.rec", text))
    assert recurrence is not None and [d.code for d in diagnostics] == ["E0121", "E0106"]
    assert [type(s).__name__ for s in recurrence.statements] == ["Dims", "Input", "Transition"]
    assert {"S", "n", "x"} <= lost


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("trasition S' = a", {"S'"}),
        ("transition S = a", {"S", "S'"}),
        ("dims K V", {"K", "V"}),
        ("state S[K] = 0 +, n", {"S", "n"}),
        ("output o[V] q @ S", {"o"}),
        ("gate g in 0, 1 = x", {"g"}),
        ("x = 3", {"x"}),
        ("transitoin {\n S' = a\n let b = c\n}", {"S'", "b"}),
    ],
)
def test_names_of_broken_statements(text: str, names: set[str]) -> None:
    recurrence, (_,), lost = parse_partial(Source("r.rec", "recurrence r\n" + text + "\n"))
    assert names <= lost and recurrence is not None and recurrence.statements == ()


LANGUAGE = sorted((INVALID.parent / "valid" / "language").glob("*.rec"))


@pytest.mark.parametrize("path", LANGUAGE, ids=lambda path: path.stem)
def test_one_slip_gives_one_message(path: Path) -> None:
    """Leaving out any one token of a good file, or doubling it, never gives two messages."""
    tokens = [token.text for token in scan(path.read_text(encoding="utf-8"))]
    for index, token in enumerate(tokens):
        for slip in ("", f"{token} {token}"):
            if token.isspace() or token.startswith(("#", '"')):
                continue
            text = "".join([*tokens[:index], slip, *tokens[index + 1 :]])
            _, diagnostics, _ = parse_partial(Source("slip.rec", text))
            assert len(diagnostics) <= 1, render_all(Source("slip.rec", text), diagnostics)


def test_explain() -> None:
    text = explain("e107")
    assert text.startswith("E0107: ") and "\nwrong:\n" in text and "\nright:\n" in text
    with pytest.raises(KeyError, match="did you mean E01"):
        explain("E0199")
    with pytest.raises(KeyError, match="no error code 'nonsense'"):
        explain("nonsense")


@pytest.mark.parametrize("entry", [entry for entry in CODES if entry.code < "E0200"], ids=lambda entry: entry.code)
def test_examples_of_explanations(entry: object) -> None:
    """The wrong text gives the code it explains, and the right one gives no syntax error."""
    code, wrong, right = entry.code, entry.wrong, entry.right  # type: ignore[attr-defined]
    if code in ("E0118", "E0125"):
        pytest.skip("the example describes a long text")
    head = "" if wrong.startswith("recurrence") else "recurrence r\n"
    _, diagnostics, _ = parse_partial(Source("wrong.rec", head + wrong))
    assert code in {d.code for d in diagnostics}
    assert parse(Source("right.rec", head + right)).statements
