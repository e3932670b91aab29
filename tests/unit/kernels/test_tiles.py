"""States that tiles share: each tile computes them, one writes them, and cotangents count once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unit.kernels.against_reference import arguments, run, true, wrong

import recurra
from recurra.compiler.kernels import compile_kernels
from recurra.compiler.options import KernelOptions
from recurra.runtime.ops import generated, triton_backend
from recurra.runtime.verify import Case, verify

ZOO = Path(__file__).parents[3] / "examples" / "zoo"


@pytest.mark.parametrize("strategy", ["recurrent", "stepwise"])
@pytest.mark.parametrize("name", ["mlstm", "gated_delta_product", "rwkv6"])
def test_several_tiles_agree_with_the_reference(name: str, strategy: str) -> None:
    program = recurra.load(ZOO / f"{name}.rec").program
    options = KernelOptions(chunk=2, tiles=(("V", 4),))
    sizes = {"K": 5, "V": 9}
    kernels = generated.kernels_for(triton_backend.build, program, sizes, options, strategy)
    assert kernels.compiled.lowered.layout.tiles == ("V",)

    def tiled(*args: object, **named: object) -> object:
        return triton_backend.run(*args, **named, options=options, strategy=strategy)  # type: ignore[arg-type]

    report = verify(
        program,
        backends={"tiled": tiled},
        sizes=sizes,
        cases=(Case(1, 5, True, False, False),),
        exact=False,
        dtypes=[torch.float32],
    )
    assert report.ok, str(report)


@pytest.mark.parametrize("schedule", ["fused", "split"])
@pytest.mark.parametrize("name", ["gated_delta_net", "mlstm"])
def test_kernels_that_walk_a_large_state_take_a_part_of_its_columns(name: str, schedule: str) -> None:
    program = recurra.load(ZOO / f"{name}.rec").program
    options, sizes = KernelOptions(chunk=16, schedule=schedule), {"K": 128, "V": 128}
    compiled = compile_kernels(program, sizes, options, "chunk")
    tiled = {kernel.name.rsplit("_", 1)[1] for kernel in compiled.kernels if kernel.layout.tiles}
    # a state without columns gets its cotangent from all of another one's, so mLSTM's costates are not cut
    assert tiled >= {"infer", "forward", "states"} and ("costates" in tiled) == (name == "gated_delta_net")
    assert not tiled & {"backward", "gradients"}
    given = arguments(program, sizes, steps=20)
    found = run(program, sizes, given, "chunk", options=options)
    assert not wrong(program, sizes, given, found, true(program, sizes, given))
