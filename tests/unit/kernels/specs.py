"""Random well-typed ``.rec`` texts, well conditioned: every value is of order one and no denominator is small."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

Axes = tuple[str, ...]
Draw = st.DrawFn

LEAVES: dict[Axes, list[str]] = {
    (): ["a", "b", "c"],
    ("K",): ["q", "k", "w"],
    ("V",): ["v", "u"],
    ("K", "V"): ["X", "P"],
    ("V", "V"): ["W"],
    ("K", "K"): ["M"],
    ("V", "K"): ["R"],
}
DECLARATIONS = """\
dims K, V
input q[K], k[K], v[V], a, b in (0, 1), X[K, V]
param w[K], u[V], c, P[K, V]
param W[V, V], M[K, K], R[V, K] init normal(0.5)
"""
STATES: dict[Axes, tuple[str, ...]] = {("K", "V"): ("S", "T"), ("V",): ("h", "g"), ("K",): ("n", "z"), (): ("m", "r")}

UNARY = (
    "tanh({})",
    "sigmoid({})",
    "sin({})",
    "cos({})",
    "silu({})",
    "gelu({})",
    "softplus({})",
    "logsigmoid({})",
    "relu({})",
    "abs({})",
    "sign({})",
    "exp(tanh({}))",
    "expm1(sin({}))",
    "log(1 + square({}))",
    "log1p(softplus({}))",
    "sqrt(0.5 + abs({}))",
    "rsqrt(0.5 + square({}))",
    "square(tanh({}))",
    "clamp({}, -0.5, 0.75)",
    "-{}",
    "(1 + sigmoid({}))^1.5",
    "tanh({})^3",
    "stop_grad({})",
    "clip_grad({}, 0.3)",
    "2",
    "(K + 1) * 0.1",
)
BINARY = (
    "({} + {})",
    "({} - {})",
    "tanh({}) * {}",
    "({} / (1 + square({})))",
    "max({}, {})",
    "min({}, {})",
    "where({} > 0.1, {}, 0.5)",
    "where(0.3 <= {}, -1, {})",
    "clamp({}, -1, {})",
    "(1 + sigmoid({}))^tanh({})",
)


class Writer:
    """Draws expressions of wanted axes from the names that are in scope."""

    def __init__(self, draw: Draw, names: dict[Axes, list[str]]) -> None:
        self.draw, self.names = draw, names

    def one_of(self, *choices: Callable[[], str]) -> str:
        return self.draw(st.sampled_from(choices))()

    def value(self, axes: Axes, depth: int) -> str:
        """The text of a value of order one with these axes."""
        if depth <= 0:
            return self.leaf(axes)
        forms: list[Callable[[], str]] = [
            lambda: self.leaf(axes),
            lambda: self.unary(axes, depth - 1),
            lambda: self.binary(axes, depth - 1),
            lambda: self.binary(axes, depth - 1),
            *(lambda form=form: f"({form()})" for form in self.special(axes, depth - 1)),
        ]
        return self.one_of(*forms)

    def leaf(self, axes: Axes) -> str:
        return self.draw(st.sampled_from(self.names[axes]))

    def fixed(self, axes: Axes) -> str:
        """An input or param: entries that differ."""
        return self.draw(st.sampled_from(LEAVES[axes]))

    def bounded(self, axes: Axes, depth: int) -> str:
        return f"tanh({self.value(axes, depth)})"

    def unary(self, axes: Axes, depth: int) -> str:
        return self.draw(st.sampled_from(UNARY if axes == () else UNARY[:-2])).format(self.value(axes, depth))

    def binary(self, axes: Axes, depth: int) -> str:
        inner = self.draw(st.sampled_from(_subsets(axes)))
        left, right = self.value(axes, depth), self.value(inner, depth)
        form = self.draw(st.sampled_from(BINARY))
        return form.format(left, right)

    def special(self, axes: Axes, depth: int) -> list[Callable[[], str]]:
        match axes:
            case ():
                return self.scalars(depth)
            case (name,):
                return self.vectors(name, depth)
            case (row, column):
                return self.matrices(row, column, depth)
        return []

    def scalars(self, depth: int) -> list[Callable[[], str]]:
        axis = self.draw(st.sampled_from(("K", "V")))
        x = (axis,)
        return [
            lambda: f"{self.bounded(x, depth)} @ {self.bounded(x, depth)}",
            lambda: f"sum({self.bounded(x, depth)}, {axis})",
            lambda: f"mean({self.value(x, depth)}, {axis})",
            lambda: f"max({self.value(x, depth)}, {axis})",
            lambda: f"logsumexp({self.value(x, depth)}, {axis})",
            lambda: f"norm(0.2 + sigmoid({self.value(x, depth)}))",
            lambda: f"({self.value(x, depth)})[1]",
        ]

    def vectors(self, name: str, depth: int) -> list[Callable[[], str]]:
        other = "V" if name == "K" else "K"
        x = (name,)
        return [
            lambda: f"tanh({self.value((other,), depth)}) @ {self.bounded((other, name), depth)}",
            lambda: f"{self.bounded((name, other), depth)} @ {self.bounded((other,), depth)}",
            lambda: f"{self.leaf((name, name))} @ {self.bounded(x, depth)}",
            lambda: f"{self.bounded(x, depth)} @ {self.leaf((name, name))}",
            lambda: f"sum({self.bounded((name, other), depth)}, {other})",
            lambda: f"max({self.value((other, name), depth)}, {other})",
            lambda: f"softmax({self.value(x, depth)})",
            lambda: f"l2norm(0.3 + sigmoid({self.value(x, depth)}))",
            lambda: f"tanh(layernorm({self.fixed(x)} + 0.1 * {self.bounded(x, depth)}))",
            lambda: f"rmsnorm(0.3 + {self.unary(x, 0)} + sigmoid({self.value(x, depth)}))",
            lambda: self.rolled(name, depth),
            lambda: f"householder(l2norm(0.3 + {self.leaf(x)}), b) @ {self.bounded(x, depth)}",
            lambda: f"({self.bounded((name, name), depth)} @ {self.bounded(x, depth)})",
        ]

    def rolled(self, name: str, depth: int) -> str:
        value = self.draw(st.sampled_from(self.names[(name,)]))
        other = self.value((name,), depth)
        cut = self.draw(st.sampled_from(("1", "2", f"{name} - 1")))
        return f"concat({value}[{cut}:{name}], ({other})[0:{cut}])"

    def matrices(self, row: str, column: str, depth: int) -> list[Callable[[], str]]:
        forms: list[Callable[[], str]] = [
            lambda: f"({self.value((column, row), depth)}).T",
            lambda: f"diag({self.bounded((row,), depth)}) @ {self.value((row, column), depth)}",
            lambda: f"{self.value((row, column), depth)} @ diag({self.bounded((column,), depth)})",
            lambda: f"{self.leaf((row, row))} @ {self.bounded((row, column), depth)}",
            lambda: f"{self.bounded((row, column), depth)} @ {self.leaf((column, column))}",
            lambda: f"householder(l2norm(0.3 + {self.leaf((row,))}), b) @ {self.value((row, column), depth)}",
        ]
        if row != column:
            forms += [
                lambda: f"outer({self.bounded((row,), depth)}, {self.value((column,), depth)})",
                lambda: f"softmax({self.value((row, column), depth)}, {row})",
                lambda: f"tanh(layernorm({self.fixed((row, column))} + 0.1 * {self.bounded((row, column), depth)}))",
            ]
        return forms


def _subsets(axes: Axes) -> list[Axes]:
    """Axes of operands that align with a value of the given axes."""
    if len(axes) == 2 and axes[0] == axes[1]:
        return [axes, ()]
    found = [axes, ()]
    if len(axes) == 2:
        found += [(axes[0],), (axes[1],)]
    return found


@st.composite
def specs(draw: Draw, depth: int = 2) -> str:
    """A recurrence of one or two states whose transitions and outputs are drawn."""
    kinds = draw(st.lists(st.sampled_from(sorted(STATES)), min_size=1, max_size=2))
    states: dict[str, Axes] = {}
    for axes in kinds:
        states[next(name for name in STATES[axes] if name not in states)] = axes
    names = {axes: list(found) for axes, found in LEAVES.items()}
    for name, axes in states.items():
        names[axes] = [name] * 3 + names[axes]
    writer = Writer(draw, names)
    lines = ["recurrence drawn", DECLARATIONS.strip()]
    lines += [f"state {_declared(name, axes)}" for name, axes in states.items()]
    for n in range(draw(st.integers(0, 2))):
        axes = draw(st.sampled_from(sorted(LEAVES)))
        lines.append(f"let y{n} = {writer.value(axes, depth)}")
        names[axes].insert(0, f"y{n}")
    for name, axes in states.items():
        keep = draw(st.sampled_from((f"b * {name} + (1 - b) * ", f"0.5 * {name} + ", "", f"sigmoid(a) * {name} + ")))
        lines.append(f"transition {name}' = {keep}tanh({writer.value(axes, depth + 1)})")
    for name, axes in states.items():
        names[axes] = [f"{name}'"] * 3 + names[axes]
    for n in range(draw(st.integers(1, 2))):
        axes = draw(st.sampled_from(sorted(LEAVES)))
        lines.append(f"output {_declared(f'o{n}', axes)} = {writer.value(axes, depth)}")
    return "\n".join(lines) + "\n"


def _declared(name: str, axes: Axes) -> str:
    return f"{name}[{', '.join(axes)}]" if axes else name
