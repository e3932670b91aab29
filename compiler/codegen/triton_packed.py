"""Packed sequences in Triton kernels: which one a program walks, from where, how far.

A program owns a sequence (or several, in rows) and reads where it begins and ends from ``cu_seqlens``; only kernels
that are parallel over chunks start from a slot of the checkpoints and find their sequence. Chunk c of sequence i has
the slot ``begin // chunk + i + c``: no two have the same, and there are ``steps // chunk + batch`` slots at most. The
backward pass walks one part of every sequence at a time (kernels of the chunk strategy the whole of it); rows of a
segment's tensors are counted from ``begin // parts + i * pad`` in every part.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..lower.kernel_ir import Kernel, Tensor

CU_SEQLENS = "cu_seqlens"
"""The argument that says where sequences begin: a pointer to ``batch + 1`` whole numbers."""


def place(kernel: Kernel) -> Iterator[str]:
    """The part of the work of a program; ``pid`` counts sequences (or slots), several of them at a time.

    ``length`` is the number of steps to walk of each sequence and ``count`` the most of them, ``t`` the place in memory
    of the first (of the first of the last block, where it walks blocks to the left).
    """
    several, apart = kernel.layout.sequences > 1, kernel.walk == "apart"
    mine = f"i_r * {kernel.layout.rows} + tl.arange(0, {kernel.layout.rows})" if several else "i_r"
    yield "i_r = pid.to(tl.int64)"
    if apart:
        yield f"slot = {mine}"
        yield f"i_b = _sequence_of(slot, {CU_SEQLENS}, batch, steps, {kernel.facts['chunk']})"
    else:
        yield f"i_b = {mine}"
    yield f"begin = _bound({CU_SEQLENS}, i_b, batch, steps)"
    yield f"end = tl.maximum(_bound({CU_SEQLENS}, i_b + 1, batch, steps), begin)"
    yield from _WALKS[kernel.walk](kernel)
    yield "count = tl.max(length, axis=0)" if several else "count = length"
    if apart and kernel.layout.along == "steps":
        yield f"if (i_c < 0) | (i_c * {kernel.facts['chunk']} >= count):"
        yield "    return"
    elif apart:
        yield "if count == 0:"
        yield "    return"
    if several:
        yield "m_rows = length > 0" if apart else "m_rows = i_b < batch"


def _whole(kernel: Kernel) -> Iterator[str]:
    yield "length = (end - begin).to(tl.int32)"
    yield "t = begin if direction > 0 else end - 1"


def _part(kernel: Kernel) -> Iterator[str]:
    """From the last step of a part to its first; without chunks a sequence is one part."""
    chunk = kernel.facts["chunk"]
    if chunk is None:
        yield "length = (end - begin).to(tl.int32)"
        yield "t = end - 1 if direction > 0 else begin"
        return
    yield f"size = tl.cdiv(tl.cdiv(end - begin, {chunk}), parts) * {chunk}"
    yield "low = tl.minimum(part * size, end - begin)"
    yield "high = tl.minimum(low + size, end - begin)"
    yield "length = (high - low).to(tl.int32)"
    yield from _row(kernel, "")
    if kernel.layout.along == "steps":
        yield f"before = low + {_last_block(kernel)}"
        yield "t = begin + before if direction > 0 else end - 1 - before"
    else:
        yield "t = begin + high - 1 if direction > 0 else end - high"


def _chunk(kernel: Kernel) -> Iterator[str]:
    """One chunk, if the part has it; none for slots that no chunk has. Blocks of steps are counted in the sequence."""
    chunk = kernel.facts["chunk"]
    yield f"i_c = slot - (begin // {chunk} + i_b)"
    yield f"t = begin + i_c * {chunk} if direction > 0 else end - 1 - i_c * {chunk}"
    if kernel.layout.along == "steps":
        yield "length = (end - begin).to(tl.int32)"
        return
    yield f"size = tl.maximum(tl.cdiv(tl.cdiv(end - begin, {chunk}), parts), 1)"
    yield "here = (i_c >= 0) & (i_c // size == part)"
    yield f"left = tl.maximum(tl.minimum(end - begin - i_c * {chunk}, {chunk}), 0)"
    yield "length = tl.where(here, left, 0).to(tl.int32)"
    yield from _row(kernel, f" + (i_c - part * size) * {chunk}")


def _row(kernel: Kernel, more: str) -> Iterator[str]:
    """The row of a segment's tensors with the first step to walk, if the kernel has such tensors."""
    if any(tensor.place == "segment" for tensor in kernel.tensors):
        yield f"row = begin // parts + i_b * pad{more}"


def _last_block(kernel: Kernel) -> str:
    """How many steps stand before the last block."""
    rows = kernel.layout.rows
    return f"(tl.cdiv(length, {rows}) - 1) * {rows}"


_WALKS = {"right": _whole, "left": _part, "apart": _chunk}


def index(kernel: Kernel, tensor: Tensor) -> tuple[str, str]:
    """The index of a program's first element before a tensor's own axes, and how many there are."""
    chunk = kernel.facts["chunk"]
    row, slot = "row", f"(begin // {chunk} + i_b)"
    if kernel.walk == "apart":
        slot = "slot"
    elif kernel.walk == "left":
        row = f"(row + {_last_block(kernel)})" if kernel.layout.along == "steps" else "(row + length - 1)"
        slot = f"((begin + low) // {chunk} + i_b + tl.cdiv(length, {chunk}) - 1)"
    return {
        "step": (f"t * {tensor.heads}", f"steps * {tensor.heads}"),
        "segment": (f"{row} * heads", "(steps // parts + batch * pad) * heads"),
        "checkpoint": (f"{slot} * heads", f"(steps // {chunk} + batch) * heads"),
    }[tensor.place]


def rows_at(kernel: Kernel) -> dict[str, str]:
    """By section, which sequences of a program take part: at a step those that have it."""
    if kernel.layout.sequences == 1:
        return {}
    return {
        "checkpoint": f"m_rows = chunk * {kernel.facts['chunk']} < length",
        "step": "m_rows = i < length",
        "final": "m_rows = i_b < batch",
    }
