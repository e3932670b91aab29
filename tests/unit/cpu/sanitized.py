"""Runs kernels that are compiled with sanitizers; for a process of its own that has their runtime preloaded."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from unit.cpu.agreement import arguments, check
from unit.kernels.against_reference import sizes_of, spec

from recurra.compiler.analysis.independence import independent_axes
from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.lower.split import split
from recurra.compiler.lower.two_pass import TwoPassKernels
from recurra.compiler.options import KernelOptions, Options
from recurra.runtime.ops import cpu_backend

FLAGS = (
    "-O0",  # compiles four times as fast as -O1, and nothing wrong is optimised away
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize=null,pointer-overflow",  # such addresses lie in nobody's memory, which is seen at their use
    "-fno-sanitize-recover=all",
    "-fno-lifetime-dse",  # what stood in a room before its zones were made is still there
)

ZONE = """#include <new>
#include <sanitizer/asan_interface.h>
struct alignas(64) Zone {
  char bytes[64];
  Zone() { __asan_poison_memory_region(bytes, sizeof bytes); }
};
"""
"""Memory that nobody may touch."""

ARRAY = re.compile(r"^ *alignas\(64\) real (\w+)\[.*\];$", re.MULTILINE)
CLEARED = "memset(static_cast<void*>(room), 0, size);"
INLINE = "#define INLINE __attribute__((always_inline))"


def prepared(files: Mapping[str, str], damage: tuple[str, str, str] | None) -> dict[str, str]:
    """Generated files in which each of a kernel's own arrays is followed by a zone, as torch's tensors are.

    Functions are not inlined, which halves the time to compile.
    """
    text, count = ARRAY.subn(r"\g<0>\n  Zone behind_\1;", files["kernels.cpp"])
    assert count
    made = {**files, "kernels.cpp": ZONE + text}
    changes = [
        ("parallel.hpp", CLEARED, f"{CLEARED} new (static_cast<void*>(room)) Room;"),
        ("vector.hpp", INLINE, "#define INLINE"),
    ]
    for file, old, new in [*changes, damage] if damage else changes:
        assert old in made[file], old
        made[file] = made[file].replace(old, new)
    return made


def run_sanitized(path: Path, dtype: torch.dtype) -> None:
    """All kernels of a recurrence at odd sizes, compared with the reference; two tiles along independent axes.

    Vectors hold 4, 8 or 16 numbers: axes are shorter, or are whole vectors and one number more.
    """
    program = spec(path.read_text(encoding="utf-8"), path.name)
    free = independent_axes(split(program).core)
    odd = sizes_of(program, *((5, 17, 3) if len(program.dims) > 1 else (17,)))
    sizes = sizes_of(program, **{name: 2 * size if name in free else size for name, size in odd.items()})
    # a tile is the largest divisor up to a power of two: half of what is twice an odd number
    tiles = tuple((name, 1 << sizes[name].bit_length() - 1) for name in free)
    options = Options(checkpoint=2, tiles=tiles)
    for taken in (options, Options(tiles=tiles)) if two_passes(program, sizes) else (options,):
        check(program, sizes, arguments(program, sizes, batch=3, steps=5), dtype, options=taken)
        grouped = arguments(program, sizes, batch=3, steps=5, start=False, grouped=True)
        check(program, sizes, grouped, dtype, options=taken, reverse=True)
    for steps in (0, 1, 5):
        few = arguments(program, sizes, batch=3, steps=steps).to(dtype, ())
        with torch.no_grad():
            cpu_backend.run(program, sizes, few.inputs, few.params, few.initial, steps=steps, options=options)


def two_passes(program: Program, sizes: Mapping[str, int]) -> bool:
    """Whether it goes backward without checkpoints if none are asked for."""
    return isinstance(compile_kernels(program, sizes, KernelOptions(), backend="cpu").lowered, TwoPassKernels)


def run_packed(path: Path, dtype: torch.dtype) -> None:
    """The same for packed sequences, and for what traced calls may come with: bounds that nobody has looked at."""
    program = spec(path.read_text(encoding="utf-8"), path.name)
    sizes = sizes_of(program, *((5, 17, 3) if len(program.dims) > 1 else (17,)))
    given = arguments(program, sizes, lengths=(3, 0, 1, 7, 2, 0))
    leaves = given.to(dtype, ())
    for options in (Options(checkpoint=2), Options()) if two_passes(program, sizes) else (Options(checkpoint=2),):
        for reverse in (False, True):
            check(program, sizes, given, dtype, options=options, reverse=reverse)
        for wrong in ((5, -3, 40, 2, 13, 9, 1), (-9, 99, -9, 99, 0, 13, 12), (13, 0, 13, 0, 13, 0, 13)):
            groups = (leaves.inputs, leaves.params, leaves.initial)
            run = partial(cpu_backend.run, options=options, cu_seqlens=torch.tensor(wrong))
            outputs, final = run(program, sizes, *groups, steps=13)
            sum(value.sum().float() for value in (*outputs, *final)).backward()


def main(specs: Sequence[tuple[str, str]], damage: tuple[str, str, str] | None, packed: bool) -> None:
    """Run files of specs in dtypes and print each; ``damage`` replaces a text in a generated file."""
    os.environ.pop("LD_PRELOAD", None)  # the compiler does without
    build: Callable[..., Path] = cpu_backend.library.build

    def sanitized(
        name: str, files: Mapping[str, str], *, main: str = "kernels.cpp", extra_flags: Sequence[str] = ()
    ) -> Path:
        return build(name, prepared(files, damage), main=main, extra_flags=(*extra_flags, *FLAGS))

    cpu_backend.library.build = sanitized
    torch.set_num_threads(2)
    for path, dtype in specs:
        (run_packed if packed else run_sanitized)(Path(path), getattr(torch, dtype))
        print(Path(path).stem, dtype, flush=True)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
