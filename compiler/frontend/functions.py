"""The functions of the language: what each takes, and what it becomes in primitive operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...dsl import ast
from ...dsl.diagnostics import Label
from ..ir.size import Size
from ..ir.types import Axis, show_axes
from . import clashes, matrices, reductions
from .report import Mistake, Silent
from .shapes import axis_of
from .values import Diag, Eye, Matrix, Outer, Poison, Rotation, Value

if TYPE_CHECKING:
    from .expressions import Expressions

UNLIMITED = 99


@dataclass(frozen=True)
class Function:
    """A callable name. ``kinds`` says what its arguments are, the last one repeated as often as ``most`` allows:
    ``v`` a value, ``m`` a value or structured matrix, ``x`` an axis, ``e`` an expression that ``build`` reads."""

    signature: str
    kinds: str
    least: int
    most: int
    build: Callable[..., Value]

    def call(self, e: Expressions, expr: ast.Call) -> Value:
        """The value of a call (Mistake or Silent if it is erroneous)."""
        kinds = self.kinds.ljust(len(expr.args), self.kinds[-1])
        args: list[Any] = []
        for kind, arg in zip(kinds, expr.args, strict=False):
            args.append(e.entries(arg) if kind == "v" else e.value(arg) if kind == "m" else arg)
        clashes.check_count(expr, self.least, self.most, self.signature)
        if any(isinstance(arg, Poison) for arg in args):
            raise Silent
        e.b.span = expr.span
        result: Value = self.build(e, expr, *args)
        return result


def _unary(op: str) -> Callable[..., Value]:
    return lambda e, call, x: e.elementwise(op, call.function, call.span, list(call.args), [x])


def _elementwise(op: str) -> Callable[..., Value]:
    return lambda e, call, *args: e.elementwise(op, call.function, call.span, list(call.args), list(args))


def _square(e: Expressions, call: ast.Call, x: int) -> Value:
    return e.elementwise("square", "square", call.span, list(call.args), [x])


def _pow(e: Expressions, call: ast.Call, *_: ast.Expr) -> Value:
    left, right = call.args
    return e.value(ast.Binary(call.span, "^", left, right, call.function_span))


def _where(e: Expressions, call: ast.Call, condition: Value, x: int, y: int) -> Value:
    if not isinstance(condition, int):
        condition = e.tensor(condition, call.args[0])
    from ..ir.ops import OPS

    if OPS[e.b.body[condition].op].kind != "compare":
        condition = e.b.apply("ne", condition, e.b.const(0.0))
    values = e.aligned("where", call.span, list(call.args), [condition, x, y])
    e.b.span = call.span
    return e.b.emit("where", tuple(values), (), e.b.axes(values[1]))


def _clip_grad(e: Expressions, call: ast.Call, x: int, bound: ast.Expr) -> Value:
    limit = e.constant(bound, "the bound of `clip_grad`")
    if not limit > 0:
        raise Mistake("E0304", f"the bound of `clip_grad` is positive, not {limit:g}", bound.span)
    e.b.span = call.span
    return e.b.apply("clip_grad", x, attrs=(limit,))


def _concat(e: Expressions, call: ast.Call, *parts: int) -> Value:
    total, *rest = parts
    for expr, part in zip(call.args, parts, strict=True):
        axes, first = e.b.axes(part), e.b.axes(parts[0])
        if not axes:
            raise Mistake("E0217", "`concat` joins along the first axis, and a scalar has none", expr.span, "scalar")
        if axes[1:] != first[1:]:
            raise Mistake(
                "E0217", "`concat` joins along the first axis, and the other axes must be equal", expr.span,
                show_axes(axes), labels=[Label(call.args[0].span, show_axes(first))],
            )  # fmt: skip
    for part in rest:
        axes = e.b.axes(total)
        joined = axis_of(axes[0].size + e.b.axes(part)[0].size)
        total = e.b.emit("concat", (total, part), (0,), (joined, *axes[1:]))
    return total


# ---------------------------------------------------------------- matrices


def _vector(e: Expressions, call: ast.Call, place: int, value: int) -> Axis:
    """The axis of an argument that must be a vector."""
    axes = e.b.axes(value)
    if len(axes) != 1:
        message = f"`{call.function}` takes a vector here"
        raise Mistake("E0211", message, call.args[place].span, show_axes(axes))
    return axes[0]


def _outer(e: Expressions, call: ast.Call, u: int, w: int) -> Matrix:
    return Outer(u, w, _vector(e, call, 0, u), _vector(e, call, 1, w))


def _diag(e: Expressions, call: ast.Call, v: int) -> Matrix:
    return Diag(v, _vector(e, call, 0, v))


def _eye(e: Expressions, call: ast.Call, expr: ast.Expr) -> Matrix:
    if isinstance(expr, ast.Name) and expr.id not in e.locals:
        symbol = e.names.symbols.get(expr.id)
        if symbol is not None and symbol.size is not None and symbol.order <= e.before:
            return Eye(Axis(symbol.name, symbol.size))
    return Eye(axis_of(e.size(expr, "the size of an identity")))


def _householder(e: Expressions, call: ast.Call, k: int, beta: int) -> Matrix:
    _vector(e, call, 0, k)
    if e.b.axes(beta):
        message = "the second argument of `householder` is a scalar"
        helps = "a strength for every channel is a product: `eye(K) - outer(beta * k, k)`"
        raise Mistake("E0211", message, call.args[1].span, show_axes(e.b.axes(beta)), helps)
    return matrices.householder(e.b, k, beta)


def _rotation(e: Expressions, call: ast.Call, theta: int) -> Matrix:
    axis = _vector(e, call, 0, theta)
    if axis.size.known is None:
        raise Mistake(
            "E0218",
            f"`rotation` turns neighbouring channels, which needs an axis of constant size, and `{axis}` is not one",
            call.span,
            "",
            "keep the two parts of every pair as two states: `re' = cos(t) * re - sin(t) * im`, "
            "`im' = sin(t) * re + cos(t) * im`",
            f"or fix the size: `const {axis} = 8`",
        )
    return Rotation(theta, axis_of(axis.size + Size(axis.size.known)))


UNARY = (
    "exp log log1p expm1 sqrt rsqrt abs sign sigmoid logsigmoid tanh relu silu softplus gelu sin cos neg stop_grad"
).split()

FUNCTIONS: dict[str, Function] = {
    **{name: Function(f"{name}(x)", "v", 1, 1, _unary(name)) for name in UNARY},
    "square": Function("square(x)", "v", 1, 1, _square),
    "pow": Function("pow(x, y)", "e", 2, 2, _pow),
    "min": Function("min(x, y)", "ve", 1, 2, reductions.extremum("min")),
    "max": Function("max(x, y)", "ve", 1, 2, reductions.extremum("max")),
    "where": Function("where(condition, a, b)", "mvv", 3, 3, _where),
    "clamp": Function("clamp(x, lo, hi)", "v", 3, 3, _elementwise("clamp")),
    "clip_grad": Function("clip_grad(x, c)", "ve", 2, 2, _clip_grad),
    "sum": Function("sum(x, K)", "ve", 1, 2, reductions.over(reductions.total)),
    "mean": Function("mean(x, K)", "ve", 1, 2, reductions.over(reductions.mean)),
    "softmax": Function("softmax(x, K)", "ve", 1, 2, reductions.over(reductions.softmax)),
    "logsumexp": Function("logsumexp(x, K)", "ve", 1, 2, reductions.over(reductions.logsumexp)),
    "norm": Function("norm(x)", "ve", 1, 2, reductions.over(reductions.norm, last=True)),
    "l2norm": Function("l2norm(x)", "ve", 1, 2, reductions.over(reductions.l2norm, last=True)),
    "rmsnorm": Function("rmsnorm(x)", "ve", 1, 2, reductions.over(reductions.rmsnorm, last=True)),
    "layernorm": Function("layernorm(x)", "ve", 1, 2, reductions.over(reductions.layernorm, last=True)),
    "concat": Function("concat(x, y)", "v", 2, UNLIMITED, _concat),
    "outer": Function("outer(u, w)", "v", 2, 2, _outer),
    "diag": Function("diag(v)", "v", 1, 1, _diag),
    "eye": Function("eye(K)", "e", 1, 1, _eye),
    "householder": Function("householder(k, beta)", "v", 2, 2, _householder),
    "rotation": Function("rotation(theta)", "v", 1, 1, _rotation),
}
"""Every function that a step may call, by name."""

LAYER_FUNCTIONS: dict[str, tuple[int, str]] = {
    "linear": (1, "linear(x)"),
    "low_rank": (2, "low_rank(x, r)"),
    "conv": (2, "conv(x, width)"),
    "groupnorm": (1, "groupnorm(x)"),
    "rotary": (1, "rotary(x)"),
    "shift": (1, "shift(x)"),
    "skip": (1, "skip(v)"),
    "dropout": (1, "dropout(p)"),
}
"""Functions of the layer block alone, with their number of arguments."""

HABITS: dict[str, str] = {
    "matmul": "write `x @ y`",
    "dot": "write `x @ y`",
    "mm": "write `x @ y`",
    "bmm": "write `x @ y`",
    "einsum": "write `x @ y`, `outer(x, y)` or `sum(x, K)`",
    "transpose": "write `x.T`",
    "maximum": "write `max(x, y)`",
    "minimum": "write `min(x, y)`",
    "amax": "write `max(x, K)`",
    "amin": "write `min(x, K)`",
    "cat": "write `concat(x, y)`",
    "detach": "write `stop_grad(x)`",
    "stop_gradient": "write `stop_grad(x)`",
    "swish": "write `silu(x)`",
    "ln": "write `log(x)`",
    "log_softmax": "write `x - logsumexp(x, K)`",
    "normalize": "write `l2norm(x)`",
    "identity": "write `eye(K)`",
    "power": "write `x ^ y`",
    "reciprocal": "write `1 / x`",
    "clip": "write `clamp(x, lo, hi)`",
    "I": "write `eye(K)`",
    "linear": "`linear` belongs into the layer block; a step contracts a `param` with `@`",
    "conv": "`conv` belongs into the layer block",
    "dropout": "`dropout` belongs into the layer block",
    "rotary": "`rotary` belongs into the layer block; a step turns channels with `rotation(theta) @ S`",
    "groupnorm": "`groupnorm` belongs into the layer block; a step has `layernorm(x)` and `rmsnorm(x)`",
}
"""Names that other libraries use, and what to write for them."""
