"""The CPU benchmark's references against the float64 reference, and what is made of its times."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from unit.bench.scripts import environment

from recurra.runtime.bench import Ceilings
from recurra.runtime.bench.results import Benchmark, rows_of
from recurra.runtime.bench.timing import Samples

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
LINES = ("hgrn", "delta_net", "m2rnn", "gru", "lstm", "mamba")


@pytest.fixture(scope="module")
def cpu() -> Iterator[ModuleType]:
    """The script as a module, beside which its references lie."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("cpu")
    sys.path.remove(str(BENCHMARKS))


def line(cpu: ModuleType, name: str):
    (found,) = (one for one in cpu.LINES if one.name == name)
    return found


def test_lines_and_targets_are_those_that_were_asked_for(cpu):
    targets = {one.name: list(one.targets.values()) for one in cpu.LINES}
    assert targets == {
        "hgrn": [(5, 12), (3.5, 3)],
        "delta_net": [(25, 30), (4, 3.5)],
        "m2rnn": [(6, 5)],
        "gru": [(1.8, 1.8)],
        "lstm": [(1.3, 1.3)],
        "mamba": [(10, 15)],
    }
    assert all(rival.group in one.targets for one in cpu.LINES for rival in one.rivals)


@pytest.mark.parametrize("name", LINES)
def test_references_are_right(cpu, name):
    """Outputs and every gradient of every reference, in float64."""
    cpu.prove(line(cpu, name))


def test_a_wrong_reference_is_found(cpu):
    hgrn = line(cpu, "hgrn")
    first = hgrn.rivals[0]

    def wrong_gradient(i: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return first.call(i, f.detach() + (f - f.detach()) * 1.001)

    wrong = replace(hgrn, rivals=(replace(first, call=wrong_gradient),))
    with pytest.raises(SystemExit, match="hgrn: loop differs from the float64 reference"):
        cpu.prove(wrong)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_layers_agree_in_float32_and_ask_for_all_gradients(cpu, name):
    work = cpu.work_of(line(cpu, name), {"B": 2, "T": 20, "H": 1, "D": 16}, torch.float32, "auto", compiling=False)
    ((layer,),) = work.rivals.values()
    torch.testing.assert_close(work.own.run()[0], layer.run()[0], rtol=0, atol=1e-5)
    gates = {"gru": 3, "lstm": 4}[name]
    assert len(work.own.leaves) == 1 + 3 * gates + (name == "gru") and len(layer.leaves) == 5
    weights = sum(leaf.numel() for leaf in work.own.leaves)
    twice = gates * 16 if name == "lstm" else (gates - 1) * 16  # biases that torch has twice
    assert weights == sum(leaf.numel() for leaf in layer.leaves) - twice


def test_floors_of_a_layer(cpu):
    B, T, D = 2, 20, 16
    work = cpu.work_of(line(cpu, "gru"), {"B": B, "T": T, "D": D, "H": 1}, torch.float32, "reference", compiling=False)
    x, weights = B * T * D, 6 * D * D + 4 * D
    forward, both = work.floors["forward"], work.floors["forward + backward"]
    assert forward.bytes == 4 * (x + weights + x + B * D)
    assert both.bytes == forward.bytes + 4 * (2 * (x + weights) + x)
    # Three products before the loop and three in it, two sigmoids and a tanh, nine operations on vectors
    assert forward.operations == B * T * (12 * D * D + 30 * D + 9 * D)
    assert both.operations > 3 * 12 * D * D * B * T


def test_the_fastest_of_a_kind_counts(cpu):
    hgrn = line(cpu, "hgrn")
    work = cpu.work_of(hgrn, hgrn.small, torch.float32, "reference", compiling=False)
    names = [contender.name for group in work.rivals.values() for contender in group]
    assert "two passes, chunk 16" in names and not any("compiled" in name for name in names)
    times = dict.fromkeys(names, (90.0, 80.0)) | {"two passes, chunk 32": (8.0, 9.0), "loop": (40.0, 60.0)}
    times["reference"] = (2.0, 2.0)
    samples = {(name, direction): Samples(taken) for direction in work.floors for name, taken in times.items()}
    apart = dict.fromkeys(times, 0.0)
    rows = rows_of(samples, "reference", work.floors, Ceilings(1e9, 1e9), apart)
    shape = work.shape.as_data()
    benchmark = Benchmark("hgrn", shape, "float32", "reference", work.floors, Ceilings(1e9, 1e9), rows, {})
    found = cpu.verdicts(hgrn, work, benchmark)
    assert [(v.direction, v.best, v.ratio, v.of_minima, v.target, v.met) for v in found] == [
        ("forward", "loop", 25.0, 20.0, 5, True),
        ("forward + backward", "loop", 25.0, 20.0, 12, True),
        ("forward", "two passes, chunk 32", 4.25, 4.0, 3.5, True),
        ("forward + backward", "two passes, chunk 32", 4.25, 4.0, 3, True),
    ]
    circumstances = {
        "machine": {"cpu": "C", "cores": 2, "threads": 2, "memory_gib": 4.0},
        "versions": {"python": "3.11", "compiler": "g++ 12", "triton": None},
        "date": "today",
        "load_before": 0.1,
        "commit": "abc",
        "memory": {"peak": 130 * 2**20, "needed": 100 * 2**20, "ratio": 1.3, "target": 1.2},
    }
    text = cpu.markdown(circumstances, [benchmark], found)
    assert "| hgrn | eager PyTorch loop | forward | loop | 25.00x | 20.00x | 5x | met |" in text
    assert (
        "130 MiB, 1.30 times" in text and "missed" in text and "| forward | **recurra (reference)** | 2.00 s |" in text
    )


def test_peak_memory_in_a_process_of_its_own(cpu, monkeypatch):
    """The eager reference keeps every state; what is needed is counted by hand."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's /proc")
    monkeypatch.setattr(cpu, "MEMORY", {"name": "hgrn", "B": 2, "T": 1024, "H": 1, "D": 512})
    found = cpu.peak_memory("reference")
    entries = 2 * 1024 * 512
    memory = importlib.import_module("memory")
    rec = memory.recurra.load(memory.ZOO / "hgrn.rec")
    shape = memory.shape_of(rec, {"B": 2, "T": 1024, "H": 1, "D": 512})
    checkpoints = -(-1024 // memory.steps_between_checkpoints(rec, shape))
    assert found["needed"] == 4 * (2 * 3 * entries + (1 + checkpoints) * 2 * 512)
    assert found["backend"] == "reference"
    assert 4 * 6 * entries < found["peak"] < 4 * 60 * entries
    assert found["ratio"] == found["peak"] / found["needed"]


def test_the_command_knows_its_lines():
    command = [sys.executable, str(BENCHMARKS / "cpu.py"), "--only", "rnn"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2 and "hgrn" in done.stderr
