"""Declarations, transitions and their order, blocks, repeats, overrides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recurra.compiler.frontend import elaborate
from recurra.compiler.ir.program import Initialiser, Program, depends_on, related_sizes, show_body
from recurra.compiler.ir.size import Size
from recurra.compiler.ir.types import EVERYTHING, Axis, Interval
from recurra.compiler.ir.verify import check_program
from recurra.dsl import Source, SpecError, parse
from recurra.runtime.reference import evaluate


def program(text: str, **consts: float) -> Program:
    found = elaborate(parse(Source("r.rec", f"recurrence r\n{text}\n")), consts)
    check_program(found)
    return found


def codes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        program(text)
    return [d.code for d in caught.value.diagnostics]


def step(found: Program, sizes: dict[str, int], **leaves: Tensor) -> dict[str, Tensor]:
    kinds = {**dict.fromkeys((s.name for s in found.states), "state"), **{p.name: "param" for p in found.params}}
    given = {(kinds.get(name, "input"), name): tensor for name, tensor in leaves.items()}
    roots = {f"{s.name}'": s.next for s in found.states} | {o.name: o.value for o in found.outputs}
    like = torch.zeros((), dtype=torch.float64)
    values = evaluate(found.body, roots.values(), given, sizes, 0, like=like)
    return {name: values[root] for name, root in roots.items()}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


DECLARATIONS = """
dims K, V, U = K
const N = 2
const scale = 0.5
state S[K, V], m = -inf
state h[K] = scale * 2
input k[N, K] unit, b[N] in [0, 2], c in (-inf, 0)
param W[V, V], X[V, V] init orthogonal frozen
param w init log(1 - 2^(-5 - head)), t[U] init normal(scale), e init 0.5
transition S' = S
transition m' = m
transition h' = h
output o = m
"""


def test_multiples_of_dimensions() -> None:
    text = "const R = 3\ndims M, N = 2 * M, L = R * N, U = N\nstate h[N]\ninput x[M], y[L], z[U]\n"
    found = program(text + "transition h' = concat(x, h[0:M]) / N\noutput o[N] = h'\n")
    assert [(d.name, d.alias, d.times, str(d.size)) for d in found.dims] == [
        ("M", None, 1, "M"),
        ("N", "M", 2, "2*M"),
        ("L", "M", 6, "6*M"),
        ("U", "M", 2, "2*M"),
    ]
    assert found.states[0].axes == (Axis("N", Size.of("M") * 2),)
    assert [i.axes[0].size.bind({"M": 5}) for i in found.inputs] == [5, 30, 10]
    assert program(text + "transition h' = h\noutput o[N] = h'\n", R=2).dims[2].times == 4


def test_related_sizes() -> None:
    dims = program("dims M, N = 2 * M, K\nstate h[N]\ntransition h' = h\noutput o[N] = h'\n").dims
    assert related_sizes(dims, {"N": 6}) == {"M": 3, "N": 6}
    assert related_sizes(dims, {"M": 3, "N": 6, "K": 1}) == {"M": 3, "N": 6, "K": 1}
    assert related_sizes(dims, {}) == {}
    with pytest.raises(ValueError, match=r"^N = 7 is not 2 times a whole M$"):
        related_sizes(dims, {"N": 7})
    with pytest.raises(ValueError, match=r"^N = 6 does not go with M = 4: N is 2\*M$"):
        related_sizes(dims, {"N": 6, "M": 4})


def test_declarations() -> None:
    found = program(DECLARATIONS)
    K, V, U = (Axis(name, Size.of(size)) for name, size in (("K", "K"), ("V", "V"), ("U", "K")))
    N = Axis("N", Size(2))
    assert [(d.name, d.alias) for d in found.dims] == [("K", None), ("V", None), ("U", "K")]
    assert found.consts == (("N", 2.0), ("scale", 0.5))
    assert [(s.name, s.axes) for s in found.states] == [("S", (K, V)), ("m", ()), ("h", (K,))]
    assert [found.body[s.start].attrs[0] for s in found.states] == [0.0, float("-inf"), 1.0]
    assert [(i.name, i.axes, i.range, i.unit) for i in found.inputs] == [
        ("k", (N, K), EVERYTHING, True),
        ("b", (N,), Interval(0, 2), False),
        ("c", (), Interval(float("-inf"), 0, True, True), False),
    ]
    inits = {p.name: (p.init.rule, p.init.numbers, p.frozen) for p in found.params}
    assert inits == {
        "W": ("orthogonal", (), True),
        "X": ("orthogonal", (), True),
        "w": ("expression", (), False),
        "t": ("normal", (0.5,), False),
        "e": ("expression", (), False),
    }
    assert found.params[3].axes == (U,)
    start = found.params[2].init
    assert isinstance(start, Initialiser) and start.value is not None
    heads = {("head", "head"): torch.arange(3, dtype=torch.float64)}
    assert torch.equal(
        evaluate(found.body, [start.value], heads, {}, 1)[start.value],
        torch.log(1 - 2 ** (-5 - torch.arange(3, dtype=torch.float64))),
    )


def test_consts_are_overridden() -> None:
    text = "const N = 2\nconst M = N + 1\nstate h\ntransition {\n  repeat j < M { h' = 2 * h' }\n}\noutput o = h'"
    assert step(program(text), {}, h=number(1.0))["o"] == 8
    assert step(program(text, N=4), {}, h=number(1.0))["o"] == 32
    assert dict(program(text, M=1).consts) == {"N": 2, "M": 1}


def test_states_read_each_others_new_value_in_any_order() -> None:
    text = """
dims D
state h[D], c[D], m
input x[D], f
transition h' = tanh(c') * m'
let seen = 2 * c'
transition c' = f * c + x
transition m' = max(m, f)
output o[D] = h' + seen + c
"""
    found = program(text)
    h, c, x = torch.randn(3, 4, dtype=torch.float64)
    f, m = number(0.5), number(0.3)
    result = step(found, {"D": 4}, h=h, c=c, x=x, f=f, m=m)
    after = f * c + x
    torch.testing.assert_close(result["c'"], after)
    torch.testing.assert_close(result["h'"], torch.tanh(after) * 0.5)
    torch.testing.assert_close(result["o"], torch.tanh(after) * 0.5 + 2 * after + c)


def test_blocks_run_in_order_and_old_states_stay() -> None:
    text = """
const N = 3
state s, t
input x
transition {
  let first = s + x
  s' = first
  repeat j < N {
    let twice = 2 * s'
    s' = twice + j
    repeat i < 2 { t' = t' + s' * i }
  }
  t' = t' + s
}
output o = s' + t
"""
    s, t, x = 1.5, 2.5, 0.25
    new_s, new_t = s + x, t
    for j in range(3):
        new_s = 2 * new_s + j
        for i in range(2):
            new_t += new_s * i
    new_t += s
    result = step(program(text), {}, s=number(s), t=number(t), x=number(x))
    assert (result["s'"], result["t'"], result["o"]) == (new_s, new_t, new_s + t)


def test_a_scalar_is_spread_and_axes_are_reordered() -> None:
    text = """
dims K, V
state S[K, V], R[K, V]
input M[V, K]
transition S' = 0
transition R' = M
output o[V] = 1
"""
    M = torch.randn(5, 4, dtype=torch.float64)
    result = step(program(text), {"K": 4, "V": 5}, M=M, S=torch.zeros(4, 5), R=torch.zeros(4, 5))
    assert torch.equal(result["S'"], torch.zeros(4, 5, dtype=torch.float64))
    assert torch.equal(result["R'"], M.T)
    assert torch.equal(result["o"], torch.ones(5, dtype=torch.float64))


def test_functions_are_written_out() -> None:
    text = """
state s
input x
const c = 3
def f(y) = c * y + x
def g(y, z) = f(y) - f(z)
transition s' = g(s, 2 * s)
output o = f(s')
"""
    found = program(text)
    result = step(found, {}, s=number(2.0), x=number(7.0))
    assert (result["s'"], result["o"]) == (-6, -11)


def test_a_let_may_be_a_structured_matrix() -> None:
    text = """
dims K, V
state S[K, V]
input k[K], v[V], b
let P[K, K] = householder(k, b)
transition S' = P @ S + outer(k, v)
output o[V] = k @ P @ S'
"""
    found = program(text)
    assert not any(len(i.axes) == 2 and i.axes[0] == i.axes[1] for i in found.body)
    S, k, v = torch.randn(4, 5), torch.randn(4), torch.randn(5)
    S, k, v = S.double(), k.double(), v.double()
    H = torch.eye(4).double() - 0.5 * torch.outer(k, k)
    result = step(found, {"K": 4, "V": 5}, S=S, k=k, v=v, b=number(0.5))
    torch.testing.assert_close(result["S'"], H @ S + torch.outer(k, v))
    torch.testing.assert_close(result["o"], k @ H @ (H @ S + torch.outer(k, v)))


def test_householder_is_what_a_person_would_write() -> None:
    text = "dims K, V\nstate S[K, V]\ninput k[K], b\ntransition S' = householder(k, b) @ S\noutput o[V] = k @ S'"
    found = program(text)
    assert show_body(found.body).splitlines()[1:-1] == [
        "%1 [K] = leaf input k",
        "%2 scalar = leaf input b",
        "%3 [K, V] = leaf state S",
        "%4 [V] = contract %1 %3 0 0,1 1",
        "%5 [K, V] = contract %1 %4 0 1 0,1",
        "%6 [K, V] = broadcast %2 -1,-1",
        "%7 [K, V] = mul %6 %5",
        "%8 [K, V] = sub %3 %7",
    ]


def test_gates_read_no_state() -> None:
    found = program("state h\ninput x\ngate f in [0, 1] = sigmoid(x)\nlet y = f\ngate g = y * f\n"
                    "transition h' = g * h\noutput o = h'")  # fmt: skip
    assert [g.name for g in found.gates] == ["f", "g"]
    flags = depends_on(found.body, ("state",))
    assert not any(flags[g.value] for g in found.gates)


HEAD = "dims K, V\nstate S[K, V], h[K]\ninput k[K], v[V], a\n"
KEEP = "transition S' = S\ntransition h' = h\noutput o[K] = h'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("let x = q\nlet y = q\nlet z = x + y\n", ["E0201"]),
        ("let x = q + r\n", ["E0201", "E0201"]),
        ("let x = k + v\nlet y = x * 2\ngate g = y\n", ["E0207"]),
        ("let x = (k + v) @ (S @ k)\n", ["E0207", "E0210"]),
        ("let a = 1\nlet b = k + v\n", ["E0202", "E0207"]),
        ("def f(x) = x + q\nlet y = f(a) + f(k)\n", ["E0201"]),
        ("def f(x) = x + v\nlet y = f(a)\nlet z = f(k)\n", ["E0207"]),
        ("input w[Q]\nlet y = w + k\n", ["E0201"]),
        ("const c = 1 / 0\ninput w in (c, 1)\nlet y = c * w\n", ["E0216"]),
        ("dims Q = X\ninput w[Q]\nlet y = w[0]\n", ["E0201"]),
        ("gate g in [1, 0] = sigmoid(a)\nlet y = g * k\n", ["E0302"]),
        ("let y = sigmoid()\nlet z = foo(y, k + v)\n", ["E0205", "E0204", "E0207"]),
        ("let y = where(k > v, a, k @ v)\n", ["E0207", "E0210"]),
        ("let y = clamp(k + v, foo(1), 2)\n", ["E0207", "E0204"]),
    ],
)
def test_every_mistake_is_said_once(text: str, expected: list[str]) -> None:
    assert codes(HEAD + text + KEEP) == expected


def test_names_of_unreadable_statements_are_left_alone() -> None:
    tree = parse(Source("r.rec", "recurrence r\ninput k\nstate h\noutput o = lost * h' + l2'\n"))
    elaborate(tree, {}, {"lost", "h'", "l2"})
    with pytest.raises(SpecError, match="E0401"):
        elaborate(tree, {}, {"lost", "l2"})


def test_deep_and_wide_files() -> None:
    """Long chains of functions end in a message, not in Python's own limits."""
    chain = "def f0(x) = x + 1\n" + "".join(f"def f{i}(x) = f{i - 1}(x) + f{i - 1}(x)\n" for i in range(1, 40))
    assert codes(HEAD + chain + "let y = f39(a)\n" + KEEP) == ["E0118"]
    deep = "def f0(x) = x\n" + "".join(f"def f{i}(x) = {'-' * 40}f{i - 1}(x)\n" for i in range(1, 20))
    assert codes(HEAD + deep + "let y = f19(a)\n" + KEEP) == ["E0118"]
    matrices = "let m0 = householder(k, a)\n" + "".join(f"let m{i} = m{i - 1} @ m{i - 1}\n" for i in range(1, 40))
    assert codes(HEAD + matrices + "let y = m39 @ S\n" + KEEP) == ["E0118"]
    states = f"state {', '.join(f's{i}' for i in range(1501))}\n"
    states += "".join(f"transition s{i}' = s{i + 1}' + 1\n" for i in range(1500))
    long = program(states + "transition s1500' = s1500\noutput o = s0'")
    assert step(long, {}, **{f"s{i}": number(0.0) for i in range(1501)})["o"] == 1500
