"""Generated C++ becomes shared libraries of the store, compiled once, and is loaded from there."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import BackendError, StoreError
from .cache import Store, fingerprint
from .loader import map_path, read_map
from .toolchain import Toolchain, toolchain

_PATIENCE = 2.0  # seconds until the user is told what takes so long
_SHOWN = 8  # lines of a compiler's complaint
_ERROR = re.compile(r"\berror: |\bld: ")
_NO_ROOM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

_LIBRARIES: dict[Path, ctypes.CDLL] = {}
_LOADING = threading.Lock()


def build(name: str, files: Mapping[str, str], *, main: str = "kernels.cpp", extra_flags: Sequence[str] = ()) -> Path:
    """The shared library of generated files, in the store beside its sources; compiled first if it is not there.

    ``files`` are texts by file name, of which the compiler is given ``main``; ``name`` is what messages
    and the entry are called by. The same files, flags, compiler and processor give the same library.
    NoCompiler if there is none, BackendError if it finds a mistake, StoreError if there is no room.
    """
    tools = toolchain()
    library = f"{Path(main).stem}.so"
    command = tools.command(main, library, extra_flags)
    texts = [part for item in sorted(files.items()) for part in item]
    key = fingerprint(name, tools.version, tools.features, *command, *texts)
    store = Store()

    def compiled() -> dict[str, str | bytes]:
        return {**files, library: _compiled(name, command, files, library, store.folder / key)}

    try:
        return store.get_or_create(key, compiled) / library
    except _Refused as refused:
        output = refused.output
    kept = store.get_or_create(f"failed-{key}", lambda: {**files, "compiler.txt": output})
    raise BackendError(_explanation(name, tools, command, kept / main, output))


def load(path: Path) -> ctypes.CDLL:
    """The library at a path, loaded into this process with names of its own; the same path gives the same object.

    StoreError if it cannot be loaded.
    """
    with _LOADING:
        if path not in _LIBRARIES:
            try:
                _LIBRARIES[path] = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
            except OSError as error:
                raise StoreError(
                    f"{path} cannot be loaded: {error}; if programs may not be run from that folder, "
                    "set RECURRA_CACHE to another one"
                ) from error
        return _LIBRARIES[path]


class _Refused(Exception):
    """A compiler that did not accept its input, and everything it printed."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


def _compiled(name: str, command: Sequence[str], files: Mapping[str, str], library: str, entry: Path) -> bytes:
    """The library, compiled in a folder of its own that is gone afterwards."""
    with _room() as folder:
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        # where debug information is asked for, debuggers find the sources in the store
        status, output = _run(name, [*command, f"-ffile-prefix-map={folder}={entry}"], folder)
        if status and any(reason in output for reason in _NO_ROOM):
            complaint = output.strip().splitlines()[0]
            raise StoreError(f"no room to compile {name}: {complaint}; make room in {folder.parent} or set TMPDIR")
        if status:
            raise _Refused(output)
        return (folder / library).read_bytes()


@contextmanager
def _room() -> Iterator[Path]:
    """A temporary folder; StoreError for whatever goes wrong with its files."""
    try:
        with tempfile.TemporaryDirectory(prefix="recurra-") as folder:
            yield Path(folder).resolve()
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        where = tempfile.gettempdir()
        problem = error.strerror or error
        raise StoreError(f"nothing can be compiled in {where}: {problem}; make room there or set TMPDIR") from error


def _run(name: str, command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit status and output of the compiler; says what it is waiting for where that takes long."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        try:
            output, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            with _status(f"compiling {name} for the CPU ..."):
                output, _ = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process.returncode, output


@contextmanager
def _status(message: str) -> Iterator[None]:
    """A line on the terminal for as long as this lasts."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(message):
        yield


def _explanation(name: str, tools: Toolchain, command: Sequence[str], source: Path, output: str) -> str:
    lines = output.strip().splitlines() or ["(it printed nothing)"]
    first = next((number for number, line in enumerate(lines) if _ERROR.search(line)), 0)
    shown = lines[first : first + _SHOWN]
    last = next((number for number, line in enumerate(lines) if number > first and _ERROR.search(line)), len(lines))
    place = _place(source, (lines[first], *lines[:last]))  # an error in a header is led up to, or followed up
    return "\n".join(
        [
            f"{tools.version} cannot compile the kernels of {name}" + (f", at {place}" if place else ""),
            *(f"  {line}" for line in shown),
            f"the command was: {shlex.join(command)}",
            f"its files are kept for a report in {source.parent}",
        ]
    )


def _place(source: Path, lines: Sequence[str]) -> str | None:
    """The place in the `.rec` text of the first position in the kernels' file that has one."""
    if not map_path(source).exists():
        return None
    line_map = read_map(source)
    position = re.compile(rf"{re.escape(source.name)}:(\d+)")
    places = (line_map.place(int(found[1])) for line in lines if (found := position.search(line)))
    return next((place for place in places if place is not None), None)
