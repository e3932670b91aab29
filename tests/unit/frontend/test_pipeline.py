"""The front half as a whole: what it makes, how it is shown, what it costs, and that no text breaks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.compiler.frontend.clashes import ast_names
from recurra.compiler.frontend.order import expressions
from recurra.compiler.options import Options
from recurra.compiler.pipeline import STAGES, compile_source
from recurra.dsl import Source, SpecError, ast, parse
from recurra.dsl.lexer import scan

FIXTURES = Path(__file__).parents[2] / "fixtures"
ZOO = Path(__file__).parents[3] / "examples" / "zoo"
VALID = sorted([*(FIXTURES / "valid").rglob("*.rec"), *(FIXTURES / "unseen").glob("*.rec"), *ZOO.glob("*.rec")])


def read(path: Path) -> Source:
    return Source(path.name, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", VALID, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_valid_files_pass_every_stage(path: Path) -> None:
    compiled = compile_source(read(path))
    assert list(compiled.stages) == [stage.name for stage in STAGES]
    assert all(str(result) or name == "check" for name, result in compiled.stages.items())
    assert [facts.state for facts in compiled.facts] == [state.name for state in compiled.program.states]


def test_options_reach_the_stages() -> None:
    path = ZOO / "gated_delta_product.rec"
    compiled = compile_source(read(path), Options(consts=(("N", 3),)))
    assert compiled.facts[0].title == "product of 3 Householders along K"


FIVE = """
import sys, time
began = time.perf_counter()
from recurra.compiler.pipeline import compile_source
from recurra.dsl import Source, SpecError
try:
    compile_source(Source("five.rec", open(sys.argv[1]).read()))
except SpecError as error:
    found = len(error.diagnostics)
seconds = time.perf_counter() - began
heavy = [name for name in ("torch", "triton", "sympy", "numpy", "jinja2") if name in sys.modules]
print(found, heavy, seconds < 2.0)
"""


def test_five_mistakes_fast_and_without_torch() -> None:
    path = FIXTURES / "invalid" / "semantic" / "five_mistakes.rec"
    out = subprocess.run([sys.executable, "-c", FIVE, str(path)], capture_output=True, text=True, check=True)
    assert out.stdout.split(maxsplit=1) == ["5", "[] True\n"]


TOKENS = sorted({token.text for path in VALID for token in scan(read(path).text) if token.text.strip()} - {"#"})
TOKENS = [token for token in TOKENS if not token.startswith(("#", '"'))]


def survives(text: str) -> None:
    """Either it compiles, or it is refused with messages inside the text."""
    try:
        compile_source(Source("some.rec", text))
    except SpecError as error:
        assert error.diagnostics
        assert str(error)
        assert all(0 <= d.span.start <= d.span.end <= len(text) + 1 for d in error.diagnostics)


@given(st.data())
def test_mutated_files(data: st.DataObject) -> None:
    source = read(data.draw(st.sampled_from(VALID)))
    tokens = [token.text for token in scan(source.text)]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(tokens) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                tokens[at] = data.draw(st.sampled_from(TOKENS))
            case 1:
                tokens.insert(at, data.draw(st.sampled_from(TOKENS)))
            case 2:
                other = data.draw(st.integers(0, len(tokens) - 1))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3 if len(tokens) > 1:
                del tokens[at]
    survives("".join(tokens))


NAMES = ["S", "S'", "h", "h'", "k", "v", "a", "W", "K", "V", "N", "P", "j", "f"]
ATOMS = st.sampled_from([*NAMES, "0", "1", "2", "0.5", "inf", "tanh", "head"])
BINARY = st.sampled_from(["+", "-", "*", "/", "@", "^", "<", "=="])
CALLS = st.sampled_from(
    "exp log sqrt square relu sum mean max min softmax logsumexp norm l2norm layernorm concat outer diag eye "
    "householder rotation where clamp clip_grad stop_grad pow f linear".split()
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, BINARY, inner),
        st.builds("{}({})".format, CALLS, st.lists(inner, min_size=0, max_size=3).map(", ".join)),
        st.builds("{}[{}]".format, inner, inner),
        st.builds("{}[{}:{}]".format, inner, inner, inner),
        st.builds("{}.T".format, inner),
        st.builds("-{}".format, inner),
    ),
    max_leaves=8,
)


@given(st.lists(EXPRESSIONS, min_size=6, max_size=6))
def test_any_expressions(parts: list[str]) -> None:
    gate, let, first, second, third, output = parts
    survives(
        "recurrence r\ndims K, V\nconst N = 2\nstate S[K, V], h[K]\ninput k[K], v[V], a in (0, 1)\n"
        f"input P[N]\nparam W[K, K] init {let}\ndef f(x) = x * {third}\n"
        f"gate g in [0, 1] = {gate}\nlet y = {let}\n"
        f"transition {{\n  repeat j < N {{\n    let z = {first}\n    S' = {second} + z\n  }}\n}}\n"
        f"transition h' = {third}\noutput o[V] = {output}\noutput p = y\n"
    )


@given(st.lists(st.sampled_from([*TOKENS, "\n", "\n", " "]), max_size=60))
def test_token_soup(tokens: list[str]) -> None:
    survives("recurrence r\n" + " ".join(tokens))


@pytest.mark.parametrize("path", VALID, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_one_wrong_name_gives_one_message(path: Path) -> None:
    """Whatever depends on an erroneous expression is silent."""
    source = read(path)
    units = [s for s in parse(source).statements if isinstance(s, ast.Gate | ast.Let | ast.Output | ast.Transition)]
    for name in (name for unit in units for expr in expressions(unit) for name in ast_names(expr)):
        text = f"{source.text[: name.span.start]}nobody_knows{source.text[name.span.end :]}"
        with pytest.raises(SpecError) as caught:
            compile_source(Source(path.name, text))
        (found,) = caught.value.diagnostics
        assert found.code in ("E0201", "E0212") and found.span.start == name.span.start
