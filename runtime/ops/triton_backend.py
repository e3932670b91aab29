"""The triton backend: generated GPU kernels, or their interpreter where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...compiler.analysis.independence import independent_axes
from ...compiler.ir.program import Program
from ...compiler.kernels import compile_kernels
from ...compiler.lower.chain import Chain
from ...compiler.lower.recurrent import Recurrent
from ...compiler.lower.scan import Scan
from ...compiler.lower.split import split
from ...compiler.lower.stepwise import Stepwise
from ...compiler.options import KernelOptions, Options
from ..errors import BackendError
from ..store.cache import Store, fingerprint
from ..store.loader import load_module
from . import generated
from .chained import Chained
from .fused import Fused
from .generated import Build
from .stepped import Stepped


def refuses(program: Program, dtype: torch.dtype) -> str | None:
    """Why Triton cannot run this, or None."""
    if dtype == torch.float64:
        return "kernels compute in float32: float64 runs on the reference"
    if not program.states:
        return "there is no state to carry"
    return None


def build(
    program: Program, sizes: Mapping[str, int], options: KernelOptions, strategy: str, segment: int | None
) -> Build:
    """The kernels of a recurrence as a module of the store, and what runs them."""
    compiled = compile_kernels(program, sizes, options, strategy)
    files = compiled.generated.files
    entry = fingerprint(program.name, *files.values(), str(options))
    path = Store().get_or_create(entry, lambda: files) / compiled.generated.main
    module = load_module(path, f"recurra_generated_{entry.replace('-', '_')}")
    lowered, core = compiled.lowered, compiled.split.core
    if isinstance(lowered, Recurrent | Scan):
        return Build(entry, compiled, Fused(core, lowered, module, segment), str(path))
    if isinstance(lowered, Chain):
        return Build(entry, compiled, Chained.of(core, lowered, module, options.schedule), str(path))
    assert isinstance(lowered, Stepwise)
    return Build(entry, compiled, Stepped(core, lowered, module), str(path))


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
    options: KernelOptions | None = None,
    segment: int | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All steps of a recurrence on Triton kernels; arguments and results as :func:`reference.run`."""
    chosen = replace(options or kernel_options(Options(), inputs), packed=cu_seqlens is not None)
    return generated.run(
        build, program, sizes, inputs, params, initial, chosen,
        steps=steps, reverse=reverse, cu_seqlens=cu_seqlens, strategy=strategy, segment=segment,
    )  # fmt: skip


def variants(program: Program) -> dict[str, Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]]:
    """Ways to run that only large problems take by themselves, by name: for verification at small sizes.

    Everything cut into pieces (several tiles per independent axis, chunks and segments), and the
    stepwise strategy.
    """
    tiles = tuple((name, 2) for name in independent_axes(split(program).core))
    pieces = KernelOptions(chunk=2, tiles=tiles)
    return {"pieces": partial(run, options=pieces, segment=4), "stepwise": partial(run, strategy="stepwise")}


def kernel_options(options: Options, inputs: Mapping[str, Tensor]) -> KernelOptions:
    """What a user's options come to for these inputs (BackendError for a precision that the device lacks)."""
    if options.precision == "tf32x3" and torch.version.hip:
        raise BackendError("AMD's GPUs have no tf32x3 products; their matrix units run precision='ieee'")
    dtypes = {t.dtype for t in inputs.values()}
    half = bool(dtypes & {torch.bfloat16, torch.float16})
    strided = not all(t.is_contiguous() for t in inputs.values())
    chosen = KernelOptions.of(options, half=half, strided=strided)
    if options.precision is None and len(dtypes) == 1 and half:
        chosen = replace(chosen, operand=f"tl.{str(dtypes.pop()).removeprefix('torch.')}")
    return chosen
