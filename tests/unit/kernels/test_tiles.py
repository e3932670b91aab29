"""States that tiles share: each tile computes them, one writes them, and cotangents count once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import recurra
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

    def run(*args: object, **named: object) -> object:
        return triton_backend.run(*args, **named, options=options, strategy=strategy)  # type: ignore[arg-type]

    report = verify(
        program,
        backends={"tiled": run},
        sizes=sizes,
        cases=(Case(1, 5, True, False, False),),
        exact=False,
        dtypes=[torch.float32],
    )
    assert report.ok, str(report)
