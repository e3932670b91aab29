"""Whole benchmarks on tiny shapes: rows, ratios, what could not run, what is written and drawn."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest
import torch

import recurra
from recurra.runtime.backends import BACKENDS
from recurra.runtime.bench import Ceilings, bench, measure_ceilings, shape_of
from recurra.runtime.bench.contenders import backend_names, check_against
from recurra.runtime.bench.floors import Floor
from recurra.runtime.bench.machine import busy
from recurra.runtime.bench.record import document, write
from recurra.runtime.bench.results import Benchmark, rows_of
from recurra.runtime.bench.side_by_side import DIRECTIONS, ratios
from recurra.runtime.bench.table import numbers, show_seconds
from recurra.runtime.bench.timing import Samples
from recurra.runtime.errors import BackendError

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
HGRN = recurra.load(ZOO / "hgrn.rec")
TINY = {"B": 2, "T": 6, "H": 2, "D": 3}
CEILINGS = Ceilings(1e9, 1e9)


MINE = """
import torch

def own(i, f):
    h, outputs = torch.zeros_like(i[:, 0]), []
    for t in range(i.shape[1]):
        a = torch.sigmoid(f[:, t])
        h = a * h + (1 - a) * i[:, t]
        outputs.append(h)
    return torch.stack(outputs, 1)

def wrong(i, f):
    return (i + f,)

def broken(i, f):
    raise RuntimeError("no idea\\nhow")
"""


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a user's module in the current folder."""
    name = "own_recurrences_of_a_user"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def measured(*against: str, **options) -> Benchmark:
    options = {"backend": "reference", "repeats": 3, "ceilings": CEILINGS, **options}
    return bench(HGRN, shape_of(HGRN, TINY), against=against, **options)


def test_rows_of_both_directions(mine):
    said: list[str] = []
    found = measured("eager", f"{mine}:own", before=said.append)
    names = ["reference", "eager", f"{mine}:own"]
    assert [(row.direction, row.name) for row in found.rows] == [(d, name) for d in DIRECTIONS for name in names]
    assert found.subject == "reference" and not found.failed and not found.notes
    assert all(len(row.samples.seconds) == 3 and row.difference < 1e-6 for row in found.rows)
    assert [row.ratio for row in found.rows if row.name == "reference"] == [1.0, 1.0]
    row, own = found.row("eager", "forward + backward"), found.row("reference", "forward + backward")
    assert row.ratio == row.samples.median / own.samples.median
    floor = found.floors["forward + backward"]
    assert row.bytes_ratio == pytest.approx(row.samples.median / (floor.bytes / 1e9))
    assert row.operations_ratio == pytest.approx(row.samples.median / (floor.operations / 1e9))
    assert len(said) == 2 * 3 * (1 + 3) and "hgrn: eager, forward" in said


def test_opponents_that_fail_or_differ(mine):
    found = measured(f"{mine}:broken", f"{mine}:wrong", f"{mine}:nothing", "nowhere:at_all", "reference")
    assert {row.name for row in found.rows} == {"reference", f"{mine}:wrong"}
    assert found.failed[f"{mine}:broken"] == "RuntimeError: no idea"
    assert found.failed[f"{mine}:nothing"].startswith("AttributeError: ")
    assert found.failed["nowhere:at_all"].startswith("ModuleNotFoundError: ")
    (note,) = found.notes
    assert note.startswith(f"{mine}:wrong differs from reference by ")


def test_every_backend_can_be_named():
    assert backend_names() == ("auto", *(backend.name for backend in BACKENDS))
    for name in (*backend_names(), "eager", "compile", "compile:16", "module:function"):
        check_against(name)
    with pytest.raises(ValueError, match=r"nothing called 'eagre' to measure against; did you mean eager\?"):
        check_against("eagre")


def test_a_backend_that_refuses():
    with pytest.raises(BackendError, match="backend 'triton' cannot run this"):
        measured("eager", backend="triton", dtype=torch.bfloat16)
    assert measured("triton", dtype=torch.bfloat16).failed["triton"].startswith("BackendError: ")


def test_outputs_without_gradient():
    rec = recurra.load("recurrence r\nstate h\ninput x\ntransition h' = h + x\noutput o = where(h' > 0, 1, 0)\n")
    found = bench(rec, shape_of(rec, {"T": 4}), backend="reference", repeats=1, ceilings=CEILINGS)
    assert {row.direction for row in found.rows} == set(found.floors) == {"forward"}
    assert found.notes == ("outputs have no gradient, so there is no backward pass",)


def test_several_outputs_and_a_recurrence_without_inputs():
    rec = recurra.load(
        "recurrence r\ndims D\nstate h[D]\nparam A[D, D] init orthogonal\ntransition h' = A @ h + A[0]\n"
        "output o[D] = h'\noutput p = sum(h)\n"
    )
    found = bench(rec, shape_of(rec, {"T": 4, "D": 3}), backend="reference", repeats=1, ceilings=CEILINGS)
    assert not found.failed and all(row.difference < 1e-6 for row in found.rows) and len(found.rows) == 4


def test_half_precision():
    found = measured("eager", dtype=torch.bfloat16, repeats=1)
    assert found.dtype == "bfloat16" and not found.notes and not found.failed


def test_ratios_and_floors_of_given_samples():
    samples = {
        ("a", "forward"): Samples((2.0, 4.0, 3.0)),
        ("b", "forward"): Samples((9.0, 12.0, 1.0)),
        ("a", "forward + backward"): Samples((6.0,)),
        ("b", "forward + backward"): Samples((3.0,)),
    }
    assert ratios(samples, "a")["b", "forward"] == 3.0
    floors = {"forward": Floor(500, 200), "forward + backward": Floor(500, 0)}
    rows = rows_of(samples, "a", floors, Ceilings(1000.0, 100.0), {"a": 0.0, "b": float("inf")})
    assert [(row.name, row.ratio, row.bytes_ratio, row.operations_ratio) for row in rows] == [
        ("a", 1.0, 6.0, 1.5),
        ("b", 3.0, 18.0, 4.5),
        ("a", 1.0, 12.0, 0.0),
        ("b", 0.5, 6.0, 0.0),
    ]
    assert rows[1].as_data() == {
        "name": "b",
        "direction": "forward",
        "median": 9.0,
        "minimum": 1.0,
        "ratio": 3.0,
        "over_bytes_floor": 18.0,
        "over_operations_floor": 4.5,
        "difference": "inf",
        "samples": [9.0, 12.0, 1.0],
    }
    assert numbers(rows[1]) == ("9.00 s", "1.00 s", "3.00x", "18.0x", "4.50x")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(12.34, "12.3 s"), (0.5, "500 ms"), (0.0012345, "1.23 ms"), (4.5e-5, "45.0 us")]
)
def test_times_have_three_digits(seconds, shown):
    assert show_seconds(seconds) == shown


def test_what_is_written(tmp_path):
    data = document([measured("eager")], "cpu", 0.25)
    path = tmp_path / "new" / "folder" / "x.json"
    write(path, data)
    assert json.loads(path.read_text()) == data
    assert {"date", "commit", "load_before", "machine", "versions", "benchmarks"} == set(data)
    assert set(data["machine"]) == {"cpu", "cores", "threads", "memory_gib", "system"}
    assert data["machine"]["threads"] == torch.get_num_threads()
    assert {"python", "compiler", "recurra", "torch", "triton"} == set(data["versions"])
    assert data["versions"]["torch"] == torch.__version__
    (found,) = data["benchmarks"]
    assert found["shape"] == TINY and found["spec"] == "hgrn" and found["ceilings"]["bytes_per_second"] == 1e9
    assert found["floors"]["forward"] == {"bytes": 4 * 3 * (3 * 24 + 4), "operations": 14 * 3 * 24}
    assert len(found["rows"][0]["samples"]) == 3
    assert platform.node() not in path.read_text()


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert busy(None) == busy(1.9) == ""
    assert busy(2.0) == "other work ran on this machine (load 2 on 4 cores), which disturbs times"


def test_ceilings_are_measured():
    found = measure_ceilings(torch.device("cpu"), copied=2**22, repeats=2)
    assert 1e7 < found.bytes_per_second < 1e14 and 1e8 < found.operations_per_second < 1e16


def test_the_picture(tmp_path, monkeypatch):
    """A panel per direction; an axis is logarithmic where bars differ much; labels carry times and ratios."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from recurra.runtime.bench.plot import plot

    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    samples = {
        ("cpu", "forward"): Samples((0.001,)),
        ("eager", "forward"): Samples((0.5,)),
        ("cpu", "forward + backward"): Samples((0.002,)),
        ("eager", "forward + backward"): Samples((0.004,)),
    }
    floors = {"forward": Floor(10**6, 1), "forward + backward": Floor(10**6, 1)}
    rows = rows_of(samples, "cpu", floors, CEILINGS, {"cpu": 0.0, "eager": 0.0})
    one = Benchmark("hgrn", TINY, "float32", "cpu", floors, CEILINGS, rows, {})
    path = tmp_path / "x" / "y.png"
    plot([one, one], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    panels = kept[0].axes
    assert [panel.get_xscale() for panel in panels] == ["log", "linear", "log", "linear"]
    assert [bar.get_width() for bar in panels[0].patches] == pytest.approx([1.0, 500.0])
    note, *labels = [text.get_text() for text in panels[0].texts]
    assert note.startswith("dashed: floor of ") and labels == ["1.00 ms", "500 ms  (500x)"]
    assert panels[0].get_title("left") == "hgrn, forward"
