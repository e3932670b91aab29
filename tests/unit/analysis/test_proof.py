"""The proof of normal forms: it accepts those of the compiler and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from unit.analysis.specs import SPECS, compiled, named, step

from recurra.compiler.analysis.affine import AffineForm, Link, Pair, affine_form
from recurra.compiler.analysis.canonical import Canonical
from recurra.compiler.analysis.proof import NotProved, prove, prove_passes
from recurra.compiler.analysis.ranges import promises, ranges
from recurra.compiler.forms import pass_forms
from recurra.compiler.ir.builder import Builder

RICH = """recurrence rich
dims K, V
state S[K, V], n[K]
input q[K], k[K], k2[K], p[K], v[V], x[K], b, s
gate a[K] in (0, 1) = sigmoid(x)
gate c in [-1, 1] = tanh(s)
transition {
  S' = c * a * S + outer(k, v)
  S' = S' + b * outer(k, v - p @ S') + outer(k2, v)
}
transition {
  n' = c * a * n + k
  n' = n' + b * k * (1 - p @ n') + k2
}
output o[V] = tanh(q @ S') / max(abs(q @ n'), 1) + (q @ k) * v
output before[V] = q @ S
"""


@pytest.mark.parametrize("name", SPECS)
def test_passes_and_forms_are_the_step(name: str) -> None:
    found = named(name)
    parts = pass_forms(found)
    prove_passes(found, [part.program for part in parts])
    for part in parts:
        if part.form is not None:
            prove(part.program, part.form)


def test_everything_at_once() -> None:
    found = compiled(RICH)
    form = affine_form(found)
    assert len(form.links) == 1 and form.per_channel and form.signed and len(form.members) == 2
    prove(found, form)


# ---------------------------------------------------------------- broken on purpose


def _pair(form: AffineForm, change: Callable[[Builder, Pair], Pair], read: bool = True) -> AffineForm:
    """The form with its first pair that reads (or does not) changed."""
    builder = Builder(form.body)
    links, done = [], False
    for link in form.links:
        pairs = []
        for pair in link.pairs:
            hit = not done and (pair.read is not None) == read
            done = done or hit
            pairs.append(change(builder, pair) if hit else pair)
        links.append(replace(link, pairs=tuple(pairs)))
    assert done
    return replace(form, links=tuple(links), body=tuple(builder.body))


def _decay(form: AffineForm, change: Callable[[Builder, Link], Link]) -> AffineForm:
    builder = Builder(form.body)
    links = (change(builder, form.links[0]), *form.links[1:])
    return replace(form, links=links, body=tuple(builder.body))


def _log(builder: Builder, link: Link) -> Link:
    assert link.decay is not None
    return replace(link, decay=replace(link.decay, log=builder.apply("neg", link.decay.log)))


def _no_sign(builder: Builder, link: Link) -> Link:
    assert link.decay is not None and link.decay.sign is not None
    return replace(link, decay=replace(link.decay, sign=None))


def _other_value(builder: Builder, link: Link) -> Link:
    assert link.decay is not None
    return replace(link, decay=replace(link.decay, value=builder.apply("abs", link.decay.value)))


def _given_late(form: AffineForm) -> AffineForm:
    """A read that is moved behind a given write of its link."""
    (link,) = form.links
    given = tuple(pair for pair in link.pairs if pair.read is None)
    assert given
    reading = tuple(pair for pair in link.pairs if pair.read is not None)
    return replace(form, links=(replace(link, pairs=given), Link(None, reading)))


MUTATIONS: dict[str, Callable[[AffineForm], AffineForm]] = {
    "a read before the decay": lambda f: _pair(f, lambda b, p: replace(p, post=not p.post)),
    "no scale": lambda f: _pair(f, lambda b, p: replace(p, scale=None)),
    "the scale's sign": lambda f: _pair(f, lambda b, p: replace(p, scale=b.apply("neg", p.scale))),  # type: ignore[arg-type]
    "nothing read": lambda f: _pair(f, lambda b, p: replace(p, read=None, scale=None)),
    "another key": lambda f: _pair(f, lambda b, p: replace(p, key=p.read or 0)),
    "nothing given": lambda f: _pair(f, lambda b, p: replace(p, values=(None,) * len(p.values)), read=False),
    "nothing given to the second": lambda f: _pair(f, lambda b, p: replace(p, values=(p.values[0], None)), read=False),
    "reads after writes": _given_late,
    "the logarithm": lambda f: _decay(f, _log),
    "no sign": lambda f: _decay(f, _no_sign),
    "the decay's value": lambda f: _decay(f, _other_value),
    "no decay": lambda f: _decay(f, lambda b, link: replace(link, decay=None)),
    "a link less": lambda f: replace(f, links=f.links[1:]),
    "reads at the wrong time": lambda f: replace(f, reads=tuple(replace(r, before=not r.before) for r in f.reads)),
    "reads with a key": lambda f: replace(f, reads=tuple(replace(r, query=f.links[0].pairs[0].key) for r in f.reads)),
    "outputs exchanged": lambda f: replace(f, outputs=(("o", f.outputs[1][1]), ("before", f.outputs[0][1]))),
    "outputs of the step": lambda f: replace(f, outputs=tuple((o.name, o.value) for o in compiled(RICH).outputs)),
    "another body": lambda f: replace(f, body=f.body[1:]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_form_is_refused(name: str) -> None:
    found = compiled(RICH)
    broken = MUTATIONS[name](affine_form(found))
    with pytest.raises(NotProved, match="rich: "):
        prove(found, broken)


WRITE_THEN_READ = "{ S' = sigmoid(x) * S + outer(p, w)\n S' = sigmoid(c) * S' - outer(k, k @ S') }"
READ_THEN_DECAY = "{ S' = householder(k, b) @ S + outer(p, v)\n S' = sigmoid(x) * S' + outer(e, w) }"
TWO_DECAYS = "{ S' = a * householder(k, b) @ S + outer(p, v)\n S' = sigmoid(c) * householder(p, b) @ S' }"
SHARED_KEY = "S' = a * S + outer(k, v - a * (k @ S)) + outer(k, w)"


BROKEN_ALGEBRA = [
    ("links._decayed", lambda algebra, pair, before, after: pair, READ_THEN_DECAY),
    ("links._scalars_first", lambda algebra, parts: list(parts), None),
    ("links._as_post", lambda algebra, pair, decay: replace(pair, post=True), SHARED_KEY),
    ("links._same_key", lambda x, y: x if x.key == y.key else None, SHARED_KEY),
    ("products.Algebra.all_times", lambda algebra, products, factor: products, TWO_DECAYS),
    ("products.Algebra.dot", lambda algebra, x, y, size: size, WRITE_THEN_READ),
    ("products.Algebra.folded", lambda algebra, product: replace(product, negative=not product.negative), SHARED_KEY),
    ("affine.log_decay", lambda program, builder, decay: (builder.const(0.0), None, False), SHARED_KEY),
]


@pytest.mark.parametrize(("name", "wrong", "transition"), BROKEN_ALGEBRA, ids=[name for name, *_ in BROKEN_ALGEBRA])
def test_broken_algebra_is_found(
    name: str, wrong: Callable[..., object], transition: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way to join links and products is needed: without it the proof fails."""
    found = step(f"transition {transition or TWO_DECAYS}")
    prove(found, affine_form(found))
    monkeypatch.setattr(f"recurra.compiler.analysis.{name}", wrong)
    if transition is None:  # where decays stand is a choice: the form stays right
        prove(found, affine_form(found))
        return
    with pytest.raises(NotProved):
        prove(found, affine_form(found))


def test_the_difference_is_shown() -> None:
    found = compiled(
        "recurrence r\ndims K, V\nstate S[K, V]\ninput k[K], v[V], b in (0, 1]\n"
        "transition S' = b * S + outer(k, v)\noutput o[V] = k @ S'\n"
    )
    form = affine_form(found)
    broken = replace(form, links=(replace(form.links[0], decay=None),))
    with pytest.raises(NotProved, match=r"r: S'\[0, 0\] less its normal form is S\[0, 0\]\*b - S\[0, 0\], not 0"):
        prove(found, broken)


@pytest.mark.parametrize("name", ["mlstm", "running_softmax"])
def test_broken_passes_are_refused(name: str) -> None:
    found = named(name)
    first, *rest = [part.program for part in pass_forms(found)]
    (state,) = first.states
    old = next(p for p, instr in enumerate(first.body) if instr.attrs == ("state", state.name))
    broken = replace(first, states=(replace(state, next=old),))
    with pytest.raises(NotProved):
        prove_passes(found, [broken, *rest])
    with pytest.raises(NotProved, match="no pass makes"):
        prove_passes(found, [first])


# ---------------------------------------------------------------- equal and different values


def same(left: str, right: str) -> bool:
    """Whether two expressions have one canonical form."""
    text = (
        "recurrence r\ndims K\nstate h[K]\ninput x[K], y[K], z[K] in (0, 1], a, b\ntransition h' = x\n"
        f"output l[K] = {left}\noutput r[K] = {right}\n"
    )
    found = compiled(text)
    walk = Canonical({"K": 2})
    leaves = {i.attrs: walk.leaf(i.attrs[1], i.axes) for i in found.body if i.op == "leaf"}
    outputs = [o.value for o in found.outputs]
    values = walk.values(found.body, outputs, leaves, ranges(found.body, promises(found)))
    return values[outputs[0]] == values[outputs[1]]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(x + y) * (x - y)", "x^2 - y * y - 0 * x"),
        ("tanh(x * (y + 1))", "tanh(x * y + x)"),
        ("exp(x + y)", "exp(y) * exp(x)"),
        ("exp(2 * x - y)", "exp(-y) * exp(2 * x)"),
        ("exp(log(z) + x)", "z * exp(x)"),
        ("exp(2 * x) + exp(0 * x)", "exp(x)^2 + 1"),
        ("exp(logsigmoid(x))", "sigmoid(x)"),
        ("exp(log(z) + log(z))", "z^2"),
        ("abs(x) * sign(x)", "x"),
        ("abs(x)^2 * sign(x)^2 * y", "x * y * x"),
        ("x / 4", "0.25 * x"),
        ("(x + y) / a", "x / a + y / a"),
        ("max(x, K) * y", "y * max(x, K)"),
        ("(x @ y) * x", "x * sum(y * x, K)"),
    ],
)
def test_equal(left: str, right: str) -> None:
    assert same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("exp(log(x))", "x"),  # not for a negative x
        ("exp(-2 * x)", "exp(-x)"),
        ("sign(x) * sign(x) * y", "y"),  # not at 0
        ("abs(x)", "x"),
        ("stop_grad(x)", "x"),  # another gradient
        ("clip_grad(x, 1)", "clip_grad(x, 2)"),
        ("max(x, K) + 0 * x", "x"),
        ("where(a > b, x, y)", "where(b > a, x, y)"),
        ("x / y", "y / x"),
        ("pow(z, a)", "pow(z, b)"),
    ],
)
def test_different(left: str, right: str) -> None:
    assert not same(left, right)
