"""The GPU benchmark without a GPU: its rehearsal, its plan, and what is made of its results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from unit.bench.scripts import BENCHMARKS, environment, script

gpu, gpu_table = script("gpu"), script("gpu_table")


def test_rehearsal(tmp_path):
    """All parts at tiny sizes in Triton's interpreter; what does not apply is a row."""
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "gpu.json").read_text())
    assert data["device"]["ceilings"]["bytes_per_second"] > 0 and data["device"]["versions"]["torch"]
    rows = {(row["kind"], row["spec"], row["way"]): row for row in data["checks"]}
    for key in (("check", "gla", "fused"), ("check", "hgrn", "recurrent")):
        assert not rows[key]["wrong"] and not rows[key]["moving"] and float(rows[key]["ratio"]) < 1
    assert "does not apply" in rows["check", "hgrn", "fused"]["refused"]
    assert "nothing.rec" in rows["check", "nothing", "fused"]["failed"]
    assert "failed" not in rows["warm", "delta_net", "auto"]
    chosen, other = data["times"]
    assert (chosen["launches"]["way"], other["launches"]["way"]) == ("fused", "split")
    assert {(t["name"], t["direction"]) for t in chosen["times"]} == {
        ("recurra", "forward"), ("recurra", "forward + backward"),
    }  # fmt: skip
    assert all(t["median"] > 0 for t in chosen["times"])
    text = (tmp_path / "gpu.md").read_text()
    assert "flash-linear-attention is not installed" in text and "2 of 3 checks agree" in text
    assert "| delta_net | B1 T20 H1 D16 | fused | forward |" in text and "| split (not chosen) |" in text
    assert "| nothing | fused | float32 | B1 T20 H1 16 | FileNotFoundError" in text and "| hgrn |" not in text
    assert text.strip() == done.stdout.strip()


def test_a_rehearsal_does_not_overwrite_results():
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2 and "--results" in done.stderr


def test_plan():
    """Everything that was asked for, what matters most first."""
    plan = gpu.plan(8.5)
    timed = [(job["spec"], job["B"], job["T"], job["H"], job["D"]) for job in plan.times if job["way"] == "auto"]
    shapes = [(1, 8192, 96, 128), (2, 16384, 16, 128), (4, 2048, 16, 128), (4, 4096, 64, 128)]
    shapes += [(8, 1024, 8, 64), (8, 2048, 32, 256)]
    assert timed == [(name, *shape) for shape in shapes for name in gpu.COMPARED]
    assert len(gpu.COMPARED) == 6 and [job["way"] for job in plan.times[36:]] == ["other"] * 36
    checks = [job for job in plan.checks if job["kind"] == "check"]
    assert {job["spec"] for job in checks} == set(script("ways").zoo())
    assert all(count == 1 for count in Counter(json.dumps(job) for job in checks).values())
    ways = Counter(job["way"] for job in checks if job["spec"] == "gla")
    assert ways == {"fused": 6, "split": 6, "recurrent": 6}
    first = plan.checks[: 2 * 2 * len(gpu.COMPARED)]
    assert {job["kind"] for job in first} == {"check"} and {job["spec"] for job in first} == set(gpu.COMPARED)
    assert len([job for job in plan.checks if job["kind"] == "warm"]) == len(plan.times)
    assert len(plan.tunes) == 6 * 5 and plan.tunes[0]["kind"] == "tune"
    assert (plan.tunes[0]["spec"], plan.tunes[0]["H"]) == (gpu.COMPARED[0], 96)
    assert gpu.RESERVED + 60 * 8.5 < 540


def test_what_cannot_be_compiled_is_said_in_one_line(tmp_path, monkeypatch):
    """A process that never answers: results are there all the same."""
    monkeypatch.setattr(sys, "executable", "false")
    case = {"kind": "check", "spec": "gla", "way": "fused", "dtype": "float32", "device": "cpu"}
    job = {**case, "sizes": [16], "B": 1, "T": 20, "H": 1, "start": True}
    plan = gpu.Plan("cpu", 60.0, 1, [job], [], [])
    data = gpu.run(plan, tmp_path, time.monotonic())
    assert "the process ended" in data["checks"][0]["failed"]
    text = (tmp_path / "gpu.md").read_text()
    assert "could not be described" in text and "| gla | fused | float32 | B1 T20 H1 16 | the process ended" in text


def row(**changes: object) -> dict[str, object]:
    """A measurement of ours at 2 ms forward and 6 ms both, of the peer at 5 and 12."""
    times = []
    for name, forward, both in (("recurra", 2e-3, 6e-3), ("fla", 5e-3, 12e-3)):
        for direction, median in (("forward", forward), ("forward + backward", both)):
            for mode, factor in (("eager", 1.0), ("graph", 0.5)):
                times.append({"name": name, "direction": direction, "mode": mode, "median": factor * median})
    floors = {way: {"bytes": 10**9, "operations": 10**11} for way in ("forward", "forward + backward")}
    launches = {"way": "fused", "names": [], "bytes": {"forward": 2 * 10**9, "forward + backward": 3 * 10**9}}
    found = {"spec": "gla", "way": "auto", "B": 1, "T": 2, "H": 3, "D": 4, "peer": True, "notes": [], "times": times}
    return {**found, "floors": floors, "launches": launches, "difference": "0.001", **changes}


def document(**changes: object) -> dict[str, object]:
    device = {
        "machine": {"device": "a card", "cpu": "C"},
        "versions": {"torch": "2.9", "flash-linear-attention": "0.6"},
    }
    device["ceilings"] = {"bytes_per_second": 1e12, "operations_per_second": 1e14}
    start = {
        "date": "today",
        "commit": "abc",
        "device": device,
        "checks": [],
        "tunes": [],
        "times": [],
        "unreached": {},
    }
    return {**start, **changes}


def test_ratios():
    text = gpu_table.markdown(document(times=[row()]))
    assert "a card; copies 1.00 TB/s, products 100 TFLOP/s (measured)" in text
    cells = "2.00 ms | 2.00 | 1.00 | 2.00 | 5.00 ms | 2.50 | 1.00 ms | 2.50 ms | 2.50"
    assert f"| gla | B1 T2 H3 D4 | fused | forward | {cells} |" in text
    assert "| fused | forward + backward | 6.00 ms | 6.00 | 2.00 | 6.00 | 12.0 ms | 2.00 |" in text


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"difference": "0.5"}, "outputs of fla differ by 5.0e-01"),
        ({"difference": "nan"}, "outputs of fla differ by nan"),
        ({"peer": "RuntimeError: no kernel"}, "fla cannot be measured: RuntimeError: no kernel"),
        ({"notes": ["fla is not captured"]}, "gla B1 T2 H3 D4 auto: fla is not captured"),
        ({"failed": "OutOfMemoryError: much"}, "| gla | B1 T2 H3 D4 | auto | | OutOfMemoryError: much |"),
    ],
)
def test_what_went_wrong_with_a_measurement_is_said(changes, said):
    assert said in gpu_table.markdown(document(times=[row(**changes)]))


def test_failures_of_checks_are_a_table():
    case = {
        "kind": "check",
        "spec": "kda",
        "way": "split",
        "dtype": "bfloat16",
        "sizes": [60, 100],
        "B": 1,
        "T": 2,
        "H": 2,
    }
    good = {**case, "wrong": {}, "moving": []}
    bad = {**case, "wrong": {"d k": ("0.5", 0.008), "o": ("inf", 0.005)}, "moving": ["d q"]}
    left = {"checks": [case], "times": [row()]}
    text = gpu_table.markdown(document(checks=[good, bad], unreached=left))
    assert "1 of 2 checks agree" in text and "1 were not reached in time" in text
    words = "d k 5.0e-01 (allowed 8.0e-03); o inf (allowed 5.0e-03); two runs differ in d q"
    assert f"| kda | split | bfloat16 | B1 T2 H2 60x100 | {words} |" in text
    assert "Not reached in time: gla B1 T2 H3 D4 auto." in text


def test_files_are_whole_after_every_row(tmp_path):
    gpu.save(document(times=[row()]), tmp_path)
    assert json.loads(Path(tmp_path / "gpu.json").read_text())["times"][0]["spec"] == "gla"
    assert (tmp_path / "gpu.md").read_text().startswith("# Recurra on a GPU")
