"""Registers, spills, shared memory and matrix-unit instructions of generated kernels, without a GPU.

Compiles kernels ahead of time and writes a table, in about ten minutes on two cores. What is written grows case by
case beside the old table and replaces it at the end; a run that was stopped goes on with ``--resume``:

    python benchmarks/resources.py                            # print
    python benchmarks/resources.py --write                    # and keep it under benchmarks/results/
    python benchmarks/resources.py --write --resume           # go on with what a stopped run has left
    python benchmarks/resources.py --only gla --target sm_90  # one recurrence, one target

A row is one kernel: both schedules of the chunk strategy (one recurrence on all targets, the others on one: they take
longest), scans, and kernels that walk the steps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ways import ZOO

import recurra
from recurra.runtime.bench.machine import commit, now, versions
from recurra.runtime.ops.ahead import TARGET_NAMES, Resources, measure

ROOT = Path(__file__).resolve().parent
TABLE = ROOT / "results" / "resources.md"
PARTS = ROOT / "results" / "resources.part.json"
PROCESSES = 2
"""How many compilations run side by side."""


@dataclass(frozen=True)
class Case:
    """The kernels of a recurrence by one strategy. ``products`` is their form by the type of inputs: tensor cores for
    bfloat16, exact ones for float32."""

    name: str
    sizes: Mapping[str, int]
    strategy: str
    targets: Sequence[str] = TARGET_NAMES
    products: Sequence[tuple[str, str]] = (("bf16", "tf32"), ("fp32", "ieee"))

    def shown(self) -> str:
        """The sizes on one line."""
        return ", ".join(f"{axis}={size}" for axis, size in self.sizes.items())


CHUNKED = ("gated_delta_net", "delta_net", "gla", "kda", "rwkv7", "gated_delta_product", "mlstm")
WALKED = (
    Case("m2rnn", {"K": 64, "V": 64}, "recurrent"),
    Case("m2rnn", {"K": 64, "V": 16}, "recurrent"),
    Case("gated_delta_net", {"K": 64, "V": 64}, "recurrent"),
    Case("gated_delta_net", {"K": 128, "V": 128}, "recurrent"),
    Case("lstm", {"D": 64}, "recurrent"),
    Case("mamba", {"D": 64, "N": 16}, "recurrent"),
)
SCANNED = (
    Case("hgrn", {"D": 64}, "scan"),
    Case("rg_lru", {"D": 64}, "scan"),
    Case("lru", {"D": 64, "N": 64}, "scan"),
)
IN_CHUNKS = tuple(
    Case(name, {"K": size, "V": size}, "chunk", TARGET_NAMES if name == CHUNKED[0] else ("sm_90",), (("bf16", "tf32"),))
    for size in (64, 128)
    for name in CHUNKED
)
CASES = (*WALKED, *SCANNED, *IN_CHUNKS)


def compiled(case: Case, targets: Sequence[str]) -> list[Resources]:
    """All kernels of a case, for those of the targets that it has."""
    program = recurra.load(ZOO / f"{case.name}.rec").program
    chosen = [target for target in case.targets if target in targets]
    found = []
    for dtype, precision in case.products if chosen else ():
        found += measure(program, case.sizes, targets=chosen, dtype=dtype, precision=precision, strategy=case.strategy)
    return found


def rows(cases: Sequence[Case], targets: Sequence[str]) -> Iterator[tuple[Case, list[Resources]]]:
    """All kernels of all cases, in order, as they come."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        yield from zip(cases, pool.map(lambda case: compiled(case, targets), cases), strict=True)


def lines(case: Case, found: Sequence[Resources]) -> list[str]:
    """The rows of a case as lines of a Markdown table."""
    return [
        f"| {r.kernel} | {case.shown()} | {r.dtype} | {r.precision} | {r.target} | {r.warps} | {r.registers} "
        f"| {r.spills} | {r.shared} | {r.matrix_instructions} |"
        for r in found
    ]


def table(body: Sequence[str]) -> str:
    """The whole table as Markdown."""
    used = ", ".join(f"{name} {versions()[name]}" for name in ("torch", "triton"))
    head = [
        "# Kernels compiled ahead of time",
        "",
        "Written by `python benchmarks/resources.py --write`. Registers per thread, bytes spilled (stack or scratch),",
        f"bytes of shared memory, and matrix-unit instructions in the code. {used}; {now()}, commit {commit()}.",
        "",
        "| kernel | sizes | inputs | products | target | warps | registers | spills | shared | matrix instructions |",
        "|---|---|---|---|---|--:|--:|--:|--:|--:|",
    ]
    spilling = sum(int(line.split("|")[8]) > 0 for line in body)
    return "\n".join([*head, *body, "", f"{spilling} of {len(body)} spill."]) + "\n"


def done(cases: Sequence[Case]) -> dict[str, list[str]]:
    """What a stopped run of this commit has left, by the names of cases."""
    if not PARTS.exists():
        return {}
    left: dict[str, Any] = json.loads(PARTS.read_text())
    if left["commit"] != commit():
        return {}
    return {name: found for name, found in left["rows"].items() if name in {str(case) for case in cases}}


def keep(found: Mapping[str, Sequence[str]]) -> None:
    """Replace what is kept of a run, at once."""
    fresh = PARTS.with_suffix(".new")
    fresh.write_text(json.dumps({"commit": commit(), "rows": found}))
    fresh.replace(PARTS)


def main(cases: Sequence[Case], targets: Sequence[str], *, write: bool, resume: bool) -> None:
    """Print every row when it is there; with ``write`` keep them case by case, and the table at the end."""
    found = done(cases) if resume else {}
    if write:
        PARTS.parent.mkdir(exist_ok=True)
    for case, some in rows([case for case in cases if str(case) not in found], targets):
        found[str(case)] = lines(case, some)
        print(*found[str(case)], sep="\n", flush=True)
        if write:
            keep(found)
    text = table([line for case in cases for line in found[str(case)]])
    print(text.splitlines()[-1])
    if write:
        TABLE.write_text(text)
        PARTS.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/resources.md")
    parser.add_argument("--resume", action="store_true", help="with --write: keep what a stopped run has left")
    parser.add_argument("--only", action="append", help="this recurrence (repeatable)")
    parser.add_argument("--strategy", choices=("recurrent", "scan", "chunk"), help="kernels of this strategy alone")
    parser.add_argument("--target", action="append", choices=TARGET_NAMES, help="this target (repeatable)")
    arguments = parser.parse_args()
    if arguments.write and (arguments.only or arguments.target or arguments.strategy):
        parser.error("what is written is everything: --write goes alone")
    if arguments.resume and not arguments.write:
        parser.error("--resume goes with --write")
    chosen = [
        case
        for case in CASES
        if (not arguments.only or case.name in arguments.only) and arguments.strategy in (None, case.strategy)
    ]
    main(chosen, arguments.target or TARGET_NAMES, write=arguments.write, resume=arguments.resume)
