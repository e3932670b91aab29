"""The one table of derivatives: for each operand of each operation, its cotangent as IR.

A rule writes ordinary instructions, so that everything that walks a body walks its derivative too.
Forms are chosen to be finite wherever the derivative is, and reuse the operation's own result where
that saves work. Conventions at ties and kinks are those of ``ir/ops.py``; besides, ``sqrt`` has
gradient 0 at 0 (and so has a norm at the origin), and ``pow``'s exponent has gradient 0 where the
base is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..ir.builder import Builder
from ..ir.program import Instr
from ..ir.size import Size


@dataclass(frozen=True, slots=True)
class Site:
    """One operation to differentiate: ``out = instr(args)`` and the cotangent ``g`` of ``out``."""

    b: Builder
    instr: Instr
    out: int
    g: int

    @property
    def x(self) -> int:
        return self.instr.args[0]

    @property
    def y(self) -> int:
        return self.instr.args[1]

    @property
    def z(self) -> int:
        return self.instr.args[2]

    def choose(self, condition: int, then: int, otherwise: int) -> int:
        return self.b.apply("where", condition, then, otherwise)

    def times(self, factor: int) -> int:
        """The cotangent times a local derivative."""
        return self.b.mul(self.g, factor)

    def scaled(self, number: float, value: int) -> int:
        return self.b.mul(self.b.const(number), value)


Rule = Callable[[Site], int]


# element-wise


def _one_minus(s: Site, value: int) -> int:
    return s.b.sub(s.b.const(1.0), value)


def _sqrt(s: Site) -> int:
    inner = s.b.div(s.scaled(0.5, s.g), s.out)
    return s.choose(s.b.apply("eq", s.x, s.b.const(0.0)), s.b.const(0.0), inner)


def _rsqrt(s: Site) -> int:
    cube = s.b.mul(s.b.mul(s.out, s.out), s.out)
    return s.times(s.scaled(-0.5, cube))


def _tanh(s: Site) -> int:
    return s.times(_one_minus(s, s.b.mul(s.out, s.out)))


def _relu(s: Site) -> int:
    return s.choose(s.b.apply("lt", s.b.const(0.0), s.x), s.g, s.b.const(0.0))


def _silu(s: Site) -> int:
    gate = s.b.apply("sigmoid", s.x)
    return s.times(s.b.add(gate, s.b.mul(s.out, _one_minus(s, gate))))


def _gelu(s: Site) -> int:
    upper = s.b.add(s.b.const(1.0), s.b.apply("erf", s.scaled(math.sqrt(0.5), s.x)))
    bell = s.b.apply("exp", s.scaled(-0.5, s.b.apply("square", s.x)))
    density = s.scaled(1 / math.sqrt(2 * math.pi), bell)
    return s.times(s.b.add(s.scaled(0.5, upper), s.b.mul(s.x, density)))


def _erf(s: Site) -> int:
    bell = s.b.apply("exp", s.b.apply("neg", s.b.apply("square", s.x)))
    return s.times(s.scaled(2 / math.sqrt(math.pi), bell))


def _clip_grad(s: Site) -> int:
    (bound,) = s.instr.attrs
    return s.b.apply("clamp", s.g, s.b.const(-bound), s.b.const(bound))


def _divisor(s: Site) -> int:
    return s.b.apply("neg", s.b.mul(s.b.div(s.g, s.y), s.out))


def _base(s: Site) -> int:
    exponent = _constant(s.b, s.y)
    if exponent is None:
        power = s.b.apply("pow", s.x, s.b.sub(s.y, s.b.const(1.0)))
        slope = s.times(s.b.mul(s.y, power))
        return s.choose(s.b.apply("eq", s.y, s.b.const(0.0)), s.b.const(0.0), slope)
    if exponent == 0.0:
        return s.b.spread(s.b.const(0.0), s.instr.axes)
    if exponent == 1.0:
        return s.g
    power = s.x if exponent == 2.0 else s.b.apply("pow", s.x, s.b.const(exponent - 1))
    return s.times(s.scaled(exponent, power))


def _exponent(s: Site) -> int:
    slope = s.times(s.b.mul(s.out, s.b.apply("log", s.x)))
    return s.choose(s.b.apply("eq", s.x, s.b.const(0.0)), s.b.const(0.0), slope)


def _constant(b: Builder, value: int) -> float | None:
    """The number that a value is everywhere, if it is a constant."""
    instr = b.body[value]
    if instr.op == "broadcast":
        return _constant(b, instr.args[0])
    return float(instr.attrs[0]) if instr.op == "const" else None


def _winner(s: Site, loses: tuple[int, int]) -> int:
    """The cotangent unless ``loses[0] < loses[1]``, halved at a tie."""
    tie = s.b.apply("eq", s.x, s.y)
    shared = s.choose(tie, s.scaled(0.5, s.g), s.g)
    return s.choose(s.b.apply("lt", *loses), s.b.const(0.0), shared)


def _clamped(s: Site) -> int:
    below = s.choose(s.b.apply("le", s.x, s.z), s.g, s.b.const(0.0))
    return s.choose(s.b.apply("le", s.y, s.x), below, s.b.const(0.0))


def _lower(s: Site) -> int:
    ordered = s.choose(s.b.apply("le", s.y, s.z), s.g, s.b.const(0.0))
    return s.choose(s.b.apply("lt", s.x, s.y), ordered, s.b.const(0.0))


def _upper(s: Site) -> int:
    return s.choose(s.b.apply("lt", s.z, s.b.apply("max", s.x, s.y)), s.g, s.b.const(0.0))


# reductions and contractions


def _spread_back(s: Site, value: int) -> int:
    """A value without the reduced axis, repeated along it."""
    (position,) = s.instr.attrs
    axes = s.b.axes(s.x)
    source = tuple(i if i < position else -1 if i == position else i - 1 for i in range(len(axes)))
    return s.b.broadcast(value, axes, source)


def _amax(s: Site) -> int:
    (position,) = s.instr.attrs
    first = s.b.apply("eq", s.x, _spread_back(s, s.out))
    count = s.b.sum(s.choose(first, s.b.spread(s.b.const(1.0), s.b.axes(s.x)), s.b.const(0.0)), position)
    return s.choose(first, _spread_back(s, s.b.div(s.g, count)), s.b.const(0.0))


def _contract_left(s: Site) -> int:
    left, right, out = s.instr.attrs
    return _renamed(s, s.b.contract(s.g, s.y, out, right, left), s.x)


def _contract_right(s: Site) -> int:
    left, right, out = s.instr.attrs
    return _renamed(s, s.b.contract(s.g, s.x, out, left, right), s.y)


def _renamed(s: Site, value: int, like: int) -> int:
    """The value under the names of another's axes, which have the same sizes."""
    axes = s.b.axes(like)
    return s.b.broadcast(value, axes, tuple(range(len(axes))))


# moves


def _broadcast(s: Site) -> int:
    (source,) = s.instr.attrs
    value = s.g
    for position in range(len(source) - 1, -1, -1):
        if source[position] < 0:
            value = s.b.sum(value, position)
    kept = [position for position in source if position >= 0]
    return s.b.broadcast(value, s.b.axes(s.x), tuple(kept.index(i) for i in range(len(kept))))


def _index(s: Site) -> int:
    return s.b.emit("place", (s.g,), s.instr.attrs, s.b.axes(s.x))


def _place(s: Site) -> int:
    return s.b.emit("index", (s.g,), s.instr.attrs, s.b.axes(s.x))


def _slice(s: Site) -> int:
    position, start, _ = s.instr.attrs
    return s.b.emit("pad", (s.g,), (position, start), s.b.axes(s.x))


def _pad(s: Site) -> int:
    position, before = s.instr.attrs
    axes = s.b.axes(s.x)
    return s.b.emit("slice", (s.g,), (position, before, before + axes[position].size), axes)


def _first(s: Site) -> int:
    (position,) = s.instr.attrs
    axes = s.b.axes(s.x)
    return s.b.emit("slice", (s.g,), (position, Size(0), axes[position].size), axes)


def _second(s: Site) -> int:
    (position,) = s.instr.attrs
    axes, start = s.b.axes(s.y), s.b.axes(s.x)[position].size
    return s.b.emit("slice", (s.g,), (position, start, start + axes[position].size), axes)


RULES: dict[str, tuple[Rule | None, ...]] = {
    "leaf": (),
    "const": (),
    "size": (),
    "neg": (lambda s: s.b.apply("neg", s.g),),
    "exp": (lambda s: s.times(s.out),),
    "log": (lambda s: s.b.div(s.g, s.x),),
    "log1p": (lambda s: s.b.div(s.g, s.b.add(s.b.const(1.0), s.x)),),
    "expm1": (lambda s: s.times(s.b.add(s.out, s.b.const(1.0))),),
    "sqrt": (_sqrt,),
    "rsqrt": (_rsqrt,),
    "square": (lambda s: s.times(s.scaled(2.0, s.x)),),
    "abs": (lambda s: s.times(s.b.apply("sign", s.x)),),
    "sign": (None,),
    "sigmoid": (lambda s: s.times(s.b.mul(s.out, _one_minus(s, s.out))),),
    "logsigmoid": (lambda s: s.times(s.b.apply("sigmoid", s.b.apply("neg", s.x))),),
    "tanh": (_tanh,),
    "relu": (_relu,),
    "silu": (_silu,),
    "softplus": (lambda s: s.times(s.b.apply("sigmoid", s.x)),),
    "gelu": (_gelu,),
    "erf": (_erf,),
    "sin": (lambda s: s.times(s.b.apply("cos", s.x)),),
    "cos": (lambda s: s.b.apply("neg", s.times(s.b.apply("sin", s.x))),),
    "stop_grad": (None,),
    "clip_grad": (_clip_grad,),
    "add": (lambda s: s.g, lambda s: s.g),
    "sub": (lambda s: s.g, lambda s: s.b.apply("neg", s.g)),
    "mul": (lambda s: s.times(s.y), lambda s: s.times(s.x)),
    "div": (lambda s: s.b.div(s.g, s.y), _divisor),
    "pow": (_base, _exponent),
    "min": (lambda s: _winner(s, (s.y, s.x)), lambda s: _winner(s, (s.x, s.y))),
    "max": (lambda s: _winner(s, (s.x, s.y)), lambda s: _winner(s, (s.y, s.x))),
    "lt": (None, None),
    "le": (None, None),
    "eq": (None, None),
    "ne": (None, None),
    "where": (
        None,
        lambda s: s.choose(s.x, s.g, s.b.const(0.0)),
        lambda s: s.choose(s.x, s.b.const(0.0), s.g),
    ),
    "clamp": (_clamped, _lower, _upper),
    "sum": (lambda s: _spread_back(s, s.g),),
    "amax": (_amax,),
    "contract": (_contract_left, _contract_right),
    "broadcast": (_broadcast,),
    "index": (_index,),
    "place": (_place,),
    "slice": (_slice,),
    "pad": (_pad,),
    "concat": (_first, _second),
}
"""For each operation of ``ir.ops.OPS``, one rule per operand; None where no gradient flows."""
