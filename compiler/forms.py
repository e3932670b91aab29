"""Every pass of a recurrence with its affine normal form, or why it has none."""

from __future__ import annotations

from dataclasses import dataclass

from .analysis.affine import AffineForm, NotAffine, affine_form
from .analysis.linear import Reason
from .ir.program import Program
from .lower.passes import NotSeparable, Pass, passes


@dataclass(frozen=True)
class PassForm:
    """A pass and its normal form; without one, ``reason`` says why."""

    made: Pass
    form: AffineForm | None
    reason: Reason | None

    @property
    def program(self) -> Program:
        return self.made.program


def pass_forms(program: Program) -> tuple[PassForm, ...]:
    """The passes of a recurrence in order; one with everything if its states cannot be taken apart."""
    try:
        found = passes(program, lambda draft: isinstance(form_or_reason(draft), AffineForm))
    except NotSeparable:
        found = (Pass(program, ()),)
    return tuple(_with_form(made) for made in found)


def form_or_reason(program: Program) -> AffineForm | Reason:
    """The normal form of a program, or why it has none."""
    try:
        return affine_form(program)
    except NotAffine as error:
        return error.reason


def _with_form(made: Pass) -> PassForm:
    form = form_or_reason(made.program)
    return PassForm(made, None, form) if isinstance(form, Reason) else PassForm(made, form, None)
