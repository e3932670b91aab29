from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.runtime.compilers import needs_compiler, script, use

from recurra.runtime.errors import BackendError, StoreError
from recurra.runtime.store import native, toolchain
from recurra.runtime.store.cache import Store, is_intact

pytestmark = needs_compiler

FILES = {
    "kernels.cpp": '#include "numbers.hpp"\nextern "C" int answer() { return NUMBER; }\n',
    "kernels.cpp.map.json": json.dumps({"source": "demo.rec", "lines": {"2": [22, 3, "S' = NUMBER"]}}),
    "numbers.hpp": "#define NUMBER 42\n",
}


@pytest.fixture(autouse=True)
def fresh(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty store and this machine's own compiler."""
    monkeypatch.delenv("CXX", raising=False)
    toolchain._find.cache_clear()
    yield
    toolchain._find.cache_clear()


def test_builds_once_beside_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = script(tmp_path / "bin")
    use(monkeypatch, compiler.path)
    path = native.build("demo", FILES)
    assert native.load(path).answer() == 42
    assert path.name == "kernels.so" and path.parent.name.startswith("demo-")
    assert {file.name: file.read_text() for file in path.parent.iterdir() if file.name in FILES} == FILES
    assert native.build("demo", FILES) == path and is_intact(path.parent)
    assert sum("kernels.cpp" in call for call in compiler.calls) == 1


def test_the_same_path_is_the_same_library() -> None:
    path = native.build("demo", FILES)
    assert native.load(path) is native.load(Path(str(path)))


def test_libraries_do_not_see_each_other() -> None:
    """Two recurrences may both have a kernel of one name."""
    other = {**FILES, "numbers.hpp": "#define NUMBER 7\n"}
    assert native.load(native.build("demo", FILES)).answer() == 42
    assert native.load(native.build("demo", other)).answer() == 7
    with pytest.raises(AttributeError):
        ctypes.CDLL(None).answer  # noqa: B018


def test_everything_that_decides_the_code_has_an_entry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [native.build("demo", FILES).parent.name]
    found.append(native.build("demo2", FILES).parent.name)
    found.append(native.build("demo", {**FILES, "numbers.hpp": "#define NUMBER 7\n"}).parent.name)
    found.append(native.build("demo", FILES, extra_flags=["-DOTHER"]).parent.name)
    tools = toolchain.toolchain()
    for change in ({"features": "another processor"}, {"version": "gcc 1"}, {"libraries": ("-lm", "-lm")}):
        monkeypatch.setattr(native, "toolchain", lambda change=change: replace(tools, **change))
        found.append(native.build("demo", FILES).parent.name)
    assert len(set(found)) == 7


def test_debuggers_find_the_sources_in_the_store() -> None:
    path = native.build("demo", FILES, extra_flags=["-g"])
    data = path.read_bytes()
    assert str(path.parent).encode() in data and b"/recurra-" not in data.replace(str(path.parent).encode(), b"")


def test_what_is_damaged_is_compiled_again() -> None:
    path = native.build("demo", FILES)
    path.write_bytes(path.read_bytes()[:1000])
    assert native.build("demo", FILES) == path and is_intact(path.parent)


# ---------------------------------------------------------------- mistakes


def test_a_mistake_names_the_line_of_the_spec() -> None:
    broken = {**FILES, "numbers.hpp": "#define NUMBER forty_two\n"}
    with pytest.raises(BackendError) as caught:
        native.build("demo", broken)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("cannot compile the kernels of demo, at demo.rec:22:3: S' = NUMBER")
    assert first.startswith(toolchain.toolchain().version)
    assert "error: 'forty_two' was not declared" in lines[0]
    assert len(lines) < 13
    assert lines[-2].startswith("the command was: ") and " kernels.cpp -o kernels.so" in lines[-2]
    kept = Path(lines[-1].partition("for a report in ")[2])
    assert is_intact(kept) and "forty_two" in (kept / "compiler.txt").read_text()
    command = lines[-2].removeprefix("the command was: ")
    again = subprocess.run(command, shell=True, cwd=kept, capture_output=True, text=True)
    assert again.returncode == 1 and "forty_two" in again.stderr


def test_a_mistake_in_a_header_names_what_led_there() -> None:
    broken = {
        **FILES,
        "kernels.cpp": '#include "numbers.hpp"\nextern "C" int answer() { return twice("x"); }\n',
        "numbers.hpp": "template <class T> int twice(T x) {\n  return x * 2;\n}\n",
    }
    with pytest.raises(BackendError, match=r"at demo\.rec:22:3: S' = NUMBER"):
        native.build("demo", broken)


def test_a_mistake_elsewhere_names_no_line() -> None:
    with pytest.raises(BackendError) as caught:
        native.build("demo", {**FILES, "numbers.hpp": "#error not here\n"})
    assert "demo.rec" not in str(caught.value) and "#error not here" in str(caught.value)
    with pytest.raises(BackendError) as caught:
        native.build("demo", {"kernels.cpp": "int x = y;\n"})
    assert "kernels.cpp:1:9: error" in str(caught.value)


def test_a_mistake_is_reported_each_time_and_blocks_nothing() -> None:
    broken = {**FILES, "numbers.hpp": ""}
    for _ in range(2):
        with pytest.raises(BackendError, match="NUMBER"):
            native.build("demo", broken)
    assert native.load(native.build("demo", FILES)).answer() == 42


def test_missing_symbols_of_the_linker() -> None:
    with pytest.raises(BackendError, match="cannot find -lnowhere"):
        native.build("demo", FILES, extra_flags=["-lnowhere"])


def test_a_full_disk_is_no_mistake_of_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to write more than 4 kB, as a full disk would."""
    limited = 'case "$*" in *kernels.cpp*) ulimit -f 8; trap "" XFSZ;; esac'
    use(monkeypatch, script(tmp_path / "bin", limited).path)
    with pytest.raises(StoreError, match=r"no room to compile demo: .*File too large.* or set TMPDIR"):
        native.build("demo", FILES)
    assert [entry.name for entry in Store().entries() if "demo" in entry.name] == []


def test_a_folder_that_cannot_be_compiled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain.toolchain()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(StoreError, match=r"nothing can be compiled in .*/gone: No such file.* set TMPDIR"):
        native.build("demo", FILES)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "kernels.so").write_text("no library")
    with pytest.raises(StoreError, match="set RECURRA_CACHE"):
        native.load(tmp_path / "kernels.so")


# ---------------------------------------------------------------- several processes

BUILD = f"""
    from recurra.runtime.store import native
    assert native.load(native.build("demo", {FILES!r})).answer() == 42
"""


def _start(compiler: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "CXX": str(compiler)}
    command = [sys.executable, "-c", textwrap.dedent(BUILD)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_two_processes_compile_once(tmp_path: Path) -> None:
    compiler = script(tmp_path / "bin", 'case "$*" in *kernels.cpp*) sleep 1;; esac')
    running = [_start(compiler.path) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert sum("kernels.cpp" in call for call in compiler.calls) == 1


def test_a_killed_build_leaves_a_usable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, stop = tmp_path / "reached", tmp_path / "stop"
    stop.touch()
    waiting = f'case "$*" in *kernels.cpp*) [ -e {stop} ] && {{ touch {reached}; sleep 5; exit 1; }};; esac'
    compiler = script(tmp_path / "bin", waiting)
    process = _start(compiler.path)
    deadline = time.monotonic() + 60
    while not reached.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert [entry.name for entry in Store().entries() if "demo" in entry.name] == []
    stop.unlink()
    use(monkeypatch, compiler.path)
    started = time.monotonic()
    assert native.load(native.build("demo", FILES)).answer() == 42
    assert time.monotonic() - started < 4  # whatever the dead process began is not waited for


# ---------------------------------------------------------------- patience


class Terminal(io.StringIO):
    """A standard error that is a terminal, or is not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(("terminal", "patience", "shown"), [(True, 0.1, True), (True, 60, False), (False, 0.1, False)])
def test_says_what_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, patience: float, shown: bool
) -> None:
    compiler = script(tmp_path / "bin", 'case "$*" in *kernels.cpp*) sleep 0.4;; esac')
    use(monkeypatch, compiler.path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(native, "_PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", Terminal(terminal))
    native.build("demo", FILES)
    assert ("compiling demo for the CPU ..." in sys.stderr.getvalue()) == shown
    assert shown or sys.stderr.getvalue() == ""


def test_an_interrupted_build_ends_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = script(
        tmp_path / "bin", f'case "$*" in *kernels.cpp*) echo $$ > {tmp_path / "pid"}; exec sleep 30;; esac'
    )
    use(monkeypatch, compiler.path)
    monkeypatch.setattr(native, "_PATIENCE", 0.5)

    def interrupt(message: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "_status", interrupt)
    with pytest.raises(KeyboardInterrupt):
        native.build("demo", FILES)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [entry.name for entry in Store().entries() if "demo" in entry.name] == []
