"""Every mistake beyond syntax: one rendered message per fixture, and no second one."""

from __future__ import annotations

from pathlib import Path

import pytest

from recurra.compiler.checks import check_sizes
from recurra.compiler.options import Options
from recurra.compiler.pipeline import compile_source
from recurra.dsl import Source, SpecError
from recurra.dsl.codes import CODES, Code

INVALID = Path(__file__).parents[2] / "fixtures" / "invalid" / "semantic"
FIXTURES = sorted(INVALID.glob("*.rec"))
SEVERAL = {"five_mistakes": 5}
OPTIONS = {"unknown_override": Options(consts=(("M", 4),))}


def messages(name: str, text: str, options: Options | None = None) -> SpecError:
    with pytest.raises(SpecError) as caught:
        compile_source(Source(name, text), options)
    return caught.value


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_message(path: Path, request: pytest.FixtureRequest) -> None:
    error = messages(path.name, path.read_text(encoding="utf-8"), OPTIONS.get(path.stem))
    text = str(error)
    assert len(error.diagnostics) == SEVERAL.get(path.stem, 1), text
    golden = path.with_suffix(".txt")
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_code_is_shown() -> None:
    shown = {line[6:11] for path in INVALID.glob("*.txt") for line in path.read_text("utf-8").splitlines()
             if line.startswith("error[")}  # fmt: skip
    assert {entry.code for entry in CODES if entry.code > "E0200"} <= shown


def test_the_contract_is_met_to_the_letter() -> None:
    """Section 7 of the language's contract, at the place where the operand really is."""
    text = "recurrence gru\n\ndims H, H2, D\nstate h[H]\nparam Wn[H, D]\ninput x[D], r, h2[H2]\n\n\n\n\n\n"
    text += "  let n = tanh(Wn @ x + r * h2)\ntransition h' = h\noutput o[H] = h'\n"
    assert str(messages("gru.rec", text)) == (
        "error[E0207]: `+` needs operands that align by axis name\n"
        "  --> gru.rec:12:25\n"
        "   |\n"
        "12 |   let n = tanh(Wn @ x + r * h2)\n"
        "   |                ------   ^^^^^^ [H2]\n"
        "   |                [H]\n"
        "   = note: `Wn` is declared [H, D] on line 5\n"
        "   = help: rename the axis, or contract it with `@`\n"
    )


def codes(text: str) -> set[str]:
    """The codes that a text gives, which may be a few lines that lack the rest of a file."""
    if not text.startswith("recurrence"):
        text = f"recurrence r\n{'' if 'dims' in text else 'dims K, V, D, M'}\n{text}\n"
    try:
        compile_source(Source("r.rec", text))
    except SpecError as error:
        return {diagnostic.code for diagnostic in error.diagnostics}
    return set()


@pytest.mark.parametrize("entry", [c for c in CODES if c.code > "E0200" and c.code != "E0225"], ids=lambda c: c.code)
def test_examples_of_explanations(entry: Code) -> None:
    """The wrong text gives the code that it explains, and the right one does not."""
    assert entry.code in codes(entry.wrong)
    assert entry.code not in codes(entry.right)


def test_sizes_that_are_bound_late() -> None:
    text = "recurrence r\ndims M\nstate z[M]\nlet y = z[2:M]\ntransition z' = z + z[3]\noutput o = sum(y)\n"
    program = compile_source(Source("r.rec", text)).program
    assert check_sizes(program, {"M": 4}) == ()
    assert check_sizes(program, {"M": 2}) == (
        "r.rec:4:9: takes entries 2 to 2 of the axis M, which has 2",
        "r.rec:5:21: takes entry 3 of the axis M, which has 2",
    )
