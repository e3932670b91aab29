from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from unit.runtime.compilers import GCC, needs_compiler, script, use

from recurra.cli import command_line
from recurra.runtime.errors import BackendError, NoCompiler
from recurra.runtime.store import openmp, toolchain
from recurra.runtime.store.cache import Store


@pytest.fixture(autouse=True)
def fresh(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty store, and nothing known of compilers before or after."""
    monkeypatch.delenv("CXX", raising=False)
    toolchain._find.cache_clear()
    yield
    toolchain._find.cache_clear()


# ---------------------------------------------------------------- finding one


@needs_compiler
def test_finds_the_compiler_on_path() -> None:
    found = toolchain.toolchain()
    assert found.compiler == GCC and found.version.startswith("gcc ")
    assert set(toolchain._FLAGS) <= set(found.flags) and found.libraries[-1] == "-lm"
    assert toolchain.toolchain() is found


@needs_compiler
def test_another_process_needs_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = script(tmp_path / "bin")
    use(monkeypatch, compiler.path)
    first = toolchain.toolchain()
    assert len(compiler.calls) == 2 and "-dM -E" in compiler.calls[0] and "probe.cpp" in compiler.calls[1]
    assert toolchain.toolchain() is first and len(compiler.calls) == 2
    toolchain._find.cache_clear()  # as another process would find it
    assert toolchain.toolchain() == first and len(compiler.calls) == 3 and "-dM -E" in compiler.calls[2]
    os.utime(compiler.path, (0, 0))  # installed anew
    toolchain._find.cache_clear()
    assert toolchain.toolchain() == first and len(compiler.calls) == 5


@needs_compiler
def test_cxx_is_honoured_with_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = script(tmp_path / "with space")
    use(monkeypatch, f"'{compiler.path}' -DGIVEN")
    command = toolchain.toolchain().command("a.cpp", "a.so", ["-DMORE"])
    assert command[:2] == [str(compiler.path), "-DGIVEN"]
    assert command[command.index("-DMORE") :][:4] == ["-DMORE", "a.cpp", "-o", "a.so"] and command[-1] == "-lm"
    assert all(" -DGIVEN" in f" {call}" for call in compiler.calls)


@needs_compiler
def test_cxx_may_be_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = script(tmp_path / "bin")
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, "./bin/g++")
    assert toolchain.toolchain().compiler == str(compiler.path)


@needs_compiler
def test_a_compiler_that_does_not_work_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin", "exit 1")
    (tmp_path / "bin" / "c++").symlink_to(GCC)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    found = toolchain.toolchain()
    assert found.compiler in (str(tmp_path / "bin" / "c++"), shutil.which("clang++"))


# ---------------------------------------------------------------- what it takes


@needs_compiler
@pytest.mark.parametrize(
    ("refused", "target"), [("-march=native", "-mcpu=native"), ("-m*=native", None)], ids=["march", "both"]
)
def test_targets_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, target: str | None
) -> None:
    compiler = script(tmp_path, f'for a in "$@"; do case $a in {refused}) echo "error: no $a" >&2; exit 1;; esac; done')
    use(monkeypatch, compiler.path)
    found = [flag for flag in toolchain.toolchain().flags if flag.endswith("=native")]
    assert found == ([target] if target else [])


@needs_compiler
def test_a_target_that_the_assembler_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = 'case "$*" in *-march=native*probe.cpp*) echo "Error: no such instruction" >&2; exit 1;; esac'
    use(monkeypatch, script(tmp_path, refuse).path)
    assert "-march=native" not in toolchain.toolchain().flags


@needs_compiler
def test_without_openmp_and_with_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = f'case "$*" in *-fopenmp*) [ -e {tmp_path}/libgomp ] || exit 1;; esac'
    compiler = script(tmp_path, refuse)
    use(monkeypatch, compiler.path)
    found = toolchain.toolchain()
    assert not found.openmp and "-fopenmp" not in found.flags and "-march=native" in found.flags
    (tmp_path / "libgomp").touch()
    toolchain._find.cache_clear()
    assert toolchain.toolchain().openmp and "-fopenmp" in toolchain.toolchain().flags


@needs_compiler
def test_features_follow_whatever_the_compiler_defines() -> None:
    plain = toolchain._macros(GCC, ())
    assert plain == toolchain._macros(GCC, ()) and "__VERSION__" in plain and "__GLIBC__" in plain
    assert toolchain._features(plain) == toolchain._features(dict(reversed(plain.items())))
    other = toolchain._macros(GCC, ("-DMORE=1",))
    assert other == {**plain, "MORE": "1"} and toolchain._features(plain) != toolchain._features(other)


@pytest.mark.parametrize(
    ("macros", "version"),
    [
        ({"__VERSION__": '"12.2.0"'}, "gcc 12.2.0"),
        ({"__VERSION__": '"Clang 17.0.6"', "__clang__": "1", "__clang_version__": '"17.0.6 "'}, "clang 17.0.6"),
        ({"__clang_version__": '"15.0.0 (clang-1500.1.0.2.5)"', "__apple_build_version__": "1"}, "Apple clang 15.0.0"),
    ],
)
def test_versions(macros: dict[str, str], version: str) -> None:
    assert toolchain._version(macros) == version


@needs_compiler
def test_a_store_that_cannot_be_used_hides_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "file"))
    assert toolchain.toolchain().compiler == GCC


@needs_compiler
def test_torch_compile_does_not_look_inside() -> None:
    def shifted(x: torch.Tensor) -> torch.Tensor:
        return x + len(toolchain.toolchain().flags)

    x = torch.zeros(2)
    compiled = torch.compile(shifted, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), shifted(x))


# ---------------------------------------------------------------- none


def test_no_compiler_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCompiler) as caught:
        toolchain.toolchain()
    assert isinstance(caught.value, BackendError)
    for part in ("g++, clang++, c++ on PATH", "apt install g++", "dnf install gcc-c++", "xcode-select --install"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ("no-such-compiler", "no-such-compiler is not there"),
        ("false", "false does not work: it ended with 1"),
        ("'unbalanced", "No closing quotation"),
    ],
)
def test_cxx_is_never_replaced(monkeypatch: pytest.MonkeyPatch, chosen: str, problem: str) -> None:
    use(monkeypatch, chosen)
    with pytest.raises(NoCompiler, match=f"CXX is .*{problem}"):
        toolchain.toolchain()


@needs_compiler
def test_the_compilers_own_words_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, script(tmp_path, "echo 'fatal error: stdlib.h: No such file' >&2; exit 1").path)
    with pytest.raises(NoCompiler, match=r"stdlib\.h: No such file"):
        toolchain.toolchain()
    assert Store().entries() == []


def test_a_file_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cxx").write_bytes(b"\x7fELF nothing")
    (tmp_path / "cxx").chmod(0o755)
    use(monkeypatch, tmp_path / "cxx")
    with pytest.raises(NoCompiler, match="Exec format error"):
        toolchain.toolchain()


@pytest.mark.filterwarnings("always")
def test_the_user_is_warned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_warned", False)
    with pytest.warns(RuntimeWarning, match="run on the reference, which is slow.*: install g"):
        toolchain.warn_no_compiler(NoCompiler("install g++"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toolchain.warn_no_compiler(NoCompiler("install g++"))


# ---------------------------------------------------------------- doctor


@needs_compiler
def test_doctor_shows_what_kernels_are_compiled_for() -> None:
    found = toolchain.toolchain()
    shown = CliRunner().invoke(command_line(), ["doctor"])
    assert shown.exit_code == 0 and f"native    {found.version} ({GCC}), {found.vectors} vectors" in shown.stdout
    assert ("threads by OpenMP" in shown.stdout) == found.openmp


def test_doctor_says_how_to_get_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    shown = CliRunner().invoke(command_line(), ["doctor"])
    assert shown.exit_code == 1 and "native" not in shown.stdout.replace("native kernels", "")
    assert "problem   recurrences run slowly on a CPU: " in shown.stdout and "apt install g++" in shown.stdout


# ---------------------------------------------------------------- OpenMP

FOLDER = Path("/site-packages/torch/lib")


@pytest.mark.parametrize(
    ("clang", "runtime", "flags", "libraries"),
    [
        (False, "libgomp.so.1", ("-fopenmp",), ()),
        (False, "libgomp.so.1.0.0", ("-fopenmp",), ()),
        (False, "libgomp-a34b3233.so.1", ("-fopenmp",), ("-Wl,--as-needed", f"{FOLDER}/libgomp-a34b3233.so.1")),
        (False, "libiomp5.so", ("-fopenmp",), ("-Wl,--as-needed", f"{FOLDER}/libiomp5.so")),
        (True, "libomp.dylib", ("-Xclang", "-fopenmp"), (f"{FOLDER}/libomp.dylib",)),
        (True, "libgomp.so.1", (), ()),
    ],
)
def test_the_runtime_of_torch_is_linked(
    clang: bool, runtime: str, flags: tuple[str, ...], libraries: tuple[str, ...]
) -> None:
    found = openmp.choices(clang, FOLDER / runtime)
    assert found[0] == (flags, libraries) and found[-1] == openmp.NONE


def test_the_runtime_of_torch_comes_before_others(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(torch.__file__).resolve().parent
    own = package / "lib" / "libgomp-1.so"
    monkeypatch.setattr(openmp, "loaded_runtimes", lambda: [Path("/usr/lib/libomp.so.5"), own])
    assert openmp.loaded_runtime() == own
    monkeypatch.setattr(openmp, "loaded_runtimes", lambda: [Path("/usr/lib/libomp.so.5")])
    assert openmp.loaded_runtime() == Path("/usr/lib/libomp.so.5")
    monkeypatch.setattr(openmp, "loaded_runtimes", list)
    assert openmp.loaded_runtime() is None and openmp.choices(False, None)[0] == (("-fopenmp",), ())


THREADED = r"""
#include <stdint.h>
extern "C" int64_t sum(int64_t size, int64_t threads) {
  int64_t found = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(+ : found)
  for (int64_t i = 0; i < size; i++) found += i;
  return found;
}
"""


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("renamed", [False, True])
def test_one_runtime_in_one_process(tmp_path: Path, renamed: bool) -> None:
    """Also where a wheel brings its runtime under a name of its own, as torch's have done."""
    done = _python(f"""
        import ctypes
        from pathlib import Path
        from recurra.runtime.store import native, openmp, toolchain
        runtime = openmp.loaded_runtime()
        assert runtime.name.startswith("libgomp.so.1") and openmp.loaded_runtimes() == [runtime]
        if {renamed}:
            copy = Path({str(tmp_path)!r}) / "libgomp-1.so"
            copy.write_bytes(runtime.read_bytes().replace(b"libgomp.so.1\\0", b"libgomp-1.so\\0"))
            ctypes.CDLL(str(copy))
            openmp.loaded_runtime = lambda: copy
        before = openmp.loaded_runtimes()
        assert toolchain.toolchain().openmp
        library = native.load(native.build("threaded", {{"kernels.cpp": {THREADED!r}}}))
        assert library.sum(1000, 2) == 499500
        assert openmp.loaded_runtimes() == before, before
        needed = (native.build("threaded", {{"kernels.cpp": {THREADED!r}}})).read_bytes()
        assert (b"libgomp.so.1\\0" in needed) == (not {renamed}) and (b"libgomp-1.so\\0" in needed) == {renamed}
    """)
    assert done.returncode == 0, done.stderr


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
