"""The OpenMP runtime of torch, which generated libraries share: two in one process fight over the cores."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import torch

Choice = tuple[tuple[str, ...], tuple[str, ...]]
"""Flags for the compiler, and what to link after the source."""

NONE: Choice = ((), ())

_RUNTIME = re.compile(r"lib(gomp|omp|iomp5)[-.]")


def choices(clang: bool, runtime: Path | None) -> tuple[Choice, ...]:
    """Ways to compile for the runtime that torch has loaded (None: it has none), best first; the last has no threads.

    The GNU compiler's calls are answered by every runtime, clang's by LLVM's and Intel's only.
    """
    if runtime is None:
        return ((("-fopenmp",), ()), NONE)
    if clang:
        gnu = runtime.name.startswith("libgomp")
        # past the driver, which would link a runtime of its own, and which Apple has made to refuse
        return (NONE,) if gnu else ((("-Xclang", "-fopenmp"), (str(runtime),)), NONE)
    if runtime.name.startswith("libgomp.so"):  # the name that the compiler links: the loader finds torch's copy
        return ((("-fopenmp",), ()), NONE)
    return ((("-fopenmp",), ("-Wl,--as-needed", str(runtime))), NONE)


def loaded_runtime() -> Path | None:
    """The OpenMP runtime in this process that belongs to torch, or else the first one, or None."""
    found = loaded_runtimes()
    package = Path(torch.__file__).resolve().parent
    for path in found:
        if any(folder in path.parents for folder in (package, package.with_name("torch.libs"))):
            return path
    return found[0] if found else None


def loaded_runtimes() -> list[Path]:
    """All OpenMP runtimes in this process, in the order of their addresses."""
    names = _libraries_of_macos() if sys.platform == "darwin" else _libraries_of_linux()
    return [Path(name) for name in dict.fromkeys(names) if _RUNTIME.match(Path(name).name)]


def _libraries_of_linux() -> list[str]:
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    return [fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6]


def _libraries_of_macos() -> list[str]:
    loader = ctypes.CDLL(None)
    loader._dyld_get_image_name.restype = ctypes.c_char_p
    return [loader._dyld_get_image_name(index).decode() for index in range(loader._dyld_image_count())]
