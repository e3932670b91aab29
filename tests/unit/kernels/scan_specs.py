"""Random ``.rec`` texts that a scan can run: states affine entry by entry, alone or in pairs, and running extremes."""

from __future__ import annotations

from hypothesis import strategies as st

Axes = tuple[str, ...]
Draw = st.DrawFn

GIVEN: dict[Axes, tuple[str, ...]] = {
    (): ("a", "b", "sum(k * q, K)", "norm(v)", "tanh(c)", "0.5"),
    ("K",): ("k", "q", "w", "sigmoid(k)", "X @ v", "softmax(q)", "a * k", "M @ q"),
    ("V",): ("v", "u", "tanh(v)", "q @ X", "-v", "u * b"),
    ("K", "V"): ("X", "P", "outer(k, v)", "diag(q) @ P", "X * a", "diag(k) @ X @ diag(u)"),
}
DECLARATIONS = """\
dims K, V
input q[K], k[K], v[V], a, b in (0, 1), X[K, V]
param w[K], u[V], c, P[K, V], M[K, K]
"""
NAMES: dict[Axes, tuple[str, ...]] = {
    (): ("r", "s", "t"),
    ("K",): ("h", "g", "n"),
    ("V",): ("x", "y", "z"),
    ("K", "V"): ("S", "T", "R"),
}
SLOPES = ("sigmoid({})", "tanh({})", "exp(-softplus({}))", "0.9", "-sigmoid({})", "cos({})", "(b * tanh({}))", "1", "0")
ALONE = (
    "{slope} * {name} + {given}",
    "({name} + {given}) * {slope}",
    "{given} - {name} / (1 + square({given}))",
    "where({given} > 0, {slope} * {name}, {given})",
    "{name} + {given}",
    "{given}",
    "{name}",
    "{slope} * stop_grad({name}) + 0.1 * {name}",
    "max({name} + {given}, {given})",
    "min(max({given}, 0) + {name}, {given}) - {slope}",
    "relu({name} - {given})",
)
PAIRS = (
    ("{slope} * {name} - {turn} * {other} + {given}", "{turn} * {name} + {slope} * {other}"),
    ("{slope} * {name} + 0.3 * {given} * {other}", "0.2 * {turn} * {name} + {given}"),
    ("{slope} * {name} + {given}", "{turn} * {other} + 0.5 * {name}'"),
)


@st.composite
def scan_specs(draw: Draw) -> str:
    """A recurrence of one to three groups of states and up to two outputs that read old and new ones."""
    axes = st.sampled_from(sorted(GIVEN))
    lines, names = ["recurrence drawn", DECLARATIONS.strip()], dict[str, Axes]()
    transitions = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(axes)
        free = [name for name in NAMES[shape] if name not in names]
        if len(free) > 1 and draw(st.booleans()):
            name, other = free[:2]
            slope, turn = _slope(draw, shape), _slope(draw, shape)
            for target, form in zip((name, other), draw(st.sampled_from(PAIRS)), strict=True):
                text = form.format(name=name, other=other, slope=slope, turn=turn, given=_given(draw, shape))
                transitions.append(f"transition {target}' = {text}")
            names |= {name: shape, other: shape}
        elif free:
            form = draw(st.sampled_from(ALONE))
            text = form.format(name=free[0], slope=_slope(draw, shape), given=_given(draw, shape))
            transitions.append(f"transition {free[0]}' = {text}")
            names[free[0]] = shape
    lines += [f"state {_declared(name, shape)}" for name, shape in names.items()] + transitions
    for n in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(names)))
        shape = names[name]
        given = _given(draw, shape)
        forms = (f"{name}'", f"{name}' * {given}", f"{name} + tanh({name}')", f"sin({name}) * {given}")
        text = draw(st.sampled_from(forms))
        if shape and draw(st.booleans()):
            text = f"sum({text}, {shape[-1]})"
            shape = shape[:-1]
        lines.append(f"output {_declared(f'o{n}', shape)} = {text}")
    return "\n".join(lines) + "\n"


def _slope(draw: Draw, shape: Axes) -> str:
    """A factor within [-1, 1] that varies along all, some or none of the state's axes."""
    inner = draw(st.sampled_from([axes for axes in GIVEN if set(axes) <= set(shape)]))
    return draw(st.sampled_from(SLOPES)).format(_given(draw, inner))


def _given(draw: Draw, shape: Axes) -> str:
    return f"({draw(st.sampled_from(GIVEN[shape]))})"


def _declared(name: str, axes: Axes) -> str:
    return f"{name}[{', '.join(axes)}]" if axes else name
