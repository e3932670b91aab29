"""Backward kernels with and without cotangents of end states: few callers use what a sequence ends with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .kernel_ir import Kernel, Statement

VARIANT = "variant of"
"""The fact that names the kernel whose code this one shares but for what the walk begins with."""


def unended(kernel: Kernel) -> Kernel:
    """The kernel that begins with zeros where this one loads cotangents of end states; itself if it loads none."""
    ends = {s.attrs[0].name for s in kernel.sections.get("initial", ()) if s.op == "load"}
    if not ends:
        return kernel
    initial = tuple(
        Statement(s.target, "zeros", (), (), s.labels) if s.op == "load" else s for s in kernel.sections["initial"]
    )
    tensors = tuple(t for t in kernel.tensors if t.name not in ends)
    return replace(kernel, tensors=tensors, sections={**kernel.sections, "initial": initial})


def both(kernels: Iterable[Kernel]) -> tuple[tuple[Kernel, ...], tuple[Kernel, ...]]:
    """The kernels of a backward pass: those for end states that nobody uses, under the kernels' own names, and those
    that begin with given cotangents."""
    plain, ended = [], []
    for kernel in kernels:
        other = unended(kernel)
        plain.append(other)
        named = replace(kernel, name=f"{kernel.name}_ended", facts={**kernel.facts, VARIANT: kernel.name})
        ended.append(kernel if other is kernel else named)
    return tuple(plain), tuple(ended)
