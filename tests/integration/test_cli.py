"""The command line, verb by verb: what it prints, what it leaves alone, how it ends."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recurra.cli import VERBS, command_line

GOOD = """recurrence fading
\"\"\"A matrix that fades.\"\"\"
dims K, V
const N = 2
state S[K, V]
input q[K], k[K], v[V], f
param A init uniform(0, 1)
gate alpha in (0, 1] = exp(-exp(A) * softplus(f))
transition S' = alpha * S + outer(k, v)
output o[V] = N * q @ S'
"""
FIVE = """recurrence broken
dims K, V
state S[K, V]
input q[K], k[K], v[V], f
let a = k + v
let b = sigmod(f)
let c = q @ v
let d = kk
transition S' = S + outer(k, v)
output o[V] = q @ S' @ S'
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "good.rec").write_text(GOOD)
    (tmp_path / "five.rec").write_text(FIVE)
    return tmp_path


def call(*arguments: str, code: int = 0, stdin: str | bytes | None = None) -> Any:
    result = CliRunner().invoke(command_line(), list(arguments), input=stdin, prog_name="recurra")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    assert code == 1 or result.exception is None or isinstance(result.exception, SystemExit)
    return result


def data(*arguments: str, code: int = 0, stdin: str | None = None) -> dict:
    return json.loads(call(*arguments, "--json", code=code, stdin=stdin).stdout)


# ---------------------------------------------------------------- the command itself


def test_help_and_version() -> None:
    listing = call("--help").stdout
    for verb in VERBS:
        assert f" {verb} " in listing
        assert "--json" in call(verb, "--help").stdout
    assert call("--version").stdout.startswith("recurra 0.")


@pytest.mark.parametrize(
    "arguments", [["chek", "x"], ["check"], ["show", "parse"], ["check", "--const", "N", "good.rec"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert call(*arguments, code=2).stderr


def test_python_m_recurra() -> None:
    done = subprocess.run([sys.executable, "-m", "recurra", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("recurra ")


# ---------------------------------------------------------------- check


def test_check_finds_nothing() -> None:
    assert call("check", "good.rec").stdout == "1 file checked: no errors\n"
    assert data("check", "good.rec") == {"files": 1, "errors": []}


def test_check_prints_every_mistake_once() -> None:
    result = call("check", "five.rec", "good.rec", code=1)
    assert result.stdout.count("error[E") == 5
    assert result.stdout.endswith("2 files checked: 5 errors\n")
    for line in range(5, 9):
        assert f"five.rec:{line}:" in result.stdout


def test_check_as_json() -> None:
    found = data("check", "five.rec", code=1)["errors"]
    assert len(found) == 5
    assert {error["file"] for error in found} == {"five.rec"}
    assert [error["range"]["start"]["line"] for error in found] == sorted(e["range"]["start"]["line"] for e in found)


def test_check_reads_folders_once_and_standard_input(here: Path) -> None:
    (here / "deep" / "er").mkdir(parents=True)
    (here / "deep" / "er" / "a.rec").write_text(GOOD)
    assert call("check", "deep", "deep/er/a.rec").stdout == "1 file checked: no errors\n"
    assert call("check", "-", stdin=GOOD).stdout == "1 file checked: no errors\n"
    assert "<stdin>:5:" in call("check", "-", stdin=FIVE, code=1).stdout


def test_check_with_another_constant() -> None:
    call("check", "good.rec", "--const", "N=3")
    call("check", "good.rec", "--const", "M=3", code=1)


def test_files_that_cannot_be_read(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "binary.rec").write_bytes(b"\x7fELF\x00\x01")
    (here / "latin.rec").write_bytes("recurrence x # é".encode("latin-1"))
    result = call("check", "gone.rec", "empty", "binary.rec", "latin.rec", "good.rec", code=1)
    assert result.stderr.splitlines() == [
        "error: empty: a folder without .rec files",
        "error: gone.rec: No such file or directory",
        "error: binary.rec: a binary file (byte 5 is 0)".replace("byte 5", "byte 4"),
        "error: latin.rec: not UTF-8 text (byte 15 is 0xe9)",
    ]
    assert "Traceback" not in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(here: Path) -> None:
    (here / "good.rec").chmod(0)
    assert "good.rec: Permission denied" in call("check", "good.rec", code=1).stderr


def test_check_is_fast_and_loads_nothing_heavy(here: Path) -> None:
    script = (
        "import sys\nfrom recurra.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print([m for m in ('torch', 'triton', 'sympy', 'jinja2', 'rich.table', 'numpy') if m in sys.modules], code)"
    )
    command = [sys.executable, "-c", script, "check", "five.rec"]
    times: list[float] = []
    while len(times) < 10 and min(times, default=1.0) >= 0.5:  # other tests run beside this one
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stdout.splitlines()[-1] == "[] 1"
        assert done.stdout.count("error[E") == 5
    assert min(times) < 0.5


# ---------------------------------------------------------------- fmt

UGLY = "recurrence   x\nstate h\ninput a\ntransition h'=h+a # sum\noutput o=h'\n"


def test_fmt_rewrites_in_place_once(here: Path) -> None:
    path = here / "ugly.rec"
    path.write_text(UGLY)
    path.chmod(0o640)
    assert "1 file, 1 changed" in call("fmt", "ugly.rec").stdout
    text = path.read_text()
    assert text != UGLY and "# sum" in text and "h' = h + a" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "1 file, 0 changed" in call("fmt", "ugly.rec").stdout
    assert path.read_text() == text
    assert sorted(p.name for p in here.iterdir()) == ["five.rec", "good.rec", "ugly.rec"]


def test_fmt_check_and_diff_change_nothing(here: Path) -> None:
    (here / "ugly.rec").write_text(UGLY)
    assert "would change ugly.rec" in call("fmt", "--check", "ugly.rec", code=1).stdout
    shown = call("fmt", "--diff", "ugly.rec").stdout
    assert "-transition h'=h+a # sum" in shown and "+transition h' = h + a" in shown
    assert data("fmt", "--check", "ugly.rec", code=1)["changed"] == ["ugly.rec"]
    assert (here / "ugly.rec").read_text() == UGLY


def test_fmt_passes_standard_input_through() -> None:
    text = call("fmt", "-", stdin=UGLY).stdout
    assert "h' = h + a" in text and "changed" not in text
    assert call("fmt", "-", stdin=text).stdout == text


def test_fmt_leaves_broken_files_alone(here: Path) -> None:
    (here / "bad.rec").write_text("recurrence x\nstate [\n")
    assert "bad.rec:2" in call("fmt", "bad.rec", code=1).stdout
    assert (here / "bad.rec").read_text() == "recurrence x\nstate [\n"


def test_fmt_keeps_links(here: Path) -> None:
    (here / "ugly.rec").write_text(UGLY)
    (here / "link.rec").symlink_to("ugly.rec")
    call("fmt", "link.rec")
    assert (here / "link.rec").is_symlink() and (here / "ugly.rec").read_text() != UGLY


# ---------------------------------------------------------------- new


def test_new_writes_a_spec_that_compiles(here: Path) -> None:
    assert "wrote mine.rec" in call("new", "mine").stdout
    call("check", "mine.rec")
    assert "#" in (here / "mine.rec").read_text()
    assert "0 would change" in call("fmt", "--check", "mine.rec").stdout


def test_new_never_overwrites(here: Path) -> None:
    before = (here / "good.rec").read_text()
    assert "good.rec: File exists" in call("new", "good", code=1).stderr
    assert (here / "good.rec").read_text() == before


def test_new_from_the_zoo(here: Path) -> None:
    call("new", "sub/mine", "--from", "gated_delta_net", code=1)  # no such folder
    call("new", "mine.rec", "--from", "gated_delta_net")
    text = (here / "mine.rec").read_text()
    assert "recurrence mine\n" in text and "householder" in text
    call("check", "mine.rec")
    assert "did you mean delta_net" in call("new", "other", "--from", "delta_nett", code=2).stderr
    assert not (here / "other.rec").exists()


@pytest.mark.parametrize("name", ["1x", "a-b", "x y", "", "state"])
def test_new_refuses_what_is_no_name(name: str, here: Path) -> None:
    call("new", name, code=2)
    assert sorted(p.name for p in here.iterdir()) == ["five.rec", "good.rec"]


# ---------------------------------------------------------------- explain, show, verify, doctor


def test_explain_a_code() -> None:
    assert call("explain", "E0207").stdout == call("explain", "e207").stdout
    assert call("explain", "E0207").stdout.startswith("E0207: ")
    assert set(data("explain", "E0207")) == {"code", "title", "explanation", "wrong", "right"}
    assert "no error code" in call("explain", "E9999", code=1).stderr


def test_explain_a_recurrence() -> None:
    text = call("explain", "good.rec", "--size", "K=32", "--device", "cpu").stdout
    assert text.startswith("fading\n") and "K=32, V=64" in text
    assert "recurrent, taken: " in text and "backend      cpu on cpu" in text
    found = data("explain", "good.rec", "--size", "K=32")
    assert found["sizes"] == {"K": 32, "V": 64} and found["strategies"]["taken"] == "recurrent"
    assert call("explain", "five.rec", code=1).stdout.count("error[E") == 5
    assert "No such file" in call("explain", "gone.rec", code=1).stderr
    assert "no dimension" in call("explain", "good.rec", "--size", "Q=3", code=1).stderr


def test_doctor_says_what_auto_picks(here: Path) -> None:
    text = call("doctor").stdout
    assert "cpu" in text and "auto picks cpu" in text and str(here / "cache") in text
    found = data("doctor")
    assert found["problems"] == [] and found["cache"]["writable"] and found["versions"]["torch"]


def test_doctor_reports_a_cache_that_cannot_be_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("")
    monkeypatch.setenv("RECURRA_CACHE", str(here / "file"))
    assert "set RECURRA_CACHE" in call("doctor", code=1).stdout


@pytest.mark.parametrize(
    ("stage", "shown"),
    [
        ("parse", "(transition"),
        ("elaborate", "[K, V] = "),
        ("check", "alpha in (0, 1]"),
        ("analyse", "S"),
        ("latex", r"S_{t} &= \alpha_{t} \odot S_{t-1}"),
        ("core", "state S [K, V]"),
        ("adjoint", "d state S = %"),
        ("kernels", "kernel "),
        ("source", "@triton.jit"),
    ],
)
def test_show_every_stage(stage: str, shown: str) -> None:
    text = call("show", stage, "good.rec", "--size", "V=16").stdout
    assert shown in text
    assert data("show", stage, "good.rec", "--size", "V=16") == {
        "stage": stage,
        "text": text.rstrip("\n"),
        "errors": [],
    }


def test_show_knows_its_stages() -> None:
    from recurra.compiler.stages import STAGES

    for stage in STAGES:
        assert stage in call("show", "--help").stdout
    assert "did you mean parse?" in call("show", "prase", "good.rec", code=2).stderr
    assert call("show", "elaborate", "five.rec", code=1).stdout.count("error[E") == 5


def test_verify_compares_all_backends(here: Path) -> None:
    text = call("verify", "good.rec").stdout
    assert "fading" in text and text.endswith("1 recurrence verified\n")
    found = data("verify", "good.rec")
    assert len(found["reports"]) == 1 and found["errors"] == []
    call("verify", "five.rec", code=1)
