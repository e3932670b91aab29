"""The chunk-parallel algorithm in PyTorch: a second oracle beside the token loop, fast on any device.

It interprets normal forms. A recurrence is a chain of passes; each is of affine normal form (:mod:`.affine`) or
element-wise (:mod:`.elementwise`). Everything is plain torch, so it can be differentiated any number of times.
This is also the specification of generated chunk kernels: :mod:`.tokens` says what sub-steps come to, :mod:`.matrix`
what happens in a chunk, :mod:`.decay` how decays between steps are formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ...compiler.analysis.affine import AffineForm
from ...compiler.analysis.linear import Reason
from ...compiler.forms import pass_forms
from ...compiler.ir.program import Program, live
from ...dsl.source import Span
from ..errors import BackendError
from ..reference import Begun, begin, emitted
from ..sequences import one_by_one
from .affine import Results, run_affine
from .elementwise import Elementwise, elementwise, run_elementwise

CHUNK = 64
"""Tokens of a chunk."""


@dataclass(frozen=True)
class Plan:
    """The passes of a recurrence in order, or why some have no parallel form."""

    program: Program  # kept alive, since plans are found by its id
    passes: tuple[AffineForm | Elementwise, ...]
    refusal: str | None


_PLANS: dict[int, Plan] = {}


def plan(program: Program) -> Plan:
    """How to run a recurrence in chunks."""
    if id(program) not in _PLANS:
        _PLANS[id(program)] = _plan(program)
    return _PLANS[id(program)]


def refuses(program: Program) -> str | None:
    """Why a recurrence cannot be run in chunks, or None."""
    return plan(program).refusal


def _plan(program: Program) -> Plan:
    found: list[AffineForm | Elementwise] = []
    if not program.states:
        return Plan(program, (), "there is no state to carry")
    parts = pass_forms(program)
    for part in parts:
        if part.form is not None:
            found.append(part.form)
            continue
        made = elementwise(part.program)
        if isinstance(made, Reason):
            assert part.reason is not None
            return Plan(program, (), _refusal(program, part.reason, made))
        found.append(made)
    clipped = _clipped_twice([part.program for part in parts])
    if clipped is not None:
        return Plan(program, (), f"it has no chunk form: {_shown(program, clipped)}")
    return Plan(program, tuple(found), None)


def _refusal(program: Program, matrix: Reason, entries: Reason) -> str:
    if matrix == entries:
        return f"it has no chunk form: {_shown(program, matrix)}"
    return f"it has no chunk form: {_shown(program, matrix)}, nor is it element-wise: {_shown(program, entries)}"


def _shown(program: Program, reason: Reason) -> str:
    return reason.text if reason.span is None else f"{reason.text} ({program.source.at(reason.span)})"


def _clipped_twice(programs: list[Program]) -> Reason | None:
    """A gradient that is clipped in several passes: each would clip its part of it, not the sum."""
    seen: set[Span | None] = set()
    for program in programs:
        clips = {program.body[p].span for p in live(program.body, program.roots()) if program.body[p].op == "clip_grad"}
        if clips & seen:
            return Reason("several passes read what `clip_grad` clips", next(iter(clips & seen)))
        seen |= clips
    return None


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
    chunk: int = CHUNK,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All steps of a recurrence in chunks of ``chunk`` (a power of two); the rest as :func:`reference.run`.

    BackendError where :func:`refuses` gives a reason.
    """
    made = plan(program)
    if made.refusal is not None:
        raise BackendError(f"{program.name}: {made.refusal}")
    if cu_seqlens is not None:
        bounds = cu_seqlens.tolist()
        return one_by_one(partial(run, chunk=chunk), program, sizes, inputs, params, initial, bounds, reverse)
    begun = begin(program, sizes, inputs, params, initial, steps=steps, reverse=reverse)
    leaves = dict(begun.leaves)
    outputs: dict[str, Tensor] = {}
    finals: dict[str, Tensor] = {}
    for part in made.passes:
        now = Begun(leaves, begun.states, begun.full, begun.like)
        results, ends = _run_pass(part, now, sizes, chunk)
        outputs |= results
        finals |= ends
        leaves |= {("input", name): value for name, value in results.items()}
    values = [outputs[output.name] for output in program.outputs]
    return emitted(program, values, inputs, begun, reverse), tuple(finals[s.name] for s in program.states)


def _run_pass(part: AffineForm | Elementwise, begun: Begun, sizes: Mapping[str, int], chunk: int) -> Results:
    if isinstance(part, Elementwise):
        return run_elementwise(part, begun, sizes, chunk)
    return run_affine(part, begun, sizes, chunk)
