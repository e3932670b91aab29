"""What one process of the GPU benchmark does, a job per line of input: a check, a first run, or a measurement.

Started by gpu.py. A job that cannot be done gives ``failed`` with one line; after an error that the device does not
recover from, the process asks to be replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from crew import LOST, Job, Result, serve
from peers.fla import PEERS, installed
from torch import Tensor
from ways import WAYS, ZOO, applicable, refusal, runner

import recurra
from recurra.runtime import reference
from recurra.runtime.bench.ceilings import measure_ceilings
from recurra.runtime.bench.data import draw_arguments
from recurra.runtime.bench.floors import forward_floor, training_floor
from recurra.runtime.bench.machine import machine, versions
from recurra.runtime.bench.on_device import graphed, interleaved_on_device
from recurra.runtime.bench.shape import Shape
from recurra.runtime.bench.side_by_side import DIRECTIONS, Contender, Direction, gradients
from recurra.runtime.bench.timing import Samples, interleaved
from recurra.runtime.bench.traffic import moved, traffic
from recurra.runtime.ops.launch import observed
from recurra.runtime.verify.data import Arguments, draw, fitting_sizes
from recurra.runtime.verify.measure import Quantity, draw_weights, quantities
from recurra.runtime.verify.metric import TOLERANCES, distance

LONG_SUMS = {"output": 1e-4, "gradient": 5e-4, "gate": 5e-4}
"""What float32 may differ where sums run over chunks."""

COMPARED_HEADS = 4
LEAST, MOST = 5, 30
"""Repeats."""

WARM_STEPS, TUNED_STEPS = 128, 8192

Key = tuple[str, Direction, str]
"""A contender, a direction, and ``eager`` or ``graph``."""


def do(job: Job) -> Result:
    """The result of any job."""
    kinds: dict[str, Callable[[Job, torch.device], Result]] = {
        "device": describe, "check": check, "warm": warm, "tune": tune, "time": measure,
    }  # fmt: skip
    device = torch.device(job["device"])
    try:
        return kinds[job["kind"]](job, device)
    except Exception as error:  # whatever compilers, libraries and devices raise is a row of the table
        text = said(error)
        lost = "CUDA error" in text or "illegal" in text or "unspecified launch failure" in text
        return {"failed": text, LOST: lost}
    finally:
        if device.type == "cuda":
            _free()


def said(error: Exception) -> str:
    """An error on one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _free() -> None:
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # the device is lost; the result says so
        return


def describe(job: Job, device: torch.device) -> Result:
    """The device, versions, and what it can do at most."""
    small = device.type != "cuda"
    sizes = {"copied": 2**22, "sides": (64,)} if small else {"copied": 2**32, "sides": (4096, 8192)}
    dtype = torch.float32 if small else torch.bfloat16
    found = measure_ceilings(device, repeats=8, dtype=dtype, **sizes)  # type: ignore[arg-type]
    used = {**versions(), "CUDA": torch.version.cuda, "flash-linear-attention": installed()}
    return {"machine": machine(device), "versions": used, "ceilings": found.as_data()}


# ---------------------------------------------------------------- checks


def check(job: Job, device: torch.device) -> Result:
    """One recurrence one way at one shape, against the float64 reference, and twice for bit-identity.

    ``wrong`` gives, by quantity, the error and what is allowed: the tolerance or twice the error that the reference has
    in the same precision. ``refused`` says why a recurrence cannot go this way at these sizes.
    """
    program, dtype = recurra.load(ZOO / f"{job['spec']}.rec").program, getattr(torch, job["dtype"])
    sizes = fitting_sizes(program, cycle(job["sizes"]))
    refused = refusal(program, sizes, job["way"])
    if refused:
        return {"refused": refused}
    frozen = [p.name for p in program.params if p.frozen]
    generator = torch.Generator().manual_seed(0)
    lead = (job["B"], job["T"], job["H"])
    drawn = draw(program, sizes, generator, batch=lead[0], steps=lead[1], heads=lead[2], start=job["start"])
    weights = draw_weights(program, sizes, generator, lead)
    rounded = drawn.to(dtype, frozen)

    def run(arguments: Arguments, way: Any, place: torch.device) -> dict[str, Quantity]:
        there = {name: weight.to(place) for name, weight in weights.items()}
        return quantities(program, sizes, arguments.on(place), there, way)

    here, way = torch.device("cpu"), runner(job["way"])
    found, again = run(rounded, way, device), run(rounded, way, device)
    true = run(rounded.to(torch.float64, frozen), reference.run, here)
    long = WAYS[job["way"]][0] == "chunk" and dtype == torch.float32
    allowed = {name: (LONG_SUMS if long else TOLERANCES[dtype])[value.kind] for name, value in found.items()}
    errors = {name: value.distance(true[name]) for name, value in found.items()}
    if any(not error <= allowed[name] for name, error in errors.items()):
        own = run(rounded, reference.run, here)
        allowed = {name: max(most, 2 * own[name].distance(true[name])) for name, most in allowed.items()}
    worst = max(errors, key=lambda name: errors[name] / allowed[name])
    wrong = {name: (str(e), allowed[name]) for name, e in errors.items() if not e <= allowed[name]}
    moving = [name for name, value in found.items() if not torch.equal(value.value, again[name].value)]
    return {"worst": worst, "ratio": str(errors[worst] / allowed[worst]), "wrong": wrong, "moving": moving}


# ---------------------------------------------------------------- times


def _shape(job: Job) -> Shape:
    program = recurra.load(ZOO / f"{job['spec']}.rec").program
    return Shape(job["B"], job["T"], job["H"], fitting_sizes(program, cycle([job["D"]])))


def subject(job: Job, shape: Shape, device: torch.device) -> tuple[Contender, Arguments]:
    """The recurrence on generated kernels, called as users call it or one way; with ``other`` in chunks by the
    schedule that is not chosen by itself."""
    recurrence = recurra.load(ZOO / f"{job['spec']}.rec")
    arguments = draw_arguments(recurrence.program, shape, getattr(torch, job["dtype"]), device)
    leaves = [x for group in (arguments.inputs, arguments.params) for x in group.values() if x.requires_grad]
    given = {**arguments.inputs, **arguments.params}

    def by_itself() -> tuple[Tensor, ...]:
        return (recurrence(given, backend="triton"),)

    own = Contender("recurra", by_itself, tuple(leaves))
    if job["way"] == "auto":
        return own, arguments
    taken = job["way"]
    if taken == "other":
        taken = "split" if _launches(job, own, shape)["way"] == "fused" else "fused"
    way = runner(taken)

    def one_way() -> tuple[Tensor, ...]:
        groups = (arguments.inputs, arguments.params, {})
        outputs: tuple[Tensor, ...] = way(recurrence.program, shape.sizes, *groups, steps=shape.steps)[0]
        return outputs

    return replace(own, run=one_way), arguments


def rival(job: Job, arguments: Arguments, *, exact: bool = False) -> Contender:
    """The peer on the same inputs."""
    peer, dtype = PEERS[job["spec"]], getattr(torch, job["dtype"])
    given = peer.arguments({**arguments.inputs, **arguments.params}, dtype, exact=exact)
    return Contender("fla", lambda: peer.run(given), tuple(given.values()))


def warm(job: Job, device: torch.device) -> Result:
    """Compile what a measurement will launch, on sequences that take no time."""
    own, _ = subject(job, _shape({**job, "T": min(job["T"], WARM_STEPS)}), device)
    cotangents = _cotangents(own)
    for _ in range(2):  # a kernel that spills is compiled anew for its second launch
        gradients(own, cotangents)
    return {}


def tune(job: Job, device: torch.device) -> Result:
    """Have the peer compile and choose among its configurations, which it remembers, at this number of heads and size
    and at most so many steps that several processes fit on the card."""
    if installed() is None:
        return {"failed": "flash-linear-attention is not installed"}
    shape = _shape({**job, "T": min(job["T"], max(WARM_STEPS, TUNED_STEPS // job["B"]))})
    program = recurra.load(ZOO / f"{job['spec']}.rec").program
    other = rival(job, draw_arguments(program, shape, getattr(torch, job["dtype"]), device))
    gradients(other, _cotangents(other))
    return {}


def _cotangents(contender: Contender) -> list[Tensor]:
    return [torch.randn_like(output) for output in _without_gradients(contender)]


def measure(job: Job, device: torch.device) -> Result:
    """Times of forward and forward + backward, eager and replayed from a graph, of the recurrence and its peer."""
    shape = _shape(job)
    own, arguments = subject(job, shape, device)
    program, dtype = recurra.load(ZOO / f"{job['spec']}.rec").program, getattr(torch, job["dtype"])
    forward, both = forward_floor(program, shape, dtype), training_floor(program, shape, dtype)
    result: Result = {"floors": {"forward": forward.as_data(), "forward + backward": both.as_data()}, "notes": []}
    result["launches"] = _launches(job, own, shape)
    contenders = [own]
    try:
        if job["peer"]:
            result["difference"] = str(_difference(job, own, arguments, result["notes"]))
            contenders.append(rival(job, arguments))
            gradients(contenders[1], _cotangents(own))
    except Exception as error:
        result["peer"] = said(error)
        del contenders[1:]
    result["times"] = _times(contenders, _cotangents(own), device, job["seconds"], result["notes"])
    return result


def _launches(job: Job, own: Contender, shape: Shape) -> dict[str, Any]:
    """The way that runs, as its kernels tell, with all launches of each direction and the bytes they move."""
    seen: list[str] = []
    cotangents = _cotangents(own)
    with observed(lambda kernel, *_: seen.append(kernel.name)):
        gradients(own, cotangents)
    program, dtype = recurra.load(ZOO / f"{job['spec']}.rec").program, getattr(torch, job["dtype"])
    for way in applicable(program, shape.sizes):
        strategy, schedule = WAYS[way]
        found = traffic(program, shape, dtype, strategy=strategy, schedule=schedule)
        if [launch.name for launch in found.both if launch.generated] == seen:
            moves = {"forward": moved(found.forward), "forward + backward": moved(found.both)}
            return {"way": way, "names": [launch.name for launch in found.both], "bytes": moves}
    return {"way": None, "names": seen, "bytes": {}}


def _without_gradients(contender: Contender) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return contender.run()


def _difference(job: Job, own: Contender, arguments: Arguments, notes: list[str]) -> float:
    """How far the peer's output is from ours, in some heads, with decays that are not rounded where it takes such."""
    (ours,) = _without_gradients(own)
    try:
        (theirs,) = _without_gradients(rival(job, arguments, exact=True))
    except Exception as error:
        notes.append(f"compared with rounded decays, as the peer refused float32 ones: {said(error)}")
        (theirs,) = _without_gradients(rival(job, arguments))
    step = max(1, ours.shape[2] // COMPARED_HEADS)
    return distance(theirs[:, :, ::step], ours[:, :, ::step], 3, 1)


def _times(
    contenders: list[Contender], cotangents: list[Tensor], device: torch.device, seconds: float, notes: list[str]
) -> list[dict[str, Any]]:
    """Samples of everything, interleaved."""
    jobs: dict[Key, Callable[[], object]] = {}
    for contender in contenders:
        jobs[contender.name, DIRECTIONS[0], "eager"] = lambda c=contender: _without_gradients(c)  # type: ignore[misc]
        jobs[contender.name, DIRECTIONS[1], "eager"] = lambda c=contender: gradients(c, cotangents)  # type: ignore[misc]
    if device.type != "cuda":
        return _rows(interleaved(jobs, 1))
    for name, direction, _ in list(jobs):
        try:
            jobs[name, direction, "graph"] = graphed(jobs[name, direction, "eager"])
        except Exception as error:
            torch.cuda.synchronize(device)
            notes.append(f"{name} is not captured as a graph, {direction}: {said(error)}")
    once = sum(samples.minimum for samples in interleaved_on_device(jobs, 2, device).values())
    repeats = min(MOST, max(LEAST, int(seconds / max(once, 1e-6))))
    return _rows(interleaved_on_device(jobs, repeats, device))


def _rows(samples: Mapping[Key, Samples]) -> list[dict[str, Any]]:
    return [
        {"name": name, "direction": direction, "mode": mode, "median": taken.median, "minimum": taken.minimum,
         "repeats": len(taken.seconds)}
        for (name, direction, mode), taken in samples.items()
    ]  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    serve(do)
