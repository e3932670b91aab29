"""The triton backend: generated GPU kernels, or their interpreter where there is no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...compiler.analysis.independence import independent_axes
from ...compiler.ir.program import Program
from ...compiler.kernels import applicable, compile_kernels
from ...compiler.lower.chain import Chain
from ...compiler.lower.recurrent import Recurrent
from ...compiler.lower.scan import Scan
from ...compiler.lower.split import split
from ...compiler.lower.stepwise import Stepwise
from ...compiler.lower.two_pass import TwoPassKernels
from ...compiler.options import KernelOptions, Options
from ...compiler.strategies.two_pass import possible
from ...compiler.targets import chunk_rows
from ..errors import BackendError
from ..store.cache import Store, fingerprint
from ..store.loader import load_module
from ..variant import Variant
from . import generated
from .chained import Chained
from .fused import Fused
from .fused_two_pass import FusedTwoPass
from .generated import Build
from .launch import architecture
from .stepped import Stepped

FEW_STEPS = 16
"""Below so many steps there is no block of them to take at once. While torch traces, the number may stand for many."""


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
    if torch.cuda.is_available():
        options = replace(options, rows=chunk_rows(architecture(torch.device("cuda", torch.cuda.current_device()))))
    compiled = compile_kernels(program, sizes, options, strategy)
    files = compiled.generated.files
    text = replace(options, few=False, started=True, schedule="auto")  # these choose among kernels, or show in them
    entry = fingerprint(program.name, *files.values(), str(text))
    path = Store().get_or_create(entry, lambda: files) / compiled.generated.main
    module = load_module(path, f"recurra_generated_{entry.replace('-', '_')}")
    lowered, core = compiled.lowered, compiled.split.core
    if isinstance(lowered, TwoPassKernels):
        return Build(entry, compiled, FusedTwoPass(core, lowered, module, segment), str(path))
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
    chosen = replace(
        options or kernel_options(Options(), inputs),
        packed=cu_seqlens is not None,
        started=bool(initial),
        few=steps == 1 or (not torch.compiler.is_compiling() and steps < FEW_STEPS),
    )
    return generated.run(
        build, program, sizes, inputs, params, initial, chosen,
        steps=steps, reverse=reverse, cu_seqlens=cu_seqlens, strategy=strategy, segment=segment,
    )  # fmt: skip


def variants(program: Program, sizes: Mapping[str, int]) -> dict[str, Variant]:
    """Ways to run that only large problems take by themselves, by name: for verification at small sizes.

    Every strategy; states cut into tiles; several chunks and segments; a backward in two passes; both schedules of
    chunks, one of them on packed sequences.
    """
    core = split(program).core
    tiles = tuple((name, 2) for name in independent_axes(core))
    found = {"stepwise": Variant(partial(run, strategy="stepwise"))}
    names = applicable(program, sizes)
    if "recurrent" in names:
        pieces = KernelOptions(chunk=2, tiles=tiles)
        found["pieces"] = Variant(partial(run, strategy="recurrent", options=pieces, segment=4))
    if "recurrent" in names and possible(core):
        found["two passes"] = Variant(
            partial(run, strategy="recurrent", options=KernelOptions(tiles=tiles, two_pass=True))
        )
    if "scan" in names:
        found["scan"] = Variant(partial(run, strategy="scan", options=KernelOptions(chunk=4)), steps=6)
    if "chunk" in names:
        found["chunk"] = Variant(
            partial(run, strategy="chunk", options=KernelOptions(chunk=16, schedule="fused")), steps=37
        )
        found["chunk, split"] = Variant(
            partial(run, strategy="chunk", options=KernelOptions(chunk=16, schedule="split")), lengths=(2, 0, 20)
        )
    return found


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
