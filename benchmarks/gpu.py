"""Recurra on a GPU: is it right there, and how fast is it beside flash-linear-attention and what the card can do.

    python benchmarks/gpu.py                 # all of it, in under nine minutes; writes benchmarks/results/gpu.{json,md}
    python benchmarks/gpu.py --minutes 4     # what is most important, in less
    python benchmarks/gpu.py --skip-checks   # times alone
    python benchmarks/gpu.py --rehearse      # the same at tiny sizes in Triton's interpreter, where there is no GPU

First many processes check all recurrences of the zoo, every way that they can go, against the float64 reference,
compile the kernels that will be timed, and let flash-linear-attention choose its configurations; then one process
takes times. What is most important comes first, and results are written as they come: a run that is stopped has
written what it found. Nothing is installed: without flash-linear-attention its columns stay empty
(benchmarks/README.md says how to bring it to a machine without a network).
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from crew import Job, Result, work
from gpu_table import markdown
from ways import ZOO, applicable, zoo

import recurra
from recurra.runtime.bench.machine import commit, now
from recurra.runtime.bench.record import write
from recurra.runtime.verify.data import fitting_sizes

ROOT = Path(__file__).resolve().parent
COMPARED = ("gated_delta_net", "gla", "delta_net", "kda", "rwkv7", "gated_delta_product")
SHAPES = (
    {"B": 1, "T": 8192, "H": 96, "D": 128},
    {"B": 2, "T": 16384, "H": 16, "D": 128},
    {"B": 4, "T": 2048, "H": 16, "D": 128},
    {"B": 4, "T": 4096, "H": 64, "D": 128},
    {"B": 8, "T": 1024, "H": 8, "D": 64},
    {"B": 8, "T": 2048, "H": 32, "D": 256},
)
CHECKS = (
    {"sizes": [64], "B": 2, "T": 130, "H": 2, "start": True},
    {"sizes": [128], "B": 1, "T": 65, "H": 2, "start": False},
    {"sizes": [60, 100], "B": 1, "T": 200, "H": 2, "start": True},
)
SHARE_OF_CHECKS = 0.55
"""The part of the time after which measurements begin whatever was checked."""

RESERVED = 10.0
"""Seconds at the end in which nothing new begins."""

LIMIT_CHECK, LIMIT_TIME = 150.0, 75.0
"""The most seconds for one job."""


@dataclass
class Plan:
    """What is to be done: jobs of each part in order, and by how many processes. ``seconds`` are for everything."""

    device: str
    seconds: float
    workers: int
    checks: list[Job]
    tunes: list[Job]
    times: list[Job]
    environment: dict[str, str] = field(default_factory=dict)


def plan(minutes: float) -> Plan:
    """Everything, on the GPU. Checks of what is timed and kernels of the first shapes come first."""
    checks: list[tuple[int, Job]] = []
    for name in zoo():
        program = recurra.load(ZOO / f"{name}.rec").program
        ways = applicable(program, fitting_sizes(program, cycle(CHECKS[0]["sizes"])))
        for rank, case in enumerate(CHECKS):
            for way in ways:
                for dtype in ("bfloat16", "float32"):
                    job = {"kind": "check", "device": "cuda", "spec": name, "way": way, "dtype": dtype, **case}
                    checks.append((_urgency(name, way, rank), job))
    times = [_timed(name, shape, way) for way in ("auto", "other") for shape in SHAPES for name in COMPARED]
    for job in times:
        urgency = 1 + SHAPES.index({name: job[name] for name in ("B", "T", "H", "D")}) // 2
        checks.append((urgency if job["way"] == "auto" else 6, {**job, "kind": "warm"}))
    tuned = {(job["spec"], job["H"], job["D"]): {**job, "kind": "tune"} for job in reversed(times)}
    ordered = [job for _, job in sorted(checks, key=lambda pair: pair[0])]
    workers = max(2, min(14, (os.cpu_count() or 2) - 1))
    return Plan("cuda", 60 * minutes, workers, ordered, list(reversed(tuned.values())), times)


def _urgency(name: str, way: str, rank: int) -> int:
    if rank:
        return 3 + rank
    if name in COMPARED and way in ("fused", "split"):
        return 0
    return 3 if way == "recurrent" else 2


def _timed(name: str, shape: dict[str, int], way: str) -> Job:
    return {"kind": "time", "device": "cuda", "spec": name, "way": way, "dtype": "bfloat16", "seconds": 2.0, **shape}


def rehearsal() -> Plan:
    """Every kind of job once or twice at tiny sizes, on a processor."""
    case = {"device": "cpu", "dtype": "float32", "sizes": [16], "B": 1, "T": 20, "H": 1, "start": True}
    shape = {"device": "cpu", "dtype": "float32", "B": 1, "T": 20, "H": 1, "D": 16, "seconds": 0.0}
    checks: list[Job] = [
        {"kind": "check", "spec": "gla", "way": "fused", **case},
        {"kind": "check", "spec": "hgrn", "way": "recurrent", **case},
        {"kind": "check", "spec": "hgrn", "way": "fused", **case},  # does not apply
        {"kind": "check", "spec": "nothing", "way": "fused", **case},  # a row of what went wrong
        {"kind": "warm", "spec": "delta_net", "way": "auto", **shape},
    ]
    tunes: list[Job] = [{"kind": "tune", "spec": "delta_net", "way": "auto", **shape}]  # if the peer is there
    times: list[Job] = [{"kind": "time", "spec": "delta_net", "way": way, **shape} for way in ("auto", "other")]
    return Plan("cpu", 300.0, 2, checks, tunes, times, {"TRITON_INTERPRET": "1"})


# ---------------------------------------------------------------- running


def run(chosen: Plan, folder: Path, began: float, *, checks: bool = True) -> dict[str, Any]:
    """Do what is planned, from ``began`` on; everything found so far is in ``folder`` at any time."""
    end = began + chosen.seconds - RESERVED
    data: dict[str, Any] = {"date": now(), "commit": commit(), "device": {}, "unreached": {}}
    data |= {"checks": [], "tunes": [], "times": []}
    lock = threading.Lock()

    def keep(part: str, job: Job, result: Result) -> None:
        with lock:
            data[part].append({**job, **result})
            data["seconds"] = round(time.monotonic() - began, 1)
            print(_line(job, result), file=sys.stderr)
            save(data, folder)

    def crew(part: str, jobs: Sequence[Job], workers: int, until: float, limit: float) -> None:
        command = [sys.executable, str(ROOT / "gpu_jobs.py")]
        environment = {"OMP_NUM_THREADS": "1", **chosen.environment}
        left = work(command, jobs, workers, until, limit, lambda *found: keep(part, *found), environment)
        with lock:
            data["unreached"][part] = left
            save(data, folder)

    def describe(job: Job, result: Result) -> None:
        data["device"] = result
        save(data, folder)

    describing = [sys.executable, str(ROOT / "gpu_jobs.py")]
    work(describing, [{"kind": "device", "device": chosen.device}], 1, end, 90.0, describe, chosen.environment)
    peer = bool(data["device"].get("versions", {}).get("flash-linear-attention"))
    if checks:
        until = min(end, began + SHARE_OF_CHECKS * chosen.seconds)
        share = max(1, chosen.workers // 3) if peer else 0
        tunes = chosen.tunes if peer else []
        tuning = threading.Thread(target=crew, args=("tunes", tunes, share, until, chosen.seconds))
        tuning.start()
        crew("checks", chosen.checks, chosen.workers - share, until, LIMIT_CHECK)
        tuning.join()
    tuned = {_tuned(row) for row in data["tunes"] if "failed" not in row}
    wanted = [peer and job["way"] == "auto" and (_tuned(job) in tuned or not checks) for job in chosen.times]
    times = [{**job, "peer": one} for job, one in zip(chosen.times, wanted, strict=True)]
    crew("times", times, 1, end, LIMIT_TIME if checks else LIMIT_CHECK)
    return data


def _tuned(job: Job) -> tuple[str, int, int]:
    """What configurations of the peer depend on."""
    return job["spec"], job["H"], job["D"]


def save(data: dict[str, Any], folder: Path) -> None:
    """Both files, as they are now."""
    write(folder / "gpu.json", data)
    (folder / "gpu.md").write_text(markdown(data), encoding="utf-8")


def _line(job: Job, result: Result) -> str:
    """One job on one line, to watch."""
    what = " ".join(str(job[name]) for name in ("kind", "spec", "way", "dtype", "B", "T", "H") if name in job)
    what += f" {job.get('D', job.get('sizes'))}"
    said = result.get("failed") or f"{result.get('ratio', '')} {result.get('wrong') or ''} {result.get('moving') or ''}"
    return f"{what}: {said.strip() or 'done'} ({result['seconds']} s)"


def main(options: argparse.Namespace) -> None:
    began = time.monotonic()
    if options.rehearse:
        chosen = rehearsal()
    else:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("no GPU here: python benchmarks/gpu.py --rehearse runs the same in Triton's interpreter")
        chosen = plan(options.minutes)
    data = run(chosen, options.results, began, checks=not options.skip_checks)
    print(markdown(data))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.5, help="for all of it (8.5)")
    parser.add_argument("--skip-checks", action="store_true", help="times alone, compiling as they come")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes in Triton's interpreter; needs no GPU")
    parser.add_argument("--results", type=Path, help="where gpu.json and gpu.md go (benchmarks/results)")
    given = parser.parse_args()
    if given.results is None:
        if given.rehearse:
            parser.error("a rehearsal is no result: --rehearse needs --results FOLDER")
        given.results = ROOT / "results"
    main(given)
