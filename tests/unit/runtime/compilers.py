"""Compilers for tests: the machine's own behind a shell script that watches it or gets in its way."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from recurra.runtime.store import toolchain

GCC = shutil.which("g++")
needs_compiler = pytest.mark.skipif(GCC is None, reason="there is no g++ on this machine")


@dataclass(frozen=True)
class Script:
    """A compiler that writes its arguments to ``log`` and passes them on."""

    path: Path
    log: Path

    @property
    def calls(self) -> list[str]:
        """The arguments of every call."""
        return self.log.read_text().splitlines() if self.log.exists() else []


def script(folder: Path, before: str = "") -> Script:
    """A compiler that first does ``before``, which is shell code; found by name inside of ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / "g++", folder / "calls"
    path.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{before}\nexec {GCC} "$@"\n')
    path.chmod(0o755)
    return Script(path, log)


def use(monkeypatch: pytest.MonkeyPatch, compiler: str | Path) -> None:
    """Make a command the compiler of this process."""
    monkeypatch.setenv("CXX", str(compiler))
    toolchain._find.cache_clear()
