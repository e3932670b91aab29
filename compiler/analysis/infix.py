"""Values as the author would write them: infix, in the names of the text, which stand for what they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..ir.program import Instr
from .ranges import normalised

COMPARE, SUM, PRODUCT, UNARY, POWER, ATOM = range(6)
"""How tightly a printed value binds."""

SIGNS = {"add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT)} | {
    op: (sign, COMPARE) for op, sign in (("lt", "<"), ("le", "<="), ("eq", "=="), ("ne", "!="))
}

Printed = tuple[str, int]
"""A text and how tightly it binds."""


class Infix:
    """Prints values of a body. ``names`` gives other texts for leaves by (kind, name): ``q @ S'`` for a read."""

    def __init__(self, body: Sequence[Instr], names: Mapping[tuple[str, str], Printed] | None = None) -> None:
        self.body, self.names = body, names or {}
        used = Counter(instr.name for instr in body if instr.name is not None)
        self._once = {name for name, count in used.items() if count == 1}

    def __call__(self, value: int, least: int = COMPARE) -> str:
        """A value as text, in parentheses if it binds less tightly than ``least``."""
        return inside(self.printed(value), least)

    def printed(self, value: int) -> Printed:
        """A value as text, with how tightly it binds."""
        instr = self.body[value]
        if instr.op == "leaf":
            return self.names.get(instr.attrs, (instr.attrs[1], ATOM))
        if instr.name in self._once:
            return str(instr.name), ATOM
        if instr.op in SIGNS:
            sign, binds = SIGNS[instr.op]
            x = normalised(self.body, instr) if instr.op == "mul" else None
            if x is not None:
                return f"l2norm({self(x)})", ATOM
            right = self.body[instr.args[1]]
            if binds == SUM and right.op == "neg" and right.name not in self._once:
                return f"{self(instr.args[0], SUM)} {'-' if sign == '+' else '+'} {self(right.args[0], PRODUCT)}", SUM
            return f"{self(instr.args[0], binds)} {sign} {self(instr.args[1], binds + 1)}", binds
        return self._other(instr)

    def _other(self, instr: Instr) -> Printed:
        args, attrs = instr.args, instr.attrs
        match instr.op:
            case "const":
                return f"{attrs[0]:.15g}", UNARY if attrs[0] < 0 else ATOM
            case "size":
                return attrs[0], ATOM
            case "neg":
                return f"-{self(args[0], UNARY)}", UNARY
            case "pow" | "square":
                exponent = "2" if instr.op == "square" else self(args[1], UNARY)
                return f"{self(args[0], ATOM)}^{exponent}", POWER
            case "rsqrt" | "sqrt" if self.body[args[0]].op == "size":
                return f"{self(args[0])}^{'-' if instr.op == 'rsqrt' else ''}0.5", POWER
            case "broadcast":
                return self.printed(args[0])  # axes align by their names
            case "sum" | "amax":
                axis = self.body[args[0]].axes[attrs[0]]
                return f"{'sum' if instr.op == 'sum' else 'max'}({self(args[0])}, {axis})", ATOM
            case "index":
                return f"{self(args[0], ATOM)}[{attrs[1]}]", ATOM
            case "slice":
                return f"{self(args[0], ATOM)}[{attrs[1]}:{attrs[2]}]", ATOM
            case "contract":
                return self._contract(instr)
            case "clip_grad":
                return f"clip_grad({self(args[0])}, {attrs[0]:.15g})", ATOM
        return f"{instr.op}({', '.join(map(self, args))})", ATOM

    def _contract(self, instr: Instr) -> Printed:
        x, y = instr.args
        left, right, out = instr.attrs
        if not set(left) & set(right) and out in (left + right, right + left):
            first, second = (x, y) if out == left + right else (y, x)
            return f"outer({self(first)}, {self(second)})", ATOM
        for (a, first), (b, second) in (((left, x), (right, y)), ((right, y), (left, x))):
            if a and b and a[-1] == b[0] and out == a[:-1] + b[1:]:
                return f"{self(first, PRODUCT)} @ {self(second, UNARY)}", PRODUCT
        if set(left) | set(right) == set(out):
            return f"{self(x, PRODUCT)} * {self(y, UNARY)}", PRODUCT
        return f"contract({self(x)}, {self(y)})", ATOM


def inside(printed: Printed, least: int) -> str:
    """A printed value as part of a larger one."""
    text, binds = printed
    return text if binds >= least else f"({text})"
