"""Packed sequences in C++ kernels: which ones a program walks, from where, how far.

A table says of each sequence its number, where it begins and how long it is, the longest first. Programs take them in
this order, so that long ones start early and those of one program are about as long as each other. A program
that walks several (``rows``) has its longest first too: at every step those that still go on are the first
few, and loops over rows simply end there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..lower.kernel_ir import Kernel, Tensor

SEQUENCES = "sequences"
"""The argument behind all tensors: int64 [batch, 3], of each sequence its number, begin and length."""

ROW_INDEX: Mapping[str, str] = {"step": "origin", "sequence": "number", "checkpoint": "slot"}
"""Where along a tensor the rows of a program lie, by the tensor's place: names of arrays."""


def place(kernel: Kernel) -> Iterator[str]:
    """``walked`` steps of a program's sequences: their ``number``, the first step's ``origin`` in memory, the ``slot``
    of the first checkpoint."""
    chunk, rows = kernel.facts["chunk"], kernel.layout.rows
    if rows == 1:
        yield f"const int64_t* const entry = {SEQUENCES} + group * 3;"
        yield "[[maybe_unused]] const int64_t sequence = entry[0], walked = entry[2];"
        yield "[[maybe_unused]] const int64_t origin = direction > 0 ? entry[1] : entry[1] + entry[2] - 1;"
        if chunk:
            yield f"const int64_t slot = entry[1] / {chunk} + entry[0];"
        return
    yield "const int most = int(batch - group * share < share ? batch - group * share : share);"
    yield f"[[maybe_unused]] int64_t number[{rows}], origin[{rows}], slot[{rows}], length[{rows}];"
    yield "for (int i = 0; i < most; i++) {"
    yield f"  const int64_t* const entry = {SEQUENCES} + (group * share + i) * 3;"
    yield "  number[i] = entry[0];"
    yield "  origin[i] = direction > 0 ? entry[1] : entry[1] + entry[2] - 1;"
    if chunk:
        yield f"  slot[i] = entry[1] / {chunk} + entry[0];"
    yield "  length[i] = entry[2];"
    yield "}"
    yield "const int64_t walked = length[0];"
    yield "[[maybe_unused]] const int rows = most;"


def index(tensor: Tensor, rows: int, chunk: int | None) -> tuple[str, str]:
    """The index of a program's first element before a tensor's own axes, and how many there are, where packed
    sequences differ from others; what each row adds is in ``ROW_INDEX``."""
    if tensor.place == "step":
        return "head", "steps * heads"
    if tensor.place == "sequence":
        return ("head" if rows > 1 else "sequence * heads + head"), "batch * heads"
    return ("head" if rows > 1 else "slot * heads + head"), f"(steps / {chunk} + batch) * heads"


def first_step(rows: int) -> str:
    """Where in memory step 0 of a program is, as far as all its sequences share that."""
    return "origin + " if rows == 1 else ""


def clear(kernel: Kernel, sizes: Mapping[str, str]) -> Iterator[str]:
    """Zeros where sequences of a program do not have all steps of a chunk, for products over all of them."""
    products = kernel.sections.get("products", ())
    names = dict.fromkeys(arg.name for s in products for arg in s.args if arg.name in sizes)
    if kernel.layout.rows > 1 and names:
        yield "if (simd::going(length, rows, end - 1) < rows) {"
        for name in names:
            yield f"  simd::zero(kept_{name}, {sizes[name]});"
        yield "}"
