"""The cpu backend: generated C++ kernels, compiled on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...compiler.analysis.independence import independent_axes
from ...compiler.ir.program import Program
from ...compiler.kernels import compile_kernels
from ...compiler.lower.native import Native
from ...compiler.lower.split import split
from ...compiler.lower.two_pass import TwoPassKernels
from ...compiler.options import KernelOptions, Options
from ...compiler.strategies.two_pass import possible
from ..store import native as library
from ..store.toolchain import NoCompiler, toolchain
from ..variant import Variant
from . import generated
from .generated import Build
from .native import NativeKernels
from .native_two_pass import NativeTwoPass

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
    core, lowered, dtype = compiled.split.core, compiled.lowered, getattr(torch, options.dtype)
    if isinstance(lowered, TwoPassKernels):
        kernels: NativeKernels = NativeTwoPass(core, lowered, library.load(path), dtype)
    else:
        assert isinstance(lowered, Native)
        kernels = NativeKernels(core, lowered, library.load(path), dtype)
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
    two_pass: bool = False,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All steps of a recurrence on native kernels; arguments and results as :func:`reference.run`.

    ``two_pass`` as in :class:`KernelOptions`.
    """
    given = inputs or {**params, **initial}
    chosen = kernel_options(options or Options(), given, packed=cu_seqlens is not None, two_pass=two_pass)
    return generated.run(
        build, program, sizes, inputs, params, initial, chosen,
        steps=steps, reverse=reverse, cu_seqlens=cu_seqlens, strategy=strategy,
    )  # fmt: skip


def variants(program: Program, sizes: Mapping[str, int]) -> dict[str, Variant]:
    """Ways to run that only large problems take by themselves, by name: for verification at small sizes.

    Everything cut into pieces: several tiles per independent axis, several chunks; and a backward in two passes.
    """
    core = split(program).core
    tiles = tuple((name, 2) for name in independent_axes(core))
    found = {"pieces": Variant(partial(run, options=Options(checkpoint=2, tiles=tiles)))}
    if possible(core):
        found["two passes"] = Variant(partial(run, options=Options(tiles=tiles), two_pass=True))
    return found


def kernel_options(
    options: Options, given: Mapping[str, Tensor], *, packed: bool = False, two_pass: bool = False
) -> KernelOptions:
    """What a user's options come to for these inputs (or what is given besides, where a recurrence has none)."""
    dtype = str(generated.result_dtype(given)).removeprefix("torch.")
    found = KernelOptions(chunk=options.checkpoint, strided=True, packed=packed, tiles=options.tiles, dtype=dtype)
    return replace(found, two_pass=two_pass)
