"""Each construct of the language, as a compact dump of its syntax tree."""

from __future__ import annotations

import pytest

from recurra.dsl import Source, Span, SpecError, ast, parse, parse_partial
from recurra.dsl.dump import dump
from recurra.dsl.parser import keywords


def tree(text: str) -> str:
    recurrence = parse(Source("r.rec", f"recurrence r\n{text}\n"))
    return "\n".join(map(dump, recurrence.statements))


def expression(text: str) -> str:
    return tree(f"let x = {text}").removeprefix("(let x ").removesuffix(")")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b - c", "(- (+ a b) c)"),
        ("a - b * c", "(- a (* b c))"),
        ("a * b @ c / d", "(/ (@ (* a b) c) d)"),
        ("a @ b @ c", "(@ (@ a b) c)"),
        ("-x^2", "(neg (^ x 2))"),
        ("K^-0.5", "(^ K (neg 0.5))"),
        ("a^b^c", "(^ a (^ b c))"),
        ("2^-x^2", "(^ 2 (neg (^ x 2)))"),
        ("-a * b", "(* (neg a) b)"),
        ("a * -b", "(* a (neg b))"),
        ("- -a", "(neg (neg a))"),
        ("+a", "a"),
        ("a - +b", "(- a b)"),
        ("(a + b) * c", "(* (+ a b) c)"),
        ("a + b < c * d", "(< (+ a b) (* c d))"),
        ("a == b", "(== a b)"),
        ("a != b", "(!= a b)"),
        ("(a <= b) >= c", "(>= (<= a b) c)"),
        ("S.T", "(T S)"),
        ("S'.T @ k", "(@ (T S') k)"),
        ("(S @ W).T.T", "(T (T (@ S W)))"),
        ("S.T^2", "(^ (T S) 2)"),
        ("k[j]", "(index k j)"),
        ("k[j][i + 1]", "(index (index k j) (+ i 1))"),
        ("k[1:N]", "(slice k 1 N)"),
        ("k[:N]", "(slice k _ N)"),
        ("k[1:]", "(slice k 1 _)"),
        ("k[:]", "(slice k _ _)"),
        ("k[-1]", "(index k (neg 1))"),
        ("f()", "(call f)"),
        ("f(a)", "(call f a)"),
        ("f(a, b,)", "(call f a b)"),
        ("where(a < b, a, b)", "(call where (< a b) a b)"),
        ("f(\n  a,  # first\n\n  b\n)", "(call f a b)"),
        ("(a\n + b)", "(+ a b)"),
        ("inf", "inf"),
        ("-inf", "(neg inf)"),
        ("1e-6 + .5 + 2. + 1E3", "(+ (+ (+ 1e-6 .5) 2.) 1E3)"),
        ("gate + input", "(+ gate input)"),
    ],
)
def test_expression(text: str, expected: str) -> None:
    assert expression(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dims K, U = K", "(dims K (= U K))"),
        ("dims M, N = 2*M, L = R * N", "(dims M (= N (* 2 M)) (= L (* R N)))"),
        ("const N = 2 * 3", "(const N (* 2 3))"),
        ("state S[K, V], m = -inf, h[K] = 1", "(state (S [K V]) (m (neg inf)) (h [K] 1))"),
        ("input q[K], x", "(input (q [K]) (x))"),
        ("input b[N] in (0, 1], k[N, K] unit", "(input (b [N] (in ( 0 1 ])) (k [N K] unit))"),
        ("input k[K] unit in [-1, 1)", "(input (k [K] (in [ (neg 1) 1 )) unit))"),
        ("param W[V, V] init identity", "(param (W [V V] (init identity)))"),
        ("param W[D] frozen init normal(0.1)", "(param (W [D] frozen (init (call normal 0.1))))"),
        ("param W[D] init zeros frozen", "(param (W [D] frozen (init zeros)))"),
        ("param g init log(1 - 2^(-5 - head))", "(param (g (init (call log (- 1 (^ 2 (- (neg 5) head)))))))"),
        ("param a, b init ones, c", "(param (a (init ones)) (b (init ones)) (c))"),
        ("param a, b frozen, c init zeros", "(param (a frozen) (b frozen) (c (init zeros)))"),
        ("def f() = 2", "(def (f) 2)"),
        ("def swiglu(a, b) = silu(a) * b", "(def (swiglu a b) (* (call silu a) b))"),
        ("gate g = a", "(gate g a)"),
        ("gate g[K] in (0, 1] = a", "(gate g [K] (in ( 0 1 ]) a)"),
        ("gate g in [2^-3, inf) = a", "(gate g (in [ (^ 2 (neg 3)) inf )) a)"),
        ("let x[K] = a", "(let x [K] a)"),
        ("transition S' = a * S", "(transition (S' (* a S)))"),
        ("transition { S' = a }", "(transition block (S' a))"),
        ("transition { S' = a; let b = S'; S' = b }", "(transition block (S' a) (let b S') (S' b))"),
        ("transition {\n\n  S' = a\n\n  # why\n  S' = S'\n\n}", "(transition block (S' a) (S' S'))"),
        (
            "transition {\n repeat j < N { S' = k[j]\n T' = S' }\n}",
            "(transition block (repeat j N (S' (index k j)) (T' S')))",
        ),
        (
            "transition { repeat j < N + 1 { repeat i < 2 { S' = a }; } }",
            "(transition block (repeat j (+ N 1) (repeat i 2 (S' a))))",
        ),
        ("output o = a", "(output o a)"),
        ("output o[V] = q @ S'", "(output o [V] (@ q S'))"),
        ("layer { q, k = linear(x); v = x }", "(layer (q k (call linear x)) (v x))"),
        ("layer {\n  input = linear(x)\n  y = state\n}", "(layer (input (call linear x)) (y state))"),
        ("layer { }", "(layer)"),
        ("input unit unit, gate, init[K], repeat", "(input (unit unit) (gate) (init [K]) (repeat))"),
        ("param frozen frozen init init", "(param (frozen frozen (init init)))"),
    ],
)
def test_statement(text: str, expected: str) -> None:
    assert tree(text) == expected


def test_axes_left_out_differ_from_none() -> None:
    gate, let, output = parse(Source("r", "recurrence r\ngate g = a\nlet x = a\noutput o = a")).statements
    assert isinstance(gate, ast.Gate) and gate.axes is None
    assert isinstance(let, ast.Let) and let.axes is None
    assert isinstance(output, ast.Output) and output.axes == ()


@pytest.mark.parametrize(
    ("text", "doc"),
    [
        ('recurrence r\n"""One line."""\nlet x = 1', "One line."),
        ('recurrence r """Beside."""\nlet x = 1', "Beside."),
        ('recurrence r\n\n# c\n"""One.\n\n    Two  \n      three\n    """\nlet x = 1', "One.\n\nTwo\n  three"),
        ('recurrence r\r\n"""One\r\ntwo"""\r\nlet x = 1', "One\ntwo"),
        ("recurrence r\nlet x = 1", ""),
    ],
)
def test_docstring(text: str, doc: str) -> None:
    assert parse(Source("r", text)).doc == doc


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffrecurrence r\nlet x = 1",
        "recurrence r\r\nlet x = 1\r\n",
        "\n\n  recurrence\tr   # name\n\n\tlet\tx =\t1\f\n\n",
        "recurrence r\nlet x = 1 # no line end",
    ],
)
def test_spaces_and_line_ends(text: str) -> None:
    assert dump(parse(Source("r", text))) == "(recurrence r)\n(let x 1)"


def test_spans_cover_what_was_written() -> None:
    text = "recurrence r\nlet x[K] = (a + b) * f(c)[1:2].T\ntransition {\n  S' = a\n}\ninput k[K] in (0, 1] unit\n"
    let, transition, given = parse(Source("r", text)).statements

    def written(span: Span) -> str:
        return text[span.start : span.end]

    assert written(let.span) == "let x[K] = (a + b) * f(c)[1:2].T"
    assert isinstance(let, ast.Let) and isinstance(let.value, ast.Binary)
    assert written(let.value.span) == "(a + b) * f(c)[1:2].T"
    assert written(let.value.op_span) == "*"
    assert written(let.value.left.span) == "(a + b)"
    assert isinstance(let.value.right, ast.Transpose) and written(let.value.right.value.span) == "f(c)[1:2]"
    assert isinstance(transition, ast.Transition)
    assert written(transition.span) == "transition {\n  S' = a\n}"
    assert written(transition.body[0].span) == "S' = a"
    assert isinstance(given, ast.Input) and given.items[0].range is not None
    assert written(given.items[0].span) == "k[K] in (0, 1] unit"
    assert written(given.items[0].range.span) == "in (0, 1]"
    assert written(given.items[0].axes[0].span) == "K"


def test_keywords_are_known_by_their_place() -> None:
    text = "recurrence gate\ngate gate = gate\ninput unit unit\n"
    assert [text[:start].count("\n") for start in keywords(Source("r", text))] == [0, 1, 2, 2]


def test_a_file_that_begins_with_its_name_elsewhere_keeps_it() -> None:
    recurrence, (diagnostic,), _ = parse_partial(Source("r", "dims K\nrecurrence late\nlet x = 1"))
    assert recurrence is not None and recurrence.name.id == "late" and diagnostic.code == "E0105"
    assert len(recurrence.statements) == 2


def test_diagnostics_are_in_the_order_of_the_text() -> None:
    with pytest.raises(SpecError) as caught:
        parse(Source("r", "recurrence r\nlet x = 2 ** 3\ntransition {\n  S' = 1\nlet y == 3\n"))
    assert [d.code for d in caught.value.diagnostics] == ["E0106", "E0102", "E0107"]
