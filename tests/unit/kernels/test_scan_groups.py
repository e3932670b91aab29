"""Which recurrences a scan can run, as what, and what is said of others."""

from __future__ import annotations

import pytest
from unit.kernels.against_reference import spec, zoo

from recurra.compiler.analysis.elementwise import Group, adjoint_groups, step_groups
from recurra.compiler.analysis.linear import Reason
from recurra.compiler.autodiff.reverse import adjoint_step
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.program import Program, depends_on
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.options import KernelOptions

HEADER = """recurrence r
dims K, V
state S[K, V], h[K], g[K], f[K], m
input k[K], v[V], a, b[K], X[K, V]
param W[K, K], w[K]
"""
OTHERS = ("S' = S", "h' = h", "g' = g", "f' = f", "m' = m")


def program(*transitions: str) -> Program:
    """A recurrence with these transitions; states that none of them mentions stay as they are."""
    given = {t.split("'")[0] for t in transitions}
    kept = [t for t in OTHERS if t.split("'")[0] not in given]
    lines = "\n".join(f"transition {t}" for t in (*transitions, *kept))
    return spec(f"{HEADER}{lines}\noutput o[K] = h'\n")


def forward(p: Program) -> dict[tuple[str, ...], Group]:
    found = step_groups(Builder(p.body), p)
    assert not isinstance(found, Reason), found
    return {group.states: group for group in found}


def backward(p: Program) -> dict[tuple[str, ...], Group]:
    step = adjoint_step(p)
    found = adjoint_groups(Builder(step.body), p, dict(step.states))
    assert not isinstance(found, Reason), found
    return {group.states: group for group in found}


KINDS = {
    "h' = b * h + k": "affine",
    "h' = (h + k) * b - h / (1 + a * a)": "affine",
    "h' = -(h - b)": "affine",
    "h' = where(k > 0, b * h, k)": "affine",
    "h' = where(k > 0, h, 0)": "affine",
    "h' = diag(b) @ h + stop_grad(h)": "affine",
    "h' = h + k": "sum",
    "h' = k + 1 * h - b": "sum",
    "h' = h": "sum",
    "h' = k": "replaced",
    "h' = 0.5": "replaced",
    "h' = max(h + a, b)": "max",
    "h' = max(b - a, h) + k": "max",
    "h' = max(max(h, k) + w, max(h + b, a))": "max",
    "h' = relu(h + k)": "max",
    "h' = min(h, k)": "min",
    "h' = min(h - b, k) - w": "min",
}


@pytest.mark.parametrize("text", KINDS)
def test_kinds_of_one_state(text: str) -> None:
    assert forward(program(text))["h",].kind == KINDS[text]


@pytest.mark.parametrize("text", KINDS)
def test_coefficients_read_no_state(text: str) -> None:
    p = program(text)
    builder = Builder(p.body)
    found = step_groups(builder, p)
    assert not isinstance(found, Reason)
    of_state = depends_on(tuple(builder.body), ("state",))
    assert not any(of_state[value] for group in found for value in group.values())


MATRICES = {
    "S' = a * S + outer(k, v)": "affine",
    "S' = diag(b) @ S + X": "affine",
    "S' = S @ diag(v) * X": "affine",
    "S' = (S.T * outer(v, k)).T + X": "affine",
    "S' = S + outer(k, v)": "sum",
}


@pytest.mark.parametrize("text", MATRICES)
def test_matrix_states(text: str) -> None:
    assert forward(program(text))["S",].kind == MATRICES[text]


PAIRS = {
    ("h' = b * h - k * g", "g' = k * h + b * g + w"): "complex",
    ("h' = b * h + k * g", "g' = b * g - k * h"): "complex",
    ("h' = b * (h - k * g)", "g' = b * g + b * (k * h)"): "complex",
    ("h' = b * (h - k * g)", "g' = b * g + a * (k * h)"): "coupled",
    ("h' = cos(k) * h - sin(k) * g", "g' = sin(k) * h + cos(k) * g"): "complex",
    ("h' = h - g", "g' = h + g"): "complex",
    ("h' = b * h - k * g", "g' = k * h - b * g"): "coupled",
    ("h' = g", "g' = h"): "coupled",
    ("h' = b * h + g", "g' = g + k"): "coupled",
    ("h' = b * h", "g' = k * h' + g"): "coupled",
}


@pytest.mark.parametrize("texts", PAIRS)
def test_two_states_that_read_each_other(texts: tuple[str, str]) -> None:
    p = program(*texts)
    assert forward(p)["h", "g"].kind == PAIRS[texts]
    assert backward(p)["h", "g"].kind == PAIRS[texts]


def test_states_by_themselves_are_groups_of_their_own() -> None:
    p = program("h' = b * h", "g' = max(g, k)", "m' = a * m + 1", "f' = k")
    assert {states: group.kind for states, group in forward(p).items()} == {
        ("S",): "sum",
        ("h",): "affine",
        ("g",): "max",
        ("f",): "replaced",
        ("m",): "affine",
    }


def test_the_adjoint_of_a_maximum_is_affine() -> None:
    """Its slope reads the state, which is known by then; a sum's is one, a replaced state's there is none."""
    found = backward(program("h' = max(h + b, k)", "g' = g + k", "f' = k"))
    assert [found[name,].kind for name in "hgf"] == ["affine", "sum", "replaced"]


REFUSED = {
    "h' = tanh(h)": "`tanh` of `h`",
    "h' = h * h": "product of `h` and itself",
    "h' = h * g": "product of `h` and `g`",
    "h' = k / h": "`/` of `h`",
    "h' = where(h > 0, k, b)": "`<` of `h`",
    "h' = abs(h)": "`abs` of `h`",
    "h' = W @ h": "entries of `h` mix along K",
    "h' = k * sum(h, K)": "entries of `h` mix along K",
    "h' = h * 0 + m": "entries of `m` are moved",
    "h' = concat(h[1:K], k[0:1])": "entries of `h` are moved",
    "h' = max(2 * h, k)": "`max` of `h`",
    "h' = 2 * max(h, k)": "`*` of `h`",
    "h' = max(h, min(h, k))": "`max` of `h`",
    "h' = max(h, g)": "`max` of `h` and `g`",
    "h' = k - max(h, b)": "`-` of `h`",
    "h' = max(g, k)": "`h` is an extreme and stands in one sum with `g`",
    "S' = S + outer(h, v)": "entries of `h` are moved",
    "S' = householder(k, a) @ S": "entries of `S` mix along K",
    "h' = clip_grad(b * h, 0.1)": "`clip_grad` of `h`",
    "h' = b * h + stop_grad(tanh(h))": "`tanh` of `h`",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text: str) -> None:
    """One reason, the place where it was written, and the words of the strategy's verdict."""
    p = program(text)
    found = step_groups(Builder(p.body), p)
    assert isinstance(found, Reason)
    assert found.text == REFUSED[text]
    assert found.span is not None and p.source.text[found.span.start : found.span.end] in p.source.text
    verdict = next(v for v in compile_kernels(p, {"K": 3, "V": 2}, KernelOptions()).verdicts if v.strategy == "scan")
    assert not verdict.applies and verdict.reason == REFUSED[text]
    with pytest.raises(ValueError, match="strategy 'scan' does not apply"):
        compile_kernels(p, {"K": 3, "V": 2}, KernelOptions(), "scan")


def test_three_states_that_read_each_other_are_too_many() -> None:
    p = program("h' = h + g", "g' = g + f", "f' = f + h")
    found = step_groups(Builder(p.body), p)
    assert isinstance(found, Reason) and found.text == "`h` and `g` and `f` read each other, more than 2 states"


@pytest.mark.parametrize(
    ("name", "sizes", "reason"),
    [
        ("mamba", {"D": 512, "N": 16}, None),
        ("hgrn", {"D": 4096}, None),
        ("gla", {"K": 16, "V": 64}, None),
        ("gla", {"K": 64, "V": 64}, "512 entries of `S` must stay together, more than the 256"),
        ("delta_net", {"K": 4, "V": 4}, "entries of `S` mix along K"),
    ],
)
def test_what_fits(name: str, sizes: dict[str, int], reason: str | None) -> None:
    verdicts = compile_kernels(zoo(name), sizes, KernelOptions()).verdicts
    verdict = next(v for v in verdicts if v.strategy == "scan")
    assert verdict.applies == (reason is None)
    assert reason is None or verdict.reason.startswith(reason)


@pytest.mark.parametrize(
    ("name", "sizes", "rows", "blocks", "warps"),
    [
        ("hgrn", {"D": 512}, 16, {"D": 128}, 2),
        ("hgrn", {"D": 64}, 16, {"D": 64}, 1),
        ("hgrn", {"D": 8}, 64, {"D": 8}, 1),
        ("mamba", {"D": 512, "N": 16}, 16, {"D": 16, "N": 16}, 8),
    ],
)
def test_layouts(name: str, sizes: dict[str, int], rows: int, blocks: dict[str, int], warps: int) -> None:
    """Threads hold columns of sixteen steps, which fill whole rows of memory; small states take longer blocks."""
    layout = compile_kernels(zoo(name), sizes, KernelOptions(), "scan").kernels[0].layout
    assert (layout.rows, layout.blocks, layout.warps) == (rows, blocks, warps)


@pytest.mark.parametrize(("tile", "message"), [(3, "must be a power of two"), (0, "must be a power of two")])
def test_tiles_that_do_not_work_are_refused(tile: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_kernels(zoo("hgrn"), {"D": 5}, KernelOptions(tiles=(("D", tile),)), "scan")
