"""What is known of GPUs: limits, and launch parameters that compilers get wrong there."""

from __future__ import annotations

from dataclasses import dataclass

from .lower.chunk import ChunkFacts
from .lower.kernel_ir import Kernel


@dataclass(frozen=True)
class Target:
    """A GPU architecture: Triton's backend, architecture and warp size, and the bytes of shared memory
    that one program may have."""

    name: str
    backend: str
    architecture: int | str
    warp: int
    shared: int


TARGETS: tuple[Target, ...] = (
    Target("sm_80", "cuda", 80, 32, 163 << 10),
    Target("sm_90", "cuda", 90, 32, 227 << 10),
    Target("sm_100", "cuda", 100, 32, 227 << 10),
    Target("gfx942", "hip", "gfx942", 64, 64 << 10),
)


@dataclass(frozen=True)
class Forbidden:
    """A number of warps that gives wrong results: for kernels of a kind (``dot``: a matrix product in the loop over
    steps; ``solve``: a chunk's triangular system), on one architecture, with Triton before a version; ``instead`` is
    used."""

    architecture: int | str
    before: tuple[int, int]
    kind: str
    warps: int
    instead: int


FORBIDDEN: tuple[Forbidden, ...] = (Forbidden(100, (3, 8), "dot", 4, 8), Forbidden(90, (3, 8), "solve", 4, 8))


def chunk_rows(architecture: int | str) -> int | None:
    """The most rows of a chunk with a state that fills a program; None where as many fit as with others.

    Before Hopper, and on AMD's GPUs, operands of products are registers: with 64 rows beside a state of 128 x 128 the
    backward kernels spill, and there rows need not be 64 for a matrix unit to take them.
    """
    return 32 if isinstance(architecture, str) or architecture < 90 else None


def register_limit(warps: int) -> int:
    """The most registers a thread of an NVIDIA GPU can have with so many warps.

    Left alone, NVIDIA's assembler sometimes spills a value or two to run more programs at once; with this
    limit it spills only what does not fit.
    """
    return min(255, 65536 // (32 * warps) // 8 * 8)


def warps(kernel: Kernel, architecture: int | str, triton: tuple[int, int]) -> int:
    """The number of warps for a kernel: what its layout asks for, unless that is known to go wrong."""
    wanted = kernel.layout.warps
    if isinstance(architecture, str):
        fewest = 4 if "algorithm" in kernel.facts else 1  # half as many of chunk kernels do not hold its tiles
        wanted = max(fewest, wanted // 2)  # AMD's have 64 threads: as many threads, and twice the registers for each
    kinds = _kinds(kernel)
    for rule in FORBIDDEN:
        applies = rule.architecture == architecture and triton < rule.before and rule.kind in kinds
        if applies and rule.warps == wanted:
            return rule.instead
    return wanted


def _kinds(kernel: Kernel) -> set[str]:
    facts: ChunkFacts | None = kernel.facts.get("algorithm")
    if facts is not None:
        return {"dot", "solve"} if facts.substeps else {"dot"}
    dots = any(statement.op == "dot" for statements in kernel.sections.values() for statement in statements)
    return {"dot"} if dots else set()
