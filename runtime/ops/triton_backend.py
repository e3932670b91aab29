"""The triton backend: a recurrence at bound sizes becomes kernels, once, and runs on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...compiler.analysis.independence import independent_axes
from ...compiler.ir.program import Program
from ...compiler.kernels import Compiled, compile_kernels
from ...compiler.lower.naming import tensor_name
from ...compiler.lower.recurrent import Recurrent
from ...compiler.lower.split import split
from ...compiler.options import KernelOptions, Options
from .. import reference
from ..errors import BackendError
from ..store.cache import Store, fingerprint
from ..store.loader import load_module
from .fused import Fused
from .operators import apply, register
from .stepped import Stepped


@dataclass(frozen=True)
class Kernels:
    """The kernels of one recurrence, loaded from ``path`` and registered with torch under ``name``."""

    name: str
    program: Program
    compiled: Compiled
    path: str


_NAMES: dict[tuple[object, ...], str] = {}
_KERNELS: dict[str, Kernels] = {}
_LOCK = threading.RLock()


def refuses(program: Program, dtype: torch.dtype) -> str | None:
    """Why Triton cannot run this, or None."""
    if dtype == torch.float64:
        return "kernels compute in float32: float64 runs on the reference"
    if not program.states:
        return "there is no state to carry"
    return None


Sizes = tuple[tuple[str, int], ...]


@torch.compiler.assume_constant_result
def compile_once(program: Program, sizes: Sizes, options: KernelOptions, strategy: str, segment: int | None) -> str:
    """The name of the kernels of a recurrence at bound sizes, compiled at the first call.

    A name, because that is a constant to ``torch.compile``, which runs this while it traces.
    """
    key = (id(program), sizes, options, strategy, segment)
    if key not in _NAMES:
        with _LOCK:
            if key not in _NAMES:
                kernels = _build(program, sizes, options, strategy, segment)
                _KERNELS[kernels.name] = kernels
                _NAMES[key] = kernels.name
    return _NAMES[key]


def kernels_for(
    program: Program,
    sizes: Mapping[str, int],
    options: KernelOptions,
    strategy: str = "auto",
    segment: int | None = None,
) -> Kernels:
    """The kernels of a recurrence at bound sizes; ``torch.compile`` specialises on the sizes here."""
    bound = tuple((name, len(range(size))) for name, size in sizes.items())
    return _KERNELS[compile_once(program, bound, options, strategy, segment)]


def _build(program: Program, sizes: Sizes, options: KernelOptions, strategy: str, segment: int | None) -> Kernels:
    compiled = compile_kernels(program, dict(sizes), options, strategy)
    generated = compiled.generated
    entry = fingerprint(program.name, generated.text, generated.line_map, str(options))
    files = {"kernels.py": generated.text, "kernels.py.map.json": generated.line_map}
    folder = Store().get_or_create(entry, lambda: files)
    name = entry.replace("-", "_")
    module = load_module(folder / "kernels.py", f"recurra_generated_{name}")
    lowered, core = compiled.lowered, compiled.split.core
    executor = (
        Fused(core, lowered, module, segment) if isinstance(lowered, Recurrent) else Stepped(core, lowered, module)
    )
    unique = f"{name}_{len(_KERNELS)}"
    register(unique, executor)
    return Kernels(unique, program, compiled, str(folder / "kernels.py"))


def run(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    *,
    steps: int,
    reverse: bool = False,
    strategy: str = "auto",
    options: KernelOptions | None = None,
    segment: int | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All steps of a recurrence on generated kernels; arguments and results as :func:`reference.run`."""
    tensors = (*inputs.values(), *params.values(), *initial.values())
    options = options or kernel_options(Options(), inputs)
    kernels = kernels_for(program, sizes, options, strategy, segment)
    parts = kernels.compiled.split
    batch, heads = reference.extent(inputs, params, initial)
    leaves = _leaves(inputs, params, heads)
    like = torch.empty((), dtype=torch.float32, device=tensors[0].device if tensors else None)
    full = (batch, steps, heads)
    known: dict[int, Tensor] = {}
    if parts.before:
        known = reference.evaluate(program.body, [p for _, p in parts.before], leaves, sizes, 3, full=full, like=like)
    early = {name: known[p] for name, p in parts.before}
    own = {tensor_name(name): tensor for name, tensor in (*inputs.items(), *params.items())}
    arguments = [
        *(
            own[i.name] if i.name in own else early[i.name].expand(*full, *early[i.name].shape[3:])
            for i in parts.core.inputs
        ),
        *(
            own[p.name] if p.name in own else early[p.name][0, 0].expand(heads, *early[p.name].shape[3:])
            for p in parts.core.params
        ),
        *_starts(program, sizes, initial, batch, heads, like),
    ]
    packed = [t if options.strided and n < len(parts.core.inputs) else t.contiguous() for n, t in enumerate(arguments)]
    outputs = len(parts.core.outputs)
    values = apply(kernels.name, outputs + len(program.states), packed, steps, reverse)
    by_name = dict(zip((o.name for o in parts.core.outputs), values, strict=False))
    known |= {p: by_name[name].to(torch.float32) for name, p in parts.taps}
    late: dict[int, Tensor] = {}
    if parts.after:
        late = reference.evaluate(
            program.body, [p for _, p in parts.after], leaves, sizes, 3, known=known, full=full, like=like
        )
    by_name |= {tensor_name(name): late[p].expand(*full, *late[p].shape[3:]) for name, p in parts.after}
    dtype = _result_dtype(inputs)
    return tuple(by_name[tensor_name(o.name)].to(dtype) for o in program.outputs), tuple(values[outputs:])


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
    half = any(t.dtype in (torch.bfloat16, torch.float16) for t in inputs.values())
    strided = not all(t.is_contiguous() for t in inputs.values())
    return KernelOptions.of(options, half=half, strided=strided)


def _leaves(inputs: Mapping[str, Tensor], params: Mapping[str, Tensor], heads: int) -> dict[tuple[str, str], Tensor]:
    """Leaves as the reference takes them: float32, one entry per head of the state."""
    leaves = {("param", name): t.to(torch.float32)[None, None] for name, t in params.items()}
    for name, t in inputs.items():
        leaves["input", name] = t.to(torch.float32).repeat_interleave(heads // t.shape[2], 2)
    return leaves


def _starts(
    program: Program,
    sizes: Mapping[str, int],
    initial: Mapping[str, Tensor],
    batch: int,
    heads: int,
    like: Tensor,
) -> list[Tensor]:
    missing = [s.start for s in program.states if s.name not in initial]
    values = reference.evaluate(program.body, missing, {}, sizes, 2, like=like) if missing else {}
    starts = []
    for state in program.states:
        if state.name in initial:
            starts.append(initial[state.name])
        else:
            shape = (batch, heads, *(axis.size.bind(sizes) for axis in state.axes))
            value = values[state.start].reshape((1,) * len(shape)).expand(shape)
            starts.append(value)
    return starts


def _result_dtype(inputs: Mapping[str, Tensor]) -> torch.dtype:
    dtypes = [t.dtype for t in inputs.values()] or [torch.float32]
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = torch.promote_types(result, dtype)
    return result
