"""All strategies' verdicts for a GPU, each with what it is expected to cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..analysis.elementwise import Group
from ..analysis.linear import Reason
from ..ir.program import Program
from ..lower.layout import Layout
from ..options import KernelOptions
from . import chunk, recurrent, scan, stepwise
from .chunk import PassPlan
from .cost import Cost, chunk_cost, recurrent_cost, scan_cost, stepwise_cost
from .two_pass import Backward
from .verdict import Verdict

Groups = tuple[Group, ...] | Reason
Planned = tuple[PassPlan, ...] | Reason


def gpu_verdicts(
    core: Program,
    way: Backward,
    layout: Layout,
    groups: Groups,
    planned: Planned,
    sizes: Mapping[str, int],
    options: KernelOptions,
    checkpoint: int,
) -> tuple[Verdict, ...]:
    """Of chunk, scan, recurrent and stepwise; ``layout`` is that of the recurrent kernels, ``way`` how they go
    backward."""
    walked = core if way.passes is None else way.passes.infer
    walks = recurrent.verdict(walked, layout).and_(way.reason)
    scanned = _scan_verdict(core, groups, planned, sizes)
    return (
        _with_cost(chunk.verdict(planned, sizes), lambda: _chain_cost(planned, sizes)),
        _with_cost(scanned, lambda: _scan_cost(core, groups, planned, sizes, options)),
        _with_cost(walks, lambda: recurrent_cost(walked, layout, checkpoint, way.rows)),
        _with_cost(stepwise.verdict(core), lambda: stepwise_cost(core, layout.sizes)),
    )


def _with_cost(verdict: Verdict, cost: Callable[[], Cost]) -> Verdict:
    """What a strategy that applies is expected to cost."""
    if not verdict.applies:
        return verdict
    found = cost()
    return replace(verdict, seconds=found.seconds, cost=str(found))


def _scan_verdict(program: Program, groups: Groups, planned: Planned, sizes: Mapping[str, int]) -> Verdict:
    """Of one scan, or of one after the other where states are stabilised by others."""
    found = scan.verdict(program, groups, sizes)
    if found.applies or isinstance(planned, Reason):
        return found
    scans = [(p.part.program, p.groups) for p in planned if p.form is None and p.groups is not None]
    if len(scans) < len(planned):
        return found
    each = [scan.verdict(part, own, sizes) for part, own in scans]
    refused = next((v for v in each if not v.applies), None)
    return refused or Verdict(scan.NAME, True, "; then ".join(v.reason for v in each))


def _scan_cost(
    program: Program, groups: Groups, planned: Planned, sizes: Mapping[str, int], options: KernelOptions
) -> Cost:
    if isinstance(groups, Reason):
        return _chain_cost(planned, sizes)
    return scan_cost(program, scan.layout(program, groups, sizes, dict(options.tiles), options.chunk))


def _chain_cost(planned: Planned, sizes: Mapping[str, int]) -> Cost:
    """Of all passes, one after the other."""
    assert not isinstance(planned, Reason)
    scans = [
        scan_cost(p.part.program, scan.layout(p.part.program, p.groups, sizes))
        for p in planned
        if p.form is None and p.groups is not None
    ]
    return chunk_cost(planned, sizes, scans)
