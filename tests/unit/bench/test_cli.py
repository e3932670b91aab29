"""``recurra bench`` on tiny shapes: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recurra.cli import command_line
from recurra.runtime.bench import Ceilings

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
HGRN, DELTA = str(ZOO / "hgrn.rec"), str(ZOO / "delta_net.rec")
TINY = ("--shape", "B=1,T=5,H=2,K=3,V=4", "--backend", "reference", "--repeats", "2")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; the machine's ceilings are given, as measuring them takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("recurra.runtime.bench.run.measure_ceilings", lambda device: Ceilings(1e9, 1e9))
    return tmp_path


def call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(command_line(), ["bench", *arguments], prog_name="recurra")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def test_table():
    text = call(DELTA, *TINY).stdout
    assert "delta_net, forward + backward" in text and "/ bytes" in text
    assert text.count("eager") == 2 and text.count("1.00x") >= 2
    assert "delta_net: B=1 T=5 H=2 K=3 V=4 float32; here copies 1.0 GB/s, float32 products 1 GFLOP/s" in text


def test_json_out_and_plot(here):
    arguments = ("--against", "eager,reference", "--out", "results/x.json", "--plot", "x.png", "--dtype", "float64")
    pytest.importorskip("matplotlib")
    shown = json.loads(call(DELTA, *TINY, *arguments, "--json").stdout)
    assert shown.pop("errors") == []
    assert json.loads((here / "results" / "x.json").read_text()) == shown
    assert (here / "x.png").read_bytes().startswith(b"\x89PNG")
    (found,) = shown["benchmarks"]
    assert found["shape"] == {"B": 1, "T": 5, "H": 2, "K": 3, "V": 4} and found["dtype"] == "float64"
    assert [row["name"] for row in found["rows"]] == ["reference", "eager"] * 2
    assert all(len(row["samples"]) == 2 for row in found["rows"])


def test_several_files_share_what_sizes_they_have():
    found = json.loads(call(DELTA, HGRN, "--shape", "T=3,K=2,V=2,D=5", *TINY[2:], "--json").stdout)["benchmarks"]
    assert [one["shape"] for one in found] == [
        {"B": 2, "T": 3, "H": 4, "K": 2, "V": 2},
        {"B": 2, "T": 3, "H": 4, "D": 5},
    ]


def test_opponents_that_fail_end_with_1(here):
    (here / "fails_for_a_user.py").write_text("def same(q, k, v, beta):\n    raise ValueError('not today')\n")
    result = call(DELTA, *TINY, "--against", "fails_for_a_user:same", code=1)
    assert "fails_for_a_user:same could not be measured: ValueError: not today" in result.stdout
    assert "reference" in result.stdout


def test_mistakes_in_files_end_with_1(here):
    (here / "bad.rec").write_text("recurrence x\nstate [\n")
    result = call("bad.rec", "gone.rec", DELTA, *TINY, code=1)
    assert "bad.rec:2" in result.stdout and "gone.rec: No such file" in result.stderr and "delta_net" in result.stdout
    assert json.loads(call("bad.rec", *TINY, "--json", code=1).stdout)["errors"][0]["file"] == "bad.rec"
    assert "`T` must be a whole number" in call(DELTA, "--shape", "T=0", *TINY[2:], code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "B=2,k=4"], "no size k; did you mean K?"),
        (["--shape", "W=2"], "no size W; there are B, T, H, K, V"),
        (["--shape", "B=two"], "'B=two' is not NAME=VALUE"),
        (["--against", "eagr"], "did you mean eager?"),
        (["--backend", "refrence"], "no backend 'refrence'; did you mean reference?"),
        (["--dtype", "float23"], "no dtype 'float23'; did you mean float32?"),
        (["--repeats", "0"], "--repeats"),
    ],
)
def test_wrong_usage_ends_with_2(arguments, said):
    assert said in " ".join(call(DELTA, *arguments, code=2).stderr.split())


def test_a_backend_that_refuses_is_told():
    arguments = (DELTA, "--backend", "triton", "--dtype", "bfloat16", "--device", "cpu")
    result = call(*arguments, code=1)
    assert "backend 'triton' cannot run this" in result.stderr and not result.stdout
    (error,) = json.loads(call(*arguments, "--json", code=1).stdout)["errors"]
    assert error["file"] == DELTA
