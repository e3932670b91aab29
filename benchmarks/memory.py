"""Peak memory of forward + backward of a recurrence, beside what it cannot do without.

    python benchmarks/memory.py m2rnn B=2 T=4096 H=4 K=64 V=64

Prints JSON, in bytes. ``peak`` is how much resident memory rises above what the process had before the inputs were
made, with kernels compiled and loaded; ``needed`` is inputs and params, outputs and final states, their gradients
(cotangents among them), and the states kept as checkpoints. Linux only: reads and resets /proc/self.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

import torch

import recurra
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.lower.native import Native
from recurra.compiler.options import KernelOptions
from recurra.runtime.bench.contenders import subject
from recurra.runtime.bench.data import draw_arguments
from recurra.runtime.bench.shape import Shape, shape_of
from recurra.runtime.bench.side_by_side import gradients

ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"
CPU = torch.device("cpu")


def measure(name: str, sizes: dict[str, int], backend: str = "auto") -> dict[str, int | str]:
    """The peak of one run and what it needs, in a process that does nothing else."""
    recurrence = recurra.load(ZOO / f"{name}.rec")
    shape = shape_of(recurrence, sizes)
    ran = run(recurrence, shape_of(recurrence, {**sizes, "T": 64}), backend)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the first run freed is given back, so that it does not hide the second
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = resident("VmRSS")
    run(recurrence, shape, backend)
    return {"backend": ran, "peak": resident("VmHWM") - before, "needed": needed(recurrence, shape)}


def run(recurrence: recurra.Recurrence, shape: Shape, backend: str) -> str:
    """Forward + backward once; the name of the backend that ran it."""
    arguments = draw_arguments(recurrence.program, shape, torch.float32, CPU)
    contender = subject(recurrence, shape, arguments, backend, torch.float32)
    outputs = [(*shape.lead, *(axis.size.bind(shape.sizes) for axis in o.axes)) for o in recurrence.program.outputs]
    gradients(contender, [torch.randn(output) for output in outputs])
    return contender.name


def needed(recurrence: recurra.Recurrence, shape: Shape) -> int:
    """Bytes of inputs, params, outputs, final states, all gradients, and states at every checkpoint, in float32."""
    program = recurrence.program

    def entries(items: tuple, lead: int) -> int:
        return lead * sum(torch.Size(axis.size.bind(shape.sizes) for axis in item.axes).numel() for item in items)

    steps = shape.batch * shape.steps * shape.heads
    twice = entries(program.inputs, steps) + entries(program.params, shape.heads) + entries(program.outputs, steps)
    checkpoints = -(-shape.steps // steps_between_checkpoints(recurrence, shape))
    return 4 * (2 * twice + (1 + checkpoints) * entries(program.states, shape.batch * shape.heads))


def steps_between_checkpoints(recurrence: recurra.Recurrence, shape: Shape) -> int:
    """How many steps the native kernels take from one state that they keep to the next."""
    options = KernelOptions(chunk=recurrence.options.checkpoint, strided=True)
    lowered = compile_kernels(recurrence.program, shape.sizes, options, backend="cpu").lowered
    assert isinstance(lowered, Native)
    return lowered.chunk


def resident(field: str) -> int:
    """Bytes of resident memory now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(field)


if __name__ == "__main__":
    given = dict(item.split("=") for item in sys.argv[2:])
    chosen = given.pop("backend", "auto")
    print(json.dumps(measure(sys.argv[1], {name: int(size) for name, size in given.items()}, chosen)))
