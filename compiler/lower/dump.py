"""The kernel IR as text, for `recurra show kernels`."""

from __future__ import annotations

from ..ir.types import show_axes
from .kernel_ir import Coordinate, Kernel, Ref, Statement, Tensor
from .layout import Label


def show_kernel(kernel: Kernel) -> str:
    """A kernel's tensors by place, then its sections, one statement a line: ``x [K, V] = dot S W``."""
    layout = kernel.layout
    blocks = ", ".join(f"{name} {layout.sizes[name]}/{layout.blocks[name]}" for name in layout.order)
    lines = [f"kernel {kernel.name} ({kernel.template}; {layout.rows} {layout.along}; axis size/block: {blocks})"]
    lines += [f"  {tensor.place} {tensor.name} {show_axes(tensor.axes)}" for tensor in kernel.tensors]
    for section, statements in kernel.sections.items():
        if statements:
            lines.append(f"  {section}:")
            lines += [f"    {_statement(statement)}" for statement in statements]
    return "\n".join(lines)


def _statement(s: Statement) -> str:
    words = [s.op, *(_ref(arg) for arg in s.args), *(_attribute(a) for a in s.attrs)]
    target = f"{s.target} {_labels(s.labels)} = " if s.target else ""
    return target + " ".join(word for word in words if word)


def _ref(ref: Ref) -> str:
    return f"{ref.number:g}" if ref.number is not None else ref.name


def _labels(labels: tuple[Label, ...]) -> str:
    return f"[{', '.join(_label(label) for label in labels)}]" if labels else "scalar"


def _label(label: Label) -> str:
    return label.name + (f"#{label.copy}" if label.copy else "")


def _attribute(value: object) -> str:
    match value:
        case Tensor(name=name):
            return name
        case Label():
            return _label(value)
        case Coordinate(label=None, start=start):
            return str(start)
        case Coordinate(label=Label() as label, start=start):
            return _label(label) + (f"+{start}" if start else "")
        case tuple():
            return f"[{', '.join(_attribute(item) for item in value)}]"
    return str(value)
