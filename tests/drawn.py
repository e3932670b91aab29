"""Random well-typed bodies and programs, for tests that compare two ways of computing the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from recurra.compiler.ir.builder import Builder, without
from recurra.compiler.ir.program import Dim, Initialiser, Input, Output, Param, Program, State
from recurra.compiler.ir.size import Size
from recurra.compiler.ir.types import EVERYTHING, Axes, Axis
from recurra.dsl.source import Source, Span

SIZES = {"K": 2, "V": 3}
K, V = (Axis(name, Size.of(name)) for name in SIZES)
N = Axis("2", Size(2))
SHAPES: tuple[Axes, ...] = ((), (K,), (V,), (K, V), (V, V), (N, K))
HERE = Span(0, 0)

Make = Callable[[Builder, int], int]


def _positive(b: Builder, x: int) -> int:
    return b.add(b.apply("softplus", x), b.const(0.25))


def _bounded(b: Builder, x: int) -> int:
    return b.apply("tanh", x)


UNARY: dict[str, Make] = {
    name: lambda b, x, name=name: b.apply(name, x)  # type: ignore[misc]
    for name in "neg sigmoid logsigmoid tanh silu softplus gelu erf sin cos".split()
} | {
    "exp": lambda b, x: b.apply("exp", _bounded(b, x)),
    "expm1": lambda b, x: b.apply("expm1", _bounded(b, x)),
    "log": lambda b, x: b.apply("log", _positive(b, x)),
    "log1p": lambda b, x: b.apply("log1p", _positive(b, x)),
    "sqrt": lambda b, x: b.apply("sqrt", _positive(b, x)),
    "rsqrt": lambda b, x: b.apply("rsqrt", _positive(b, x)),
    "square": lambda b, x: b.apply("square", _bounded(b, x)),
}
KINKED: dict[str, Make] = {
    "abs": lambda b, x: b.apply("abs", x),
    "sign": lambda b, x: b.apply("sign", x),
    "relu": lambda b, x: b.apply("relu", x),
    "clamp": lambda b, x: b.apply("clamp", x, b.const(-0.5), b.const(0.75)),
}
BINARY: dict[str, Callable[[Builder, int, int], int]] = {
    "add": lambda b, x, y: b.add(x, y),
    "sub": lambda b, x, y: b.sub(x, y),
    "mul": lambda b, x, y: b.mul(_bounded(b, x), y),
    "div": lambda b, x, y: b.div(x, _positive(b, y)),
    "pow": lambda b, x, y: b.apply("pow", _positive(b, x), _bounded(b, y)),
}
KINKED_BINARY: dict[str, Callable[[Builder, int, int], int]] = {
    "max": lambda b, x, y: b.apply("max", x, y),
    "min": lambda b, x, y: b.apply("min", x, y),
    "where": lambda b, x, y: b.apply("where", b.apply("le", x, y), b.apply("neg", x), y),
}


def grow(draw: st.DrawFn, b: Builder, pool: list[int], count: int, kinks: bool) -> None:
    """Append values made of those in the pool, and put them into it."""
    for _ in range(count):
        x = draw(st.sampled_from(pool))
        kinds = ["unary", "binary", "axes", "contract"]
        match draw(st.sampled_from(kinds)):
            case "unary":
                table = UNARY | KINKED if kinks else UNARY
                pool.append(table[draw(st.sampled_from(sorted(table)))](b, x))
            case "binary":
                fits = [y for y in pool if b.axes(y) == b.axes(x) or not b.axes(y)]
                both = BINARY | KINKED_BINARY if kinks else BINARY
                y = b.spread(draw(st.sampled_from(fits)) if fits else x, b.axes(x))
                pool.append(both[draw(st.sampled_from(sorted(both)))](b, x, y))
            case "axes":
                pool.append(_moved(draw, b, x, kinks))
            case _:
                pool.append(_contracted(draw, b, x, draw(st.sampled_from(pool))))


def _moved(draw: st.DrawFn, b: Builder, x: int, kinks: bool) -> int:
    """A value with other axes."""
    axes = b.axes(x)
    if not axes:
        shape = draw(st.sampled_from(SHAPES))
        return b.spread(x, shape)
    position = draw(st.integers(0, len(axes) - 1))
    axis = axes[position]
    match draw(st.sampled_from(["sum", "amax", "turn", "index", "slice", "pad", "concat", "place"])):
        case "amax" if kinks:
            return b.amax(x, position)
        case "turn":
            return b.broadcast(x, axes[::-1], tuple(range(len(axes)))[::-1])
        case "index":
            i = draw(st.integers(0, 1))
            return b.emit("index", (x,), (position, i), without(axes, position))
        case "slice":
            part = Axis("1", Size(1))
            cut = b.emit("slice", (x,), (position, Size(1), Size(2)), (*axes[:position], part, *axes[position + 1 :]))
            return b.sum(cut, position)
        case "pad" if len(axes) == 1:
            wide = (Axis("wide", axis.size + Size(3)),)
            padded = b.emit("pad", (x,), (0, Size(2)), wide)
            return b.emit("slice", (padded,), (0, Size(1), Size(1) + axis.size), axes)
        case "concat":
            double = (*axes[:position], Axis("two", axis.size * 2), *axes[position + 1 :])
            joined = b.emit("concat", (x, b.apply("sin", x)), (position,), double)
            start = axis.size
            return b.emit("slice", (joined,), (position, start - Size(1), start * 2 - Size(1)), axes)
        case "place" if len(axes) == 1:
            return b.emit("place", (x,), (0, 1), (N, *axes))
    return b.sum(x, position)


def _contracted(draw: st.DrawFn, b: Builder, x: int, y: int) -> int:
    """An einsum of two values whose equal axes are contracted, kept or left apart."""
    left = tuple(range(len(b.axes(x))))
    right: list[int] = []
    kept: list[int] = []
    for i, axis in enumerate(b.axes(y)):
        same = [n for n in left if b.axes(x)[n].size == axis.size and n not in right]
        shared = draw(st.sampled_from([None, *same]))
        right.append(10 + i if shared is None else shared)
        if shared is not None and draw(st.booleans()):
            kept.append(shared)
    out = [label for label in dict.fromkeys((*left, *right)) if not (label in left and label in right) or label in kept]
    if len(out) > 2:
        return b.apply("tanh", x)
    return b.contract(x, _bounded(b, y), left, tuple(right), tuple(draw(st.permutations(out))))


@dataclass(frozen=True)
class Drawn:
    """A body, its leaves and one value that reads several of them."""

    builder: Builder
    leaves: tuple[int, ...]
    roots: tuple[int, ...]


@st.composite
def bodies(draw: st.DrawFn, kinks: bool = False, size: int = 10) -> Drawn:
    """A body of one leaf per shape and a dozen drawn values, the last three of which are its roots."""
    b = Builder()
    leaves = [b.leaf("input", f"x{i}", shape) for i, shape in enumerate(SHAPES)]
    pool = list(leaves)
    grow(draw, b, pool, draw(st.integers(1, size)), kinks)
    return Drawn(b, tuple(leaves), tuple(dict.fromkeys(pool[-3:])))


@st.composite
def programs(draw: st.DrawFn, kinks: bool = False, size: int = 8) -> Program:
    """A recurrence of two states, two inputs and two params that drawn values join."""
    b = Builder()
    start = b.const(0.5)
    pool = [
        h := b.leaf("state", "h", (V,)),
        m := b.leaf("state", "m"),
        b.leaf("input", "x", (K,)),
        b.leaf("input", "g"),
        b.leaf("param", "W", (V, V)),
        b.leaf("param", "w", (K, V)),
        b.size(Size.of("K")),
    ]
    grow(draw, b, pool, draw(st.integers(2, size)), kinks)

    def pick(axes: Axes, otherwise: int) -> int:
        return draw(st.sampled_from([otherwise, *(value for value in pool if b.axes(value) == axes)][-4:]))

    next_h = b.apply("tanh", b.add(h, pick((V,), h)))
    next_m = b.apply("sin", pick((), m))
    pool += [next_h, next_m]
    grow(draw, b, pool, 2, kinks)
    outputs = (pick((V,), next_h), pool[-1])
    return Program(
        "drawn",
        "",
        tuple(Dim(name, None, HERE) for name in SIZES),
        (),
        (State("h", (V,), start, next_h, HERE), State("m", (), start, next_m, HERE)),
        (Input("x", (K,), EVERYTHING, False, HERE), Input("g", (), EVERYTHING, False, HERE)),
        (Param("W", (V, V), Initialiser(), False, HERE), Param("w", (K, V), Initialiser(), False, HERE)),
        (),
        tuple(Output(f"o{i}", b.axes(value), value, HERE) for i, value in enumerate(outputs)),
        tuple(b.body),
        None,
        Source("drawn.rec", ""),
    )
