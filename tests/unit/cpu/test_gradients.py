"""Gradients of native kernels against differences of what they compute, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from unit.cpu.agreement import arguments
from unit.kernels.against_reference import ZOO, sizes_of

import recurra


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_gradcheck(path: Path) -> None:
    """Outputs and final states by every input, learned param and start state, over two chunks.

    Differences are taken over 2e-6, and no number drawn here lies that close to a kink.
    """
    rec = recurra.load(path).with_options(checkpoint=2)
    program = rec.program
    heads = 1 + len(program.params) % 2
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, batch=1, steps=3, heads=heads)
    given = given.to(torch.float64, [p.name for p in program.params if p.frozen])
    names = [*given.inputs, *given.params]

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        named = dict(zip((*names, *given.initial), tensors, strict=True))
        initial = {name: named.pop(name) for name in given.initial}
        steps = None if program.inputs else 3
        outputs, final = rec(named, initial=initial, return_state=True, steps=steps, backend="cpu")
        return (*((outputs,) if isinstance(outputs, Tensor) else outputs), *final.values())

    tensors = (*given.inputs.values(), *given.params.values(), *given.initial.values())
    assert len(run(*tensors)) == len(program.outputs) + len(program.states)
    assert torch.autograd.gradcheck(run, tensors, atol=1e-7, rtol=1e-5)
