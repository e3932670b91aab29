"""Gradients where only some results are used: what nobody asked for has no cotangent, and costs nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from unit.kernels.against_reference import arguments, runner, sizes_of, zoo

from recurra.compiler.ir.program import Program
from recurra.compiler.options import KernelOptions
from recurra.runtime import reference
from recurra.runtime.ops.launch import observed
from recurra.runtime.verify.data import Arguments
from recurra.runtime.verify.metric import TOLERANCES, distance

FUSED, SPLIT = KernelOptions(chunk=16, schedule="fused"), KernelOptions(chunk=16, schedule="split")
CASES = [
    ("gated_delta_net", "chunk", FUSED),
    ("gated_delta_net", "chunk", SPLIT),
    ("linear_attention", "chunk", SPLIT),
    ("mlstm", "chunk", FUSED),
    ("hgrn", "scan", None),
    ("delta_net", "recurrent", None),
    ("delta_net", "stepwise", None),
    ("mlstm", "cpu", None),
]
ALLOWED = 5 * TOLERANCES[torch.float32]["gradient"]
"""Chunks have long sums."""

Slopes = list[Tensor | None]


def slopes(run: Callable, program: Program, sizes: dict[str, int], given: Arguments, used: tuple[str, ...]) -> Slopes:
    """The gradients of the sum of the used results alone, by everything that was given."""
    leaves = [x for group in (given.inputs, given.params, given.initial) for x in group.values() if x.requires_grad]
    outputs, final = run(program, sizes, given.inputs, given.params, given.initial, steps=given.steps)
    names = [*(o.name for o in program.outputs), *(s.name for s in program.states)]
    results = [r for name, r in zip(names, (*outputs, *final), strict=True) if name in used]
    return list(torch.autograd.grad(sum((r * r).sum() for r in results), leaves, allow_unused=True))


@pytest.mark.parametrize("start", [False, True], ids=["no start", "start"])
@pytest.mark.parametrize("which", ["outputs", "last state", "both"])
@pytest.mark.parametrize("name, strategy, options", CASES, ids=[f"{n} {o.schedule if o else s}" for n, s, o in CASES])
def test_gradients_of_what_is_used(name, strategy, options, which, start):
    program = zoo(name)
    sizes = sizes_of(program, 3, 4)
    given = arguments(program, sizes, steps=19 if strategy == "chunk" else 5, start=start)
    outputs, states = tuple(o.name for o in program.outputs), tuple(s.name for s in program.states)
    used = {"outputs": outputs, "last state": states[:1], "both": (*outputs, *states[:1])}[which]
    found = slopes(runner(strategy, options), program, sizes, given, used)
    true = slopes(reference.run, program, sizes, given.to(torch.float64, ()), used)
    for ours, exact in zip(found, true, strict=True):
        assert ours is not None
        assert distance(ours, torch.zeros_like(ours) if exact is None else exact, 1) <= ALLOWED


@pytest.mark.parametrize("options, last", [(FUSED, "backward"), (SPLIT, "gradients")])
@pytest.mark.parametrize("used", [("o",), ("o", "S")])
def test_kernels_of_end_states_run_only_for_them(options, last, used):
    program = zoo("gated_delta_net")
    sizes = sizes_of(program, 3, 4)
    given = arguments(program, sizes, steps=3, start=False)
    seen: list[tuple[str, set[str]]] = []

    def note(kernel, tensors, extent) -> None:
        seen.append((kernel.name, set(tensors)))

    with observed(note):
        slopes(runner("chunk", options), program, sizes, given, used)
    names = [name.removeprefix("gated_delta_net_chunk_") for name, _ in seen]
    ended = "_ended" if "S" in used else ""
    first = "backward" if options is FUSED else "costates"
    assert names[-1] == (f"backward{ended}" if options is FUSED else last) and f"{first}{ended}" in names
    asked = {name for kernel, tensors in seen for name in tensors if name in ("d_S_end", "d_S_start")}
    assert asked == ({"d_S_end"} if "S" in used else set())
