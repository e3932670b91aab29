"""The algebra that parallel kernels rest on: passes and normal forms are the step itself, exactly."""

from __future__ import annotations

from collections.abc import Callable

from ...compiler.analysis.proof import NotProved, prove, prove_passes
from ...compiler.forms import pass_forms
from ...compiler.ir.program import Program
from .report import Row


def compare_forms(program: Program) -> tuple[list[Row], list[str]]:
    """A row for every pass that has a normal form, and one for the passes together; notes say what is wrong."""
    forms = pass_forms(program)
    rows: list[Row] = []
    notes: list[str] = []

    def row(check: str, quantity: str, proof: Callable[[], None]) -> None:
        error = 0.0
        try:
            proof()
        except NotProved as wrong:
            error = float("inf")
            notes.append(str(wrong))
        rows.append(Row(program.name, check, "exact", quantity, "any step", error, 0.0, error))

    if len(forms) > 1:
        parts = [part.program for part in forms]
        row("passes = step", "states and outputs", lambda: prove_passes(program, parts))
    for part in forms:
        form = part.form
        if form is not None:
            names = [f"{m.state}'" for m in form.members] + [name for name, _ in form.outputs]
            row("normal form = step", ", ".join(names), lambda p=part.program, f=form: prove(p, f))  # type: ignore[misc]
    return rows, notes
