"""The cpu backend: generated C++ kernels, compiled on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from ...compiler.analysis.independence import independent_axes
from ...compiler.ir.program import Program
from ...compiler.kernels import compile_kernels
from ...compiler.lower.native import Native
from ...compiler.lower.split import split
from ...compiler.options import KernelOptions, Options
from ..store import native as library
from ..store.toolchain import NoCompiler, toolchain
from . import generated
from .generated import Build
from .native import NativeKernels

DTYPES = {"float32": "float", "float64": "double", "bfloat16": "bfloat16", "float16": "float16"}
"""The element types that kernels take, with their names in C++."""


def refuses(program: Program, dtype: torch.dtype) -> str | None:
    """Why native kernels cannot run this, or None."""
    if not program.states:
        return "there is no state to carry"
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        return f"kernels take {', '.join(DTYPES)}, not {name}"
    try:
        toolchain()
    except NoCompiler as error:
        return str(error)
    return None


def build(
    program: Program, sizes: Mapping[str, int], options: KernelOptions, strategy: str, segment: int | None
) -> Build:
    """The kernels of a recurrence as a shared library of the store, and what runs them."""
    compiled = compile_kernels(program, sizes, options, strategy, "cpu")
    real = "double" if options.dtype == "float64" else "float"
    path = library.build(
        program.name,
        compiled.generated.files,
        main=compiled.generated.main,
        extra_flags=(f"-DREAL={real}", f"-DUSER={DTYPES[options.dtype]}"),
    )
    assert isinstance(compiled.lowered, Native)
    kernels = NativeKernels(compiled.split.core, compiled.lowered, library.load(path), getattr(torch, options.dtype))
    return Build(path.parent.name, compiled, kernels, str(path.parent / compiled.generated.main))


def run(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    *,
    steps: int,
    reverse: bool = False,
    cu_seqlens: Tensor | None = None,
    strategy: str = "auto",
    options: Options | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All steps of a recurrence on native kernels; arguments and results as :func:`reference.run`."""
    chosen = kernel_options(options or Options(), inputs or {**params, **initial}, packed=cu_seqlens is not None)
    return generated.run(
        build, program, sizes, inputs, params, initial, chosen,
        steps=steps, reverse=reverse, cu_seqlens=cu_seqlens, strategy=strategy,
    )  # fmt: skip


def variants(program: Program) -> dict[str, Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]]:
    """Ways to run that only large problems take by themselves, by name: for verification at small sizes.

    Everything cut into pieces: several tiles per independent axis, several chunks.
    """
    tiles = tuple((name, 2) for name in independent_axes(split(program).core))
    return {"pieces": partial(run, options=Options(checkpoint=2, tiles=tiles))}


def kernel_options(options: Options, given: Mapping[str, Tensor], *, packed: bool = False) -> KernelOptions:
    """What a user's options come to for these inputs (or what is given besides, where a recurrence has none)."""
    dtype = str(generated.result_dtype(given)).removeprefix("torch.")
    return KernelOptions(chunk=options.checkpoint, strided=True, packed=packed, tiles=options.tiles, dtype=dtype)
