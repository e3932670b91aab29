"""No kernel touches memory that is not its own, or computes what C++ leaves undefined."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from unit.cpu import sanitized
from unit.kernels.against_reference import UNSEEN, ZOO

from recurra.runtime.errors import NoCompiler
from recurra.runtime.store.toolchain import toolchain

SPECS = [*ZOO, *UNSEEN]
GROUPS = 3
"""Shares of the specs, so that several cores can work on them."""

NARROW = [(path, dtype) for path in ZOO if path.stem in ("gru", "mamba") for dtype in ("float64", "bfloat16")]


@pytest.fixture(scope="module")
def preloaded() -> str:
    """What a process has to load first: the sanitizers, and what they intercept of C++."""
    try:
        compiler = shlex.split(toolchain().compiler)
    except NoCompiler as error:
        pytest.skip(str(error))
    found = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"):
        done = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True)
        path = Path(done.stdout.strip())
        if not path.is_absolute():
            pytest.skip(f"{compiler[0]} comes without {name}")
        found += [str(path)] if name != "libubsan.so" else []
    return ":".join(found)


def run(
    preload: str,
    specs: Sequence[tuple[Path, str]],
    damage: tuple[str, str, str] | None = None,
    packed: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Specs in dtypes on sanitized kernels in a process of their own."""
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",  # Python itself leaks and is not sanitized
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    job = json.dumps([[(str(path), dtype) for path, dtype in specs], damage, packed])
    command = [sys.executable, sanitized.__file__, job]
    return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")


@pytest.mark.parametrize("group", range(GROUPS))
def test_kernels_of_all_specs(group: int, preloaded: str) -> None:
    specs = [*((path, "float32") for path in SPECS[group::GROUPS]), *NARROW[group::GROUPS]]
    done = run(preloaded, specs)
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.splitlines() == [f"{path.stem} {dtype}" for path, dtype in specs]


def test_kernels_of_packed_sequences(preloaded: str) -> None:
    specs = [(path, "float32") for path in SPECS if path.stem in ("delta_net", "gru", "lstm", "mlstm", "esn")]
    done = run(preloaded, specs, packed=True)
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.splitlines() == [f"{path.stem} {dtype}" for path, dtype in specs]


DAMAGES = {
    "take": ("take<SIZE % W>(p + i)", "take<SIZE % W + 1>(p + i)"),
    "put": ("*reinterpret_cast<vec*>(p) = x;", "reinterpret_cast<vec*>(p)[1] = x;"),
}
"""One number too many of an input, a vector behind an array of the kernel's own."""


@pytest.mark.parametrize("function", DAMAGES)
def test_damage_is_seen(function: str, preloaded: str) -> None:
    (hgrn,) = (path for path in ZOO if path.stem == "hgrn")
    done = run(preloaded, [(hgrn, "float32")], ("vector.hpp", *DAMAGES[function]))
    assert done.returncode != 0 and not done.stdout
    assert "AddressSanitizer" in done.stderr
    assert re.search(rf"#[01] .* in {function}\b.* \S*/vector\.hpp:", done.stderr)
