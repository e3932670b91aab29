"""Packed sequences in Triton kernels: which one a program walks, from where, how far.

A program owns a sequence (or ``rows`` of them) and reads where it begins and ends from ``cu_seqlens``; only
``trajectory``, which is parallel over chunks, starts from a slot of the checkpoints and finds its sequence. Chunk
c of sequence i has the slot ``begin // chunk + i + c``: no two have the same, and there are ``steps // chunk +
batch`` slots at most. The backward pass walks one part of every sequence at a time; rows of a segment's tensors
are counted from ``begin // parts + i * pad`` in every part.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..lower.kernel_ir import Kernel, Tensor

CU_SEQLENS = "cu_seqlens"
"""The argument that says where sequences begin: a pointer to ``batch + 1`` whole numbers."""


def place(kernel: Kernel) -> Iterator[str]:
    """The part of the work of a program; ``pid`` counts sequences (or slots), ``rows`` of them at a time.

    ``length`` is the number of steps to walk of each sequence and ``count`` the most of them, ``t`` the place in memory
    of the first.
    """
    rows, chunk = kernel.layout.rows, kernel.facts.get("chunk")
    mine = "i_r" if rows == 1 else f"i_r * {rows} + tl.arange(0, {rows})"
    yield "i_r = pid.to(tl.int64)"
    if kernel.template == "trajectory":
        yield f"slot = {mine}"
        yield f"i_b = _sequence_of(slot, {CU_SEQLENS}, batch, steps, {chunk})"
    else:
        yield f"i_b = {mine}"
    yield f"begin = _bound({CU_SEQLENS}, i_b, batch, steps)"
    yield f"end = tl.maximum(_bound({CU_SEQLENS}, i_b + 1, batch, steps), begin)"
    yield from _PARTS[kernel.template](chunk)
    yield "count = length" if rows == 1 else "count = tl.max(length, axis=0)"
    if kernel.template == "trajectory":
        yield "if count == 0:"
        yield "    return"
    if rows > 1:
        yield "m_rows = length > 0" if kernel.template == "trajectory" else "m_rows = i_b < batch"


def _whole(chunk: int | None) -> Iterator[str]:
    yield "length = (end - begin).to(tl.int32)"
    yield "t = tl.where(direction > 0, begin, end - 1)"


def _whole_from_the_end(chunk: int | None) -> Iterator[str]:
    yield "length = (end - begin).to(tl.int32)"
    yield "t = tl.where(direction > 0, end - 1, begin)"


def _part(chunk: int | None) -> Iterator[str]:
    """From the last step of a part to its first."""
    yield f"size = tl.cdiv(tl.cdiv(end - begin, {chunk}), parts) * {chunk}"
    yield "first = tl.minimum(part * size, end - begin)"
    yield "last = tl.minimum(first + size, end - begin)"
    yield "length = (last - first).to(tl.int32)"
    yield "row = begin // parts + i_b * pad"
    yield "t = tl.where(direction > 0, begin + last - 1, end - last)"


def _chunk(chunk: int | None) -> Iterator[str]:
    """One chunk, if the part has it; none for slots that no chunk has."""
    yield f"i_c = slot - (begin // {chunk} + i_b)"
    yield f"size = tl.maximum(tl.cdiv(tl.cdiv(end - begin, {chunk}), parts), 1)"
    yield "here = (i_c >= 0) & (i_c // size == part)"
    yield f"left = tl.maximum(tl.minimum(end - begin - i_c * {chunk}, {chunk}), 0)"
    yield "length = tl.where(here, left, 0).to(tl.int32)"
    yield f"row = begin // parts + i_b * pad + (i_c - part * size) * {chunk}"
    yield f"t = tl.where(direction > 0, begin + i_c * {chunk}, end - 1 - i_c * {chunk})"


_PARTS = {"forward": _whole, "reverse": _whole_from_the_end, "adjoint": _part, "trajectory": _chunk}


def index(kernel: Kernel, tensor: Tensor) -> tuple[str, str]:
    """The index of a program's first element before a tensor's own axes, and how many there are."""
    chunk = kernel.facts.get("chunk")
    slot = "slot" if kernel.template == "trajectory" else f"(begin // {chunk} + i_b)"
    if kernel.template == "reverse":
        slot = f"(begin // {chunk} + i_b + tl.cdiv(length, {chunk}) - 1)"
    row = "(row + length - 1)" if kernel.template == "adjoint" else "row"
    return {
        "step": (f"t * {tensor.heads}", f"steps * {tensor.heads}"),
        "segment": (f"{row} * heads", "(steps // parts + batch * pad) * heads"),
        "checkpoint": (f"{slot} * heads", f"(steps // {chunk} + batch) * heads"),
    }[tensor.place]


def rows_at(kernel: Kernel) -> dict[str, str]:
    """By section, which sequences of a program take part: at a step those that have it."""
    if kernel.layout.rows == 1:
        return {}
    chunk = kernel.facts.get("chunk")
    return {
        "checkpoint": f"m_rows = chunk * {chunk} < length",
        "step": "m_rows = i < length",
        "final": "m_rows = i_b < batch",
    }
