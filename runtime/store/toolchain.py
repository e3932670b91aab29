"""The C++ compiler of this machine: which one, which flags it takes, and what it compiles for."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from ..errors import NoCompiler, StoreError
from . import openmp
from .cache import Store, fingerprint

COMPILERS = ("g++", "clang++", "c++")
"""What is looked for on PATH where ``$CXX`` is not set."""

_ADVICE = (
    "install a C++ compiler with `apt install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora, RHEL) "
    "or `xcode-select --install` (macOS)"
)
_FLAGS = ("-std=gnu++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-pipe")
_TARGETS = (("-march=native",), ("-mcpu=native",), ())
_HEADER = "#include <stdlib.h>\n"  # also brings the version of the C library
_PROBE = """#include <math.h>
extern "C" void probe(float* x, int size) {
#pragma omp parallel for schedule(dynamic)
  for (int i = 0; i < size; i++) x[i] = sqrtf(fmaf(x[i], x[i], 1));
}
"""
_VECTORS = {
    "__AVX512F__": "AVX-512",
    "__AVX2__": "AVX2",
    "__AVX__": "AVX",
    "__SSE2__": "SSE2",
    "__ARM_FEATURE_SVE": "SVE",
    "__ARM_NEON": "NEON",
    "__VSX__": "VSX",
}
"""The widest vectors by the macro that promises them, best first within a family."""


@dataclass(frozen=True)
class Toolchain:
    """A compiler that works, and how to call it.

    ``compiler`` is its command, ``version`` its make and version. ``flags`` stand before the source,
    ``libraries`` after it. ``features`` identifies what the flags mean on this machine (processor,
    compiler, C library): code compiled under other features may not run here. ``vectors`` names the
    processor's vector instructions, ``openmp`` says whether kernels have threads.
    """

    compiler: str
    version: str
    flags: tuple[str, ...]
    libraries: tuple[str, ...]
    features: str
    vectors: str
    openmp: bool

    def command(self, source: str, library: str, extra: Sequence[str] = ()) -> list[str]:
        """The command that compiles one file into a shared library."""
        return [*shlex.split(self.compiler), *self.flags, *extra, source, "-o", library, *self.libraries]


def toolchain() -> Toolchain:
    """The compiler that ``$CXX`` names, else the first of :data:`COMPILERS` that works; NoCompiler if none does.

    Found once per process for given ``$CXX`` and ``$PATH``, by one call of the compiler. The small program
    that shows which flags work is compiled once per machine and loaded from the store in each process.
    """
    found = _found()
    if isinstance(found, str):
        raise NoCompiler(found)
    return found


@torch.compiler.assume_constant_result  # so that `torch.compile` does not trace it
def _found() -> Toolchain | str:
    return _find(os.environ.get("CXX", ""), os.environ.get("PATH", ""))


@lru_cache(maxsize=8)
def _find(chosen: str, path: str) -> Toolchain | str:
    """The toolchain, or what is wrong and how to mend it."""
    try:
        commands = [shlex.split(chosen)] if chosen.strip() else [[name] for name in COMPILERS]
    except ValueError as error:
        return f"CXX is {chosen!r}, which is no command: {error}"
    problems = []
    for name, *arguments in commands:
        place = shutil.which(name, path=path)
        if place is None:
            continue
        place = os.path.abspath(place)  # kernels are compiled in another folder
        found = _working(shlex.join([place, *arguments]), Path(place))
        if isinstance(found, Toolchain):
            return found
        problems.append(found)
    if chosen.strip():
        problem = problems[0] if problems else f"{commands[0][0]} is not there"
        return f"CXX is {chosen!r}, but {problem}: unset CXX, or {_ADVICE}"
    return f"{'; '.join(problems) or 'there is none of ' + ', '.join(COMPILERS) + ' on PATH'}: {_ADVICE}"


def _working(compiler: str, place: Path) -> Toolchain | str:
    """A compiler with the best flags that work, or why none do."""
    problem = ""
    for target in _TARGETS:
        macros = _macros(compiler, target)
        if isinstance(macros, str):
            problem = problem or macros
            continue
        for flags, libraries in openmp.choices("__clang__" in macros, openmp.loaded_runtime()):
            candidate = Toolchain(
                compiler,
                _version(macros),
                (*_FLAGS, *target, *flags),
                (*libraries, "-lm"),
                _features(macros),
                next((name for macro, name in _VECTORS.items() if macro in macros), "none"),
                bool(flags),
            )
            failure = _fails(candidate, place)
            if failure is None:
                return candidate
            problem = problem or failure
    return f"{compiler} does not work: {problem}"


def _macros(compiler: str, target: Sequence[str]) -> Mapping[str, str] | str:
    """What the compiler defines for a target, or its complaint."""
    command = [*shlex.split(compiler), *target, "-x", "c++", "-dM", "-E", "-"]
    done = _run(command, _HEADER)
    if done.returncode:
        return _complaint(done)
    defined = (line.split(maxsplit=2) for line in done.stdout.splitlines() if line.startswith("#define "))
    return {fields[1]: fields[2] if len(fields) > 2 else "" for fields in defined}


def _version(macros: Mapping[str, str]) -> str:
    clang = macros.get("__clang_version__")
    if clang is None:
        return f"gcc {macros['__VERSION__'].strip(chr(34))}"
    number = clang.strip('" ').split()[0]
    return f"Apple clang {number}" if "__apple_build_version__" in macros else f"clang {number}"


def _features(macros: Mapping[str, str]) -> str:
    text = "\n".join(f"{name} {value}" for name, value in sorted(macros.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fails(candidate: Toolchain, place: Path) -> str | None:
    """What goes wrong with a small program; its library is kept in the store and compiled once only."""
    command = candidate.command("probe.cpp", "probe.so")

    def compiled() -> dict[str, str | bytes]:
        with tempfile.TemporaryDirectory(prefix="recurra-") as folder:
            (Path(folder) / "probe.cpp").write_text(_PROBE)
            done = _run(command, cwd=folder)
            if done.returncode:
                raise _ProbeFailed(_complaint(done))
            return {"probe.cpp": _PROBE, "probe.so": (Path(folder) / "probe.so").read_bytes()}

    installed = str(place.stat().st_mtime_ns)
    key = fingerprint("compiler", _PROBE, *command, candidate.version, candidate.features, installed)
    try:
        ctypes.CDLL(str(Store().get_or_create(key, compiled) / "probe.so"))
    except _ProbeFailed as error:
        return str(error)
    except StoreError:  # whoever builds kernels will be told
        return None
    except OSError as error:
        return f"its libraries cannot be loaded: {error}"
    return None


class _ProbeFailed(Exception):
    """The compiler's complaint."""


def _run(command: Sequence[str], text: str = "", cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            command, input=text, cwd=cwd, env=environment, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:  # not executable, or for another machine
        return subprocess.CompletedProcess(command, 1, "", f"error: {error.strerror}")


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The first error of a compiler in one line."""
    lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    return next((line for line in lines if "error" in line), lines[0])


def warn_no_compiler(error: NoCompiler | str) -> None:
    """Say, once per process, that recurrences run on the reference for want of a compiler, and what to do."""
    _warn(str(error))


@torch.compiler.assume_constant_result
def _warn(problem: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"recurrences run on the reference, which is slow, since no native kernels can be compiled: {problem}",
            RuntimeWarning,
            stacklevel=3,
        )


_warned = False
