"""Recurra on a CPU against fair references in plain PyTorch, side by side in one run.

    python benchmarks/cpu.py               # everything; writes benchmarks/results/cpu.json, cpu.md and cpu.png
    python benchmarks/cpu.py --only gru    # one line, printed
    python benchmarks/cpu.py --quick       # few repeats and nothing under torch.compile, printed

Every reference is proved right first, outputs and gradients, in float64 at a small shape. Then everything runs in
float32 with the same inputs and threads, interleaved in random order. Of the references of one kind the fastest counts.
The whole run takes about half an hour, most of which torch.compile spends.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from references.lines import CPU, LINES, Line, Work, work_of

from recurra.cli.specs import progress
from recurra.runtime.bench.ceilings import measure_ceilings
from recurra.runtime.bench.machine import busy, load
from recurra.runtime.bench.plot import plot
from recurra.runtime.bench.record import document, write
from recurra.runtime.bench.results import Benchmark, rows_of
from recurra.runtime.bench.side_by_side import DIRECTIONS, Direction, differences, gradients, timed
from recurra.runtime.bench.table import show_seconds
from recurra.runtime.verify.metric import distance

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"
MEMORY = {"name": "m2rnn", "B": 2, "T": 4096, "H": 4, "K": 64, "V": 64}
ALLOWED_MEMORY = 1.2
PROVED = 1e-9
"""What references may differ from the float64 reference."""
AGREED = 1e-5
"""What outputs may differ in float32 at the shape that is timed; more is noted beside the times."""


@dataclass(frozen=True)
class Verdict:
    """One line against one kind of reference in one direction.

    ``ratio`` is how many times as long the ``best`` of them takes, by medians; ``of_minima`` the same by minima, which
    other work on the machine disturbs less.
    """

    line: str
    against: str
    direction: Direction
    best: str
    ratio: float
    of_minima: float
    target: float

    @property
    def met(self) -> bool:
        return self.ratio >= self.target


# ---------------------------------------------------------------- proving and timing


def prove(line: Line) -> None:
    """SystemExit if a reference of the line differs from the float64 reference, in outputs or in any gradient."""
    work = work_of(line, line.small, torch.float64, "reference", compiling=False)
    (output,) = work.own.run()
    cotangent = torch.randn_like(output)
    slopes = gradients(work.own, [cotangent])
    for contenders in work.rivals.values():
        for contender in contenders:
            found = work.as_own(gradients(contender, [cotangent]))
            far = [distance(contender.run()[0], output, 3, 1)]
            far += [distance(slope, true, 1) for slope, true in zip(found, slopes, strict=True)]
            if not max(far) <= PROVED:
                raise SystemExit(f"{line.name}: {contender.name} differs from the float64 reference by {max(far):.1e}")


def measure(
    line: Line, repeats: int, backend: str, compiling: bool, before: Callable[[str], None]
) -> tuple[Benchmark, list[Verdict]]:
    """The times of a line and what they come to."""
    torch.compiler.reset()
    before(f"{line.name}: proving references")
    prove(line)
    highest = measure_ceilings(CPU)
    work = work_of(line, line.shape, torch.float32, backend, compiling=compiling)
    contenders = [work.own, *(contender for group in work.rivals.values() for contender in group)]
    before(f"{line.name}: compiling")
    apart = differences(contenders)
    with torch.no_grad():
        cotangents = [torch.randn_like(output) for output in work.own.run()]
    samples = timed(contenders, cotangents, repeats, before=lambda key: before(f"{line.name}: {key[0]}, {key[1]}"))
    highest = highest.or_better(measure_ceilings(CPU))
    rows = rows_of(samples, work.own.name, work.floors, highest, apart)
    notes = tuple(f"{name} differs by {far:.1e}" for name, far in apart.items() if not far <= AGREED)
    shape = work.shape.as_data()
    benchmark = Benchmark(line.name, shape, "float32", work.own.name, work.floors, highest, rows, {}, notes)
    return benchmark, verdicts(line, work, benchmark)


def verdicts(line: Line, work: Work, benchmark: Benchmark) -> list[Verdict]:
    """For every kind of reference and direction the ratio of the fastest."""
    found = []
    for group, targets in line.targets.items():
        for direction, target in zip(DIRECTIONS, targets, strict=True):
            rows = [benchmark.row(contender.name, direction) for contender in work.rivals[group]]
            if rows:
                best = min(rows, key=lambda row: row.ratio)
                least = min(row.samples.minimum for row in rows)
                of_minima = least / benchmark.row(work.own.name, direction).samples.minimum
                found.append(Verdict(line.name, group, direction, best.name, best.ratio, of_minima, target))
    return found


def peak_memory(backend: str) -> dict[str, Any]:
    """The peak of forward + backward in a process of its own, as benchmarks/memory.py prints it."""
    given = [f"{key}={value}" for key, value in MEMORY.items() if key != "name"]
    command = [sys.executable, str(ROOT / "memory.py"), str(MEMORY["name"]), *given, f"backend={backend}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    found = json.loads(done.stdout)
    return {**found, "ratio": found["peak"] / found["needed"], "target": ALLOWED_MEMORY}


# ---------------------------------------------------------------- reporting


def markdown(data: dict[str, Any], benchmarks: Sequence[Benchmark], found: Sequence[Verdict]) -> str:
    """Everything as Markdown: circumstances, ratios against targets, all times, and memory."""
    machine, versions = data["machine"], data["versions"]
    used = ", ".join(f"{name} {version}" for name, version in versions.items() if version and name != "compiler")
    lines = [
        "# Recurra on a CPU",
        "",
        "Written by `python benchmarks/cpu.py`: float32, interleaved repeats, the same inputs and threads. The ratio",
        "is how many times as long the fastest reference of its kind takes, by medians and by minima. References are",
        "in `benchmarks/references`, all samples in `cpu.json`.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gib']} GiB, "
        f"load {data['load_before']} before; {used}; {versions['compiler']}; {data['date']}, commit {data['commit']}.",
        "",
        "| work | against | direction | fastest of these | ratio | of minima | target | |",
        "|---|---|---|---|--:|--:|--:|---|",
    ]
    for v in found:
        ratios = f"{v.ratio:.2f}x | {v.of_minima:.2f}x | {v.target}x"
        lines.append(
            f"| {v.line} | {v.against} | {v.direction} | {v.best} | {ratios} | {'met' if v.met else 'missed'} |"
        )
    lines += memory_lines(data.get("memory"))
    for benchmark in benchmarks:
        lines += times(benchmark)
    return "\n".join(lines) + "\n"


def memory_lines(memory: dict[str, Any] | None) -> list[str]:
    """One sentence about peak memory."""
    if memory is None:
        return []
    if "error" in memory:
        return ["", f"Peak memory could not be measured: {memory['error']}"]
    said = "met" if memory["ratio"] <= memory["target"] else "missed"
    return [
        "",
        f"Peak memory of {MEMORY['name']}, T={MEMORY['T']}, forward + backward: {memory['peak'] / 2**20:.0f} MiB, "
        f"{memory['ratio']:.2f} times inputs, outputs, gradients and checkpoints ({memory['needed'] / 2**20:.0f} MiB); "
        f"target {memory['target']}: {said}.",
    ]


def times(benchmark: Benchmark) -> list[str]:
    """All rows of one benchmark as a Markdown table."""
    lines = [
        "",
        f"## {benchmark.spec}",
        "",
        f"{benchmark.setting()}; {benchmark.ceilings}.",
        "",
        "| direction | what | median | minimum | ratio | over bytes floor | over operations floor |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in benchmark.rows:
        name = f"**recurra ({row.name})**" if row.name == benchmark.subject else row.name
        taken = f"{show_seconds(row.samples.median)} | {show_seconds(row.samples.minimum)}"
        over = f"{row.bytes_ratio:.3g}x | {row.operations_ratio:.3g}x"
        lines.append(f"| {row.direction} | {name} | {taken} | {row.ratio:.2f}x | {over} |")
    return lines + [f"\n{note}" for note in benchmark.notes]


# ---------------------------------------------------------------- the command


def main(options: argparse.Namespace) -> None:
    before = load()
    if busy(before):
        print(busy(before), file=sys.stderr)
    lines = [line for line in LINES if not options.only or line.name in options.only]
    repeats = options.repeats or (3 if options.quick else 15)
    compiling = not options.quick
    runs = sum(2 + 2 * (1 + repeats) * (1 + max(1, _count(line, compiling))) for line in lines)
    benchmarks: list[Benchmark] = []
    found: list[Verdict] = []
    with progress(runs, "bench") as advance:
        for line in lines:
            benchmark, verdict = measure(line, repeats, options.backend, compiling, advance)
            benchmarks.append(benchmark)
            found += verdict
    data = document(benchmarks, CPU, before)
    data["verdicts"] = [{**asdict(v), "met": v.met} for v in found]
    if "m2rnn" in {line.name for line in lines}:
        data["memory"] = peak_memory(options.backend)
    text = markdown(data, benchmarks, found)
    print(text)
    if len(lines) == len(LINES) and compiling:
        write(RESULTS / "cpu.json", data)
        (RESULTS / "cpu.md").write_text(text, encoding="utf-8")
        plot(benchmarks, RESULTS / "cpu.png")


def _count(line: Line, compiling: bool) -> int:
    return len([rival for rival in line.rivals if compiling or not rival.compiled])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [line.name for line in LINES]
    parser.add_argument("--only", action="append", choices=names, help="this line alone (repeatable); writes no files")
    parser.add_argument("--quick", action="store_true", help="3 repeats, nothing compiled by torch; writes no files")
    parser.add_argument("--repeats", type=int, help="rounds, each of which runs everything once (15)")
    parser.add_argument("--backend", default="auto", help="what runs Recurra's side (auto)")
    main(parser.parse_args())
