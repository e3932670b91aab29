"""What every recurrence of the zoo moves and launches, by schedule, beside the least that could be moved.

    python benchmarks/bytes.py             # print
    python benchmarks/bytes.py --write     # and keep it as benchmarks/results/bytes.json and bytes.md
    python benchmarks/bytes.py --only gla  # one recurrence, launch by launch

Needs no GPU and no time to speak of: calls are made on tensors without data (recurra/runtime/bench/traffic.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product, repeat
from pathlib import Path
from typing import Any

import torch
from ways import WAYS, ZOO, zoo

import recurra
from recurra.runtime.bench.floors import forward_floor, training_floor
from recurra.runtime.bench.machine import commit, now, versions
from recurra.runtime.bench.record import write
from recurra.runtime.bench.shape import Shape
from recurra.runtime.bench.traffic import Launch, Traffic, asked, moved, traffic
from recurra.runtime.verify.data import fitting_sizes

ROOT = Path(__file__).resolve().parent
SIZES = (64, 128)
LEAD = {"B": 1, "T": 4096, "H": 1}
DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Row:
    """One recurrence with all dimensions of one size, by one schedule; bytes are per step and head.

    ``ideal`` is forward and backward: arguments and results once each.
    """

    spec: str
    size: int
    schedule: str
    traffic: Traffic
    ideal: tuple[float, float]

    @property
    def forward(self) -> float:
        return moved(self.traffic.forward) / LEAD["T"]

    @property
    def backward(self) -> float:
        return moved(self.traffic.backward) / LEAD["T"]

    @property
    def ratio(self) -> float:
        """Forward and backward over the ideal."""
        return (self.forward + self.backward) / sum(self.ideal)

    @property
    def loaded(self) -> float:
        """The same where what several programs or statements read counts each time."""
        return asked(self.traffic.both) / LEAD["T"] / sum(self.ideal)

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = asdict(self)
        return {**found, "forward": self.forward, "backward": self.backward, "ratio": self.ratio, "loaded": self.loaded}


@dataclass(frozen=True)
class Target:
    """What was asked for of one row: at most so many launches, at most such a ratio of bytes."""

    spec: str
    size: int
    schedule: str
    launches: int
    ratio: float | None = None


TARGETS = (Target("gated_delta_net", 128, "fused", 4, 1.5), Target("gated_delta_net", 128, "split", 6))


def row(name: str, size: int, schedule: str) -> Row | None:
    """The row, or None where the strategy does not apply; whatever the compiler raises otherwise."""
    program = recurra.load(ZOO / f"{name}.rec").program
    shape = Shape(LEAD["B"], LEAD["T"], LEAD["H"], fitting_sizes(program, repeat(size)))
    strategy, how = WAYS[schedule]
    try:
        found = traffic(program, shape, DTYPE, strategy=strategy, schedule=how)
    except ValueError:
        return None
    forward, both = (floor(program, shape, DTYPE).bytes / shape.steps for floor in (forward_floor, training_floor))
    return Row(name, size, schedule, found, (forward, both - forward))


def rows(names: Sequence[str], failed: list[str]) -> Iterator[Row]:
    """All rows of the named recurrences; ``failed`` gets a sentence for each that cannot be made."""
    for name, size, schedule in product(names, SIZES, WAYS):
        try:
            found = row(name, size, schedule)
        except Exception as error:
            failed.append(f"{name} {size} {schedule} does not compile: {type(error).__name__}: {error}")
            continue
        if found is not None:
            yield found


# ---------------------------------------------------------------- reporting


def markdown(found: Sequence[Row], failed: Sequence[str] = ()) -> str:
    """The table, what became of the targets, and what could not be counted."""
    lines = [
        "# Bytes and launches",
        "",
        "Written by `python benchmarks/bytes.py --write`: bytes per step and head, bfloat16, all dimensions of one",
        f"size, T = {LEAD['T']}, counted from the kernels' own loads and stores, with what torch does beside them",
        "(sums of parts, fills, copies). The ideal reads inputs and writes outputs; its backward reads inputs and",
        "cotangents of outputs and writes gradients of inputs. `moved` counts what several programs of a head read",
        "once, as they run side by side and share a cache; `loaded` counts it each time, and what a program reads",
        "again too. Launches are kernels, then those of torch (after the +).",
        "",
        "| spec | size | schedule | forward | backward | ideal | moved / ideal | loaded / ideal "
        "| launches forward | backward |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in found:
        ideal = " + ".join(f"{part:.0f}" for part in r.ideal)
        counts = f"{_counts(r.traffic.forward)} | {_counts(r.traffic.backward)}"
        lines.append(
            f"| {r.spec} | {r.size} | {r.schedule} | {r.forward:.0f} | {r.backward:.0f} | {ideal} | {r.ratio:.2f} "
            f"| {r.loaded:.2f} | {counts} |"
        )
    lines += ["", *judged(found), *(f"* {text}" for text in failed)]
    return "\n".join(lines) + "\n"


def judged(found: Sequence[Row]) -> Iterator[str]:
    """Every target that a row stands for, as a sentence."""
    for target in TARGETS:
        for r in found:
            if (r.spec, r.size, r.schedule) == (target.spec, target.size, target.schedule):
                count = len(r.traffic.both)
                words = [f"{count} launches (target {target.launches}: {_said(count <= target.launches)})"]
                if target.ratio is not None:
                    said = _said(r.ratio <= target.ratio)
                    words.append(f"{r.ratio:.2f} times the ideal bytes (target {target.ratio}: {said})")
                yield f"* {r.spec} {r.size} {r.schedule}, forward + backward: {', '.join(words)}."


def _said(met: bool) -> str:
    return "met" if met else "missed"


def _counts(launches: Sequence[Launch]) -> str:
    own = sum(launch.generated for launch in launches)
    return f"{own} + {len(launches) - own}" if own < len(launches) else str(own)


def details(found: Sequence[Row], failed: Sequence[str] = ()) -> str:
    """Launch by launch."""
    lines = list(failed)
    for r in found:
        lines.append(f"\n{r.spec} {r.size} {r.schedule}: {r.ratio:.2f} of the ideal, bytes per step and head")
        for direction, launches in (("forward", r.traffic.forward), ("backward", r.traffic.backward)):
            for launch in launches:
                read, written, loaded = (n / LEAD["T"] for n in (launch.read, launch.written, launch.loaded))
                numbers = f"reads {read:8.0f} (asks for {loaded:8.0f}), writes {written:8.0f}"
                lines.append(f"  {direction:8} {launch.name:40} {numbers}")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    names = options.only or zoo()
    failed: list[str] = []
    found = list(rows(names, failed))
    print(details(found, failed) if options.only else markdown(found, failed))
    if options.write:
        data = {"date": now(), "commit": commit(), "versions": versions(), "rows": [r.as_data() for r in found]}
        write(ROOT / "results" / "bytes.json", data)
        (ROOT / "results" / "bytes.md").write_text(markdown(found, failed), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="this recurrence alone, launch by launch (repeatable)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/bytes.json and bytes.md")
    chosen = parser.parse_args()
    if chosen.only and chosen.write:
        parser.error("what is written is everything: --write goes without --only")
    main(chosen)
