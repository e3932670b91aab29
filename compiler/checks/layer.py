"""The layer block: which names it sets and reads, and which functions it calls."""

from __future__ import annotations

from collections.abc import Iterator

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic, Label
from ...dsl.source import Span
from ...dsl.suggest import closest
from ..frontend.functions import FUNCTIONS, LAYER_FUNCTIONS, UNARY

ELEMENTWISE = frozenset({*UNARY, "square", "l2norm", "rmsnorm", "layernorm", "pow", "min", "max", "where", "clamp"})
NUMBERS: dict[str, int] = {"low_rank": 1, "conv": 1}
"""Functions whose argument at a place is a positive whole number."""


def check_layer(tree: ast.Recurrence, lost: frozenset[str] = frozenset()) -> tuple[Diagnostic, ...]:
    """The mistakes of a layer block; ``lost`` are names that statements which could not be read may declare."""
    layers = [s for s in tree.statements if isinstance(s, ast.Layer)]
    found: list[Diagnostic] = [
        Diagnostic("E0507", "there are two layer blocks", layer.span, "", (Label(layers[0].span, "the first"),))
        for layer in layers[1:]
    ]
    for layer in layers[:1]:
        found += _Check(tree, lost).run(layer)
    return tuple(found)


class _Check:
    """One block: ``known`` are the names it may read so far."""

    def __init__(self, tree: ast.Recurrence, lost: frozenset[str]) -> None:
        self.lost = set(lost)
        self.inputs: dict[str, Span] = {}
        self.functions: dict[str, ast.Def] = {}
        self.known: set[str] = {"x"}
        for statement in tree.statements:
            match statement:
                case ast.Input(items=items):
                    self.inputs |= {item.name.id: item.name.span for item in items}
                case ast.Output(name=name) | ast.Const(name=name):
                    self.known.add(name.id)
                case ast.Dims(items=dims):
                    self.known |= {dim.name.id for dim in dims}
                case ast.Def(name=name):
                    self.functions[name.id] = statement
        self.set: dict[str, Span] = {}

    def run(self, layer: ast.Layer) -> Iterator[Diagnostic]:
        """Messages in the order of the block."""
        for item in layer.body:
            yield from self._expr(item.value, frozenset())
            for name in item.names:
                yield from self._target(name)
        missing = [name for name in (*self.inputs, "y") if name not in self.set and name not in self.lost]
        if missing and not self.lost:
            names = ", ".join(f"`{name}`" for name in missing)
            helps = (f"add `{missing[0]} = linear({'o' if missing[0] == 'y' else 'x'})`",)
            keyword = Span(layer.span.start, layer.span.start + len("layer"))
            yield Diagnostic("E0506", f"the layer block does not set {names}", keyword, helps=helps)

    def _target(self, name: ast.Ident) -> Iterator[Diagnostic]:
        if name.id in self.set:
            yield Diagnostic("E0502", f"the layer block sets `{name.id}` twice", name.span, "again here",
                             (Label(self.set[name.id], "first here"),))  # fmt: skip
        elif name.id not in self.inputs and name.id != "y" and name.id not in self.lost:
            near = closest(name.id, [*self.inputs, "y"])
            helps = (f"did you mean `{near}`?",) if near else ()
            message = f"a layer block sets inputs and `y`, and `{name.id}` is neither"
            yield Diagnostic("E0501", message, name.span, helps=helps)
        self.set.setdefault(name.id, name.span)
        self.known.add(name.id)

    def _expr(self, expr: ast.Expr, own: frozenset[str]) -> Iterator[Diagnostic]:
        match expr:
            case ast.Name():
                yield from self._name(expr, own)
            case ast.Unary(operand=inner):
                yield from self._expr(inner, own)
            case ast.Binary(left=left, right=right):
                if expr.op == "@":
                    yield Diagnostic("E0504", "a layer block has no `@`", expr.op_span,
                                     helps=("a product with learned weights is `linear(x)`",))  # fmt: skip
                yield from self._expr(left, own)
                yield from self._expr(right, own)
            case ast.Call():
                yield from self._call(expr, own)
            case ast.Index() | ast.Slice() | ast.Transpose():
                message = "a layer block works on whole vectors"
                yield Diagnostic("E0504", message, expr.span, helps=("take parts of them in the step",))

    def _name(self, name: ast.Name, own: frozenset[str]) -> Iterator[Diagnostic]:
        if not name.primed and (name.id in own or name.id in self.known):
            return
        shown = f"{name.id}'" if name.primed else name.id
        if {name.id, shown} & self.lost:
            return
        self.lost.add(name.id)
        helps: tuple[str, ...] = ()
        if name.id in self.inputs:
            helps = (f"`{name.id}` is set further down: move that line up",)
        else:
            near = closest(name.id, [*self.known, *self.inputs])
            helps = (f"did you mean `{near}`?",) if near else ("it reads `x`, outputs, and what it has set",)
        yield Diagnostic("E0503", f"`{shown}` cannot be read in the layer block here", name.span, helps=helps)

    def _call(self, call: ast.Call, own: frozenset[str]) -> Iterator[Diagnostic]:
        for arg in call.args:
            yield from self._expr(arg, own)
        name = call.function
        if name in self.functions:
            yield from self._count(call, len(self.functions[name].parameters), f"{name}(...)")
        elif name in LAYER_FUNCTIONS:
            count, signature = LAYER_FUNCTIONS[name]
            yield from self._count(call, count, signature)
            place = NUMBERS.get(name)
            if place is not None and len(call.args) == count:
                yield from self._whole(call.args[place], signature)
        elif name in ELEMENTWISE:
            least, most = FUNCTIONS[name].least, FUNCTIONS[name].most
            if not least <= len(call.args) <= most:
                yield from self._count(call, least, FUNCTIONS[name].signature)
        elif name not in self.lost:
            self.lost.add(name)
            near = closest(name, [*LAYER_FUNCTIONS, *sorted(ELEMENTWISE), *self.functions])
            helps = (f"did you mean `{near}`?",) if near else ()
            if name in FUNCTIONS:
                helps = ("call it in the step",)
            message = f"the layer block has no function `{name}`"
            yield Diagnostic("E0504", message, call.function_span, helps=helps)

    def _count(self, call: ast.Call, count: int, signature: str) -> Iterator[Diagnostic]:
        if len(call.args) != count:
            takes = f"{count} argument{'s' if count != 1 else ''}"
            message = f"`{call.function}` takes {takes}, not {len(call.args)}"
            yield Diagnostic("E0505", message, call.span, helps=(f"write `{signature}`",))

    def _whole(self, arg: ast.Expr, signature: str) -> Iterator[Diagnostic]:
        if isinstance(arg, ast.Name):
            return
        if not isinstance(arg, ast.Number) or not arg.value.is_integer() or arg.value < 1:
            message = "this argument is a positive whole number"
            yield Diagnostic("E0505", message, arg.span, helps=(f"write `{signature}`",))
