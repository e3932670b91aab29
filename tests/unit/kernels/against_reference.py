"""Runs a recurrence on generated kernels and on the float64 reference, and says how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from recurra.compiler.frontend import elaborate
from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import Compiled, applicable, compile_kernels
from recurra.compiler.options import KernelOptions, Options
from recurra.dsl import Source, parse
from recurra.runtime import reference
from recurra.runtime.ops import cpu_backend, triton_backend
from recurra.runtime.verify.data import Arguments, draw, fitting_sizes
from recurra.runtime.verify.measure import Quantity, Runner, draw_weights, quantities
from recurra.runtime.verify.metric import TOLERANCES

ROOT = Path(__file__).parents[3]
ZOO = sorted((ROOT / "examples" / "zoo").glob("*.rec"))
UNSEEN = sorted((ROOT / "tests" / "fixtures" / "unseen").glob("*.rec"))
STRATEGIES = ("recurrent", "stepwise")
WAYS = (*STRATEGIES, "cpu")
"""Triton's kernels by strategy, and native ones."""

Change = Callable[[Arguments], Arguments]


@cache
def zoo(name: str) -> Program:
    """A program of the zoo, the same object each time, so that its kernels are compiled once."""
    return spec((ROOT / "examples" / "zoo" / f"{name}.rec").read_text(), f"{name}.rec")


@cache
def spec(text: str, name: str = "<text>") -> Program:
    """The typed form of a ``.rec`` text."""
    return elaborate(parse(Source(name, text)))


@cache
def scans(program: Program, *preferred: int) -> bool:
    """Whether the scan strategy can run a recurrence at the preferred sizes."""
    return "scan" in applicable(program, sizes_of(program, *preferred))


def sizes_of(program: Program, *preferred: int, **given: int) -> dict[str, int]:
    """Sizes of all dimensions: the given ones, else the preferred ones in turn."""
    return fitting_sizes(program, preferred * 9, given)


def arguments(
    program: Program,
    sizes: Mapping[str, int],
    *,
    batch: int = 1,
    steps: int = 5,
    heads: int = 2,
    start: bool = True,
    grouped: bool = False,
    seed: int = 0,
    lengths: Sequence[int] | None = None,
) -> Arguments:
    """Drawn arguments whose numbers are exact in float32; of packed sequences if there are ``lengths``."""
    generator = torch.Generator().manual_seed(seed)
    if lengths is not None:
        batch, steps = len(lengths), sum(lengths)
    lead = {"batch": batch, "steps": steps, "heads": heads}
    drawn = draw(program, sizes, generator, **lead, start=start, grouped=grouped, lengths=lengths)
    return drawn.to(torch.float32, ())


def run(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    strategy: str = "recurrent",
    *,
    options: KernelOptions | None = None,
    segment: int | None = None,
    reverse: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Quantity]:
    """Outputs, final states and all gradients on kernels."""
    leaves = _leaves(program, given, torch.float32)
    kernels = runner(strategy, options, segment)
    return quantities(program, sizes, leaves, _weights(program, sizes, given, weights), kernels, reverse=reverse)


def runner(strategy: str, options: KernelOptions | None = None, segment: int | None = None) -> Runner:
    """What runs a recurrence in one of the ``WAYS``."""
    if strategy != "cpu":
        return partial(triton_backend.run, strategy=strategy, options=options, segment=segment)
    chosen = None if options is None else Options(checkpoint=options.chunk, tiles=options.tiles)
    return partial(cpu_backend.run, options=chosen)


def compiled(program: Program, sizes: Mapping[str, int], strategy: str) -> Compiled:
    """The kernels of a recurrence in one of the ``WAYS``."""
    if strategy == "cpu":
        return compile_kernels(program, sizes, KernelOptions(), backend="cpu")
    return compile_kernels(program, sizes, KernelOptions(), strategy)


def true(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    *,
    reverse: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Quantity]:
    """The same in float64, by the reference."""
    return _reference(program, sizes, given, torch.float64, reverse, weights)


def _reference(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    dtype: torch.dtype,
    reverse: bool,
    weights: Mapping[str, Tensor] | None,
) -> dict[str, Quantity]:
    leaves = _leaves(program, given, dtype)
    return quantities(program, sizes, leaves, _weights(program, sizes, given, weights), reference.run, reverse=reverse)


def errors(found: Mapping[str, Quantity], expected: Mapping[str, Quantity]) -> dict[str, float]:
    """How far each quantity is off, in multiples of its tolerance in float32."""
    assert found.keys() == expected.keys()
    allowed = TOLERANCES[torch.float32]
    return {name: q.distance(expected[name]) / allowed[q.kind] for name, q in found.items()}


def wrong(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    found: Mapping[str, Quantity],
    expected: Mapping[str, Quantity],
    *,
    reverse: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """The errors that are too large: beyond the tolerance and beyond twice the float32 reference's own."""
    large = {name: error for name, error in errors(found, expected).items() if not error <= 1}
    if not large:
        return {}
    own = errors(_reference(program, sizes, given, torch.float32, reverse, weights), expected)
    return {name: error for name, error in large.items() if not error <= 2 * own[name]}


def check(
    program: Program,
    sizes: Mapping[str, int],
    given: Arguments,
    strategy: str = "recurrent",
    *,
    options: KernelOptions | None = None,
    segment: int | None = None,
    reverse: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """AssertionError unless kernels agree with the reference, forward and every gradient."""
    found = run(program, sizes, given, strategy, options=options, segment=segment, reverse=reverse, weights=weights)
    expected = true(program, sizes, given, reverse=reverse, weights=weights)
    bad = wrong(program, sizes, given, found, expected, reverse=reverse, weights=weights)
    assert not bad, f"{program.name} by {strategy}: {bad}"


def changed(given: Arguments, **tensors: Tensor | Callable[[Tensor], Tensor]) -> Arguments:
    """The same arguments with some tensors replaced, or put through a function."""

    def group(old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        result = dict(old)
        for name in old.keys() & tensors.keys():
            new = tensors[name]
            result[name] = new(old[name].detach()) if callable(new) else new
        return result

    return replace(given, inputs=group(given.inputs), params=group(given.params), initial=group(given.initial))


def only(program: Program, sizes: Mapping[str, int], given: Arguments, *names: str) -> dict[str, Tensor]:
    """Weights that are zero for all but the named outputs and final states."""
    return {
        name: weight if name in names else torch.zeros_like(weight)
        for name, weight in _weights(program, sizes, given, None).items()
    }


def _weights(
    program: Program, sizes: Mapping[str, int], given: Arguments, weights: Mapping[str, Tensor] | None
) -> Mapping[str, Tensor]:
    if weights is not None:
        return weights
    batch, heads = reference.extent(given.inputs, given.params, given.initial)
    packed = given.cu_seqlens is not None
    lead = (batch if given.cu_seqlens is None else len(given.cu_seqlens) - 1, given.steps, heads)
    return draw_weights(program, sizes, torch.Generator().manual_seed(1), lead, packed)


def _leaves(program: Program, given: Arguments, dtype: torch.dtype) -> Arguments:
    """Leaves that keep their strides and ask for gradients, frozen params excepted."""
    frozen = {p.name for p in program.params if p.frozen}

    def group(old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.detach().to(dtype).requires_grad_(name not in frozen) for name, x in old.items()}

    groups = (group(given.inputs), group(given.params), group(given.initial))
    return Arguments(*groups, given.steps, given.cu_seqlens)
