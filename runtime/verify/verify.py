"""The chain of trust: exact trajectory = float64 reference = every backend, forward and every gradient.

Beside it the normal form, where there is one, is proved to be the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle

import torch

from ...compiler.ir.program import Program
from .. import reference
from ..backends import BACKENDS, REFERENCE, Task
from ..variant import Variant
from .data import Arguments, draw, fitting_sizes
from .exact import compare_exact
from .forms import compare_forms
from .measure import Quantity, Runner, draw_weights, quantities
from .metric import TOLERANCES
from .report import Report, Row

TINY = (2,)
SMALL = (3, 5, 4, 6)


@dataclass(frozen=True)
class Case:
    """One kind of call: sequences, steps, whether start states are given and heads are shared, direction; ``lengths``
    of the sequences if they are packed."""

    batch: int
    steps: int
    start: bool
    grouped: bool
    reverse: bool
    lengths: tuple[int, ...] | None = None

    def __str__(self) -> str:
        words = [f"B={self.batch} T={self.steps}" if self.lengths is None else f"lengths {list(self.lengths)}"]
        words += [word for word in ("start", "grouped", "reverse") if getattr(self, word)]
        return " ".join(words)


HEADS = 2
CASES = (
    Case(batch=2, steps=7, start=True, grouped=False, reverse=False),
    Case(batch=1, steps=1, start=True, grouped=True, reverse=False),
    Case(batch=1, steps=7, start=False, grouped=True, reverse=True),
    Case(batch=3, steps=5, start=True, grouped=True, reverse=False, lengths=(3, 0, 2)),
)


def verify(
    program: Program,
    *,
    backends: Mapping[str, Runner] | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
    device: torch.device | str | None = None,
    cases: Sequence[Case] = CASES,
    exact: bool = True,
) -> Report:
    """Compare all ways to run a recurrence on random data that keeps its promises.

    First the exact SymPy trajectory with the float64 reference, at sizes of 2 or the least that the
    spec allows, and the proof of the normal form (see :mod:`.forms`); then the reference with each of
    ``backends`` (default: all that accept the spec) at ``sizes`` (default: small, different, no powers
    of two), for a batch and for packed sequences, for each of ``dtypes`` (default: float32, bfloat16, and
    float64 on a CPU). Kernels are never compared with kernels. ``device`` is where the backends run: a
    GPU if there is one. Takes seconds.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtypes is None:
        dtypes = (
            (torch.float32, torch.bfloat16) if place.type == "cuda" else (torch.float32, torch.float64, torch.bfloat16)
        )
    rows: list[Row] = []
    notes: list[str] = []
    if exact:
        for start in (True, False):
            generator = torch.Generator().manual_seed(seed)
            found, refusal = compare_exact(program, fitting_sizes(program, cycle(TINY)), generator, start=start)
            rows += found
        notes += [f"gradients are not compared with SymPy: {refusal}"] if refusal else []
        proved, wrong = compare_forms(program)
        rows += proved
        notes += wrong
    bound = fitting_sizes(program, cycle(SMALL), sizes)
    for dtype in dtypes:
        runners = backends
        variants: dict[tuple[str, Case], dict[str, Runner]] = {}
        if runners is None:
            runners, variants, refused = _accepting(Task(program, bound, dtype, place))
            notes += refused
        for case in cases if runners else ():
            if case.lengths is not None and not program.inputs:
                continue  # without a time axis there is nothing to pack
            rows += _compare(program, bound, runners, case, dtype, place, seed)
        for (way, case), varied in variants.items():
            if case.lengths is None or program.inputs:
                rows += _compare(program, bound, varied, case, dtype, place, seed, way)
    return Report(program.name, _worst(rows), tuple(dict.fromkeys(notes)))


def _accepting(task: Task) -> tuple[dict[str, Runner], dict[tuple[str, Case], dict[str, Runner]], list[str]]:
    """The backends that take a task, their variants by way, case and backend, and why the others refuse.

    The reference's token loop is the measure; its chunks are compared like a backend.
    """
    runners: dict[str, Runner] = {}
    variants: dict[tuple[str, Case], dict[str, Runner]] = {}
    refused = []
    for backend in BACKENDS:
        name, run = backend.name, backend.run
        if backend is REFERENCE:
            task, name, run = replace(task, strategy="chunk"), "reference:chunk", partial(run, strategy="chunk")
        reason = backend.refuses(task)
        if reason is not None:
            refused.append(f"backend {name} is not compared: {reason}")
            continue
        runners[name] = run
        for way, variant in backend.variants(task.program, task.sizes).items():
            variants.setdefault((way, _case_of(variant)), {})[name] = variant.run
    return runners, variants, refused


def _case_of(variant: Variant) -> Case:
    """The call that verifies a variant."""
    lengths = variant.lengths
    batch, steps = (1, variant.steps) if lengths is None else (len(lengths), sum(lengths))
    return Case(batch, steps, start=True, grouped=False, reverse=False, lengths=lengths)


def _compare(
    program: Program,
    sizes: Mapping[str, int],
    runners: Mapping[str, Runner],
    case: Case,
    dtype: torch.dtype,
    device: torch.device,
    seed: int,
    way: str = "",
) -> list[Row]:
    """One case on every backend; ``way`` names the variant of them that is run."""
    generator = torch.Generator().manual_seed(seed)
    lead = (case.batch if program.inputs or case.start else 1, case.steps, HEADS)
    drawn = draw(
        program, sizes, generator, batch=lead[0], steps=case.steps, heads=HEADS,
        start=case.start, grouped=case.grouped, lengths=case.lengths,
    )  # fmt: skip
    weights = draw_weights(program, sizes, generator, lead, case.lengths is not None)
    frozen = [p.name for p in program.params if p.frozen]
    rounded = drawn.to(dtype, frozen)

    def measured(arguments: Arguments, run: Runner, place: torch.device) -> dict[str, Quantity]:
        moved = arguments.on(place)
        there = {name: weight.to(place) for name, weight in weights.items()}
        return quantities(program, sizes, moved, there, run, reverse=case.reverse)

    here = torch.device("cpu")
    true = measured(rounded.to(torch.float64, frozen), reference.run, here)
    own = measured(rounded, reference.run, here)
    rows = []
    for name, run in runners.items():
        found = measured(rounded, run, device)
        for quantity, value in found.items():
            tolerance = TOLERANCES[dtype][value.kind]
            error = value.distance(true[quantity])
            allowed = max(tolerance, 2 * own[quantity].distance(true[quantity]))
            check = f"reference = {name}" + (", packed" if case.lengths is not None else "")
            kind = str(dtype).removeprefix("torch.")
            shown = f"{case} {way}".strip()
            rows.append(Row(program.name, check, kind, quantity, shown, error, tolerance, error / allowed))
    return rows


def _worst(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Of each quantity of each comparison the case that is nearest to failing, or farthest over."""
    worst: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.check, row.dtype, row.quantity)
        if key not in worst or row.ratio > worst[key].ratio:
            worst[key] = row
    return tuple(worst.values())
