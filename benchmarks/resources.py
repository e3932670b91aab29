"""Registers, spills, shared memory and matrix-unit instructions of generated kernels, without a GPU.

Compiles kernels ahead of time for every target and writes a table:

    python benchmarks/resources.py            # print
    python benchmarks/resources.py --write    # and keep it under benchmarks/results/
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import recurra
from recurra.runtime.ops.ahead import Resources, measure

ROOT = Path(__file__).resolve().parent
CASES = (
    ("m2rnn", {"K": 64, "V": 64}),
    ("m2rnn", {"K": 64, "V": 16}),
    ("gated_delta_net", {"K": 64, "V": 64}),
    ("gated_delta_net", {"K": 128, "V": 128}),
    ("lstm", {"D": 64}),
    ("mamba", {"D": 64, "N": 16}),
)
"""Recurrences and sizes whose kernels must not spill."""


def rows(precision: str) -> Iterator[tuple[str, Resources]]:
    """All kernels of all cases: bfloat16 inputs for tensor-core products, float32 ones for exact products."""
    for name, sizes in CASES:
        program = recurra.load(ROOT.parent / "examples" / "zoo" / f"{name}.rec").program
        shown = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        dtype = "fp32" if precision == "ieee" else "bf16"
        for row in measure(program, sizes, dtype=dtype, precision=precision):
            yield shown, row


def table() -> str:
    """The table as Markdown."""
    lines = [
        "# Kernels compiled ahead of time",
        "",
        "Written by `python benchmarks/resources.py --write`. Registers per thread, bytes spilled (stack or scratch),",
        "bytes of shared memory, and matrix-unit instructions in the code.",
        "",
        "| kernel | sizes | inputs | products | target | warps | registers | spills | shared | matrix instructions |",
        "|---|---|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for precision in ("tf32", "ieee"):
        for sizes, r in rows(precision):
            lines.append(
                f"| {r.kernel} | {sizes} | {r.dtype} | {r.precision} | {r.target} | {r.warps} | {r.registers} "
                f"| {r.spills} | {r.shared} | {r.matrix_instructions} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/resources.md")
    arguments = parser.parse_args()
    text = table()
    if arguments.write:
        (ROOT / "results").mkdir(exist_ok=True)
        (ROOT / "results" / "resources.md").write_text(text)
