"""Every pass of a recurrence with its affine normal form, or why it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .analysis.affine import AffineForm, NotAffine, affine_form
from .analysis.describe import Names, describe, headline, lines
from .analysis.infix import Infix, Printed
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


# ---------------------------------------------------------------- for people


def describe_passes(program: Program) -> list[dict[str, Any]]:
    """What the passes of a recurrence are, as plain data: states, outputs, and ``form`` or ``reason`` with its line.

    ``handed`` are the values of a pass that later ones read.
    """
    found = []
    names: dict[tuple[str, str], Printed] = {}
    for part in pass_forms(_primed(program)):
        handed = _handed_names(part, names)
        data: dict[str, Any] = {
            "states": [s.name for s in part.program.states],
            "outputs": [output.name for output in part.program.outputs if output.name not in part.made.handed],
            "handed": [text for text, _ in handed.values()],
        }
        if part.form is not None:
            data["form"] = describe(part.program, part.form, names)
            for name in part.made.handed:
                del data["form"]["outputs"][name]  # it is in "handed" as the author would write it
        elif part.reason is not None:
            span = part.reason.span
            line = None if span is None else program.source.position(span.start)[0]
            data["reason"] = {"text": part.reason.text, "line": line}
        found.append(data)
        names |= handed
    return found


def _primed(program: Program) -> Program:
    """The same program, in which values that are new states are called so: ``m'``."""
    body = list(program.body)
    for state in program.states:
        if body[state.next].op not in ("leaf", "const", "size"):
            body[state.next] = replace(body[state.next], name=f"{state.name}'")
    return replace(program, body=tuple(body))


def _handed_names(part: PassForm, names: Names) -> dict[tuple[str, str], Printed]:
    """What a pass hands on, as the author would write it: ``m`` or ``m'``, and reads of states."""
    show = Infix(part.program.body, names)
    values = {output.name: output.value for output in part.program.outputs}
    return {("input", name): show.printed(values[name]) for name in part.made.handed}


def pass_lines(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """What :func:`describe_passes` found, as lines; the ones of a pass below its first are indented."""
    found = []
    for index, part in enumerate(data):
        first = f"pass {index + 1}: " if len(data) > 1 else ""
        if "form" in part:
            found.append(first + headline(part["form"]))
            found += [f"  {line}" for line in lines(part["form"])]
        else:
            where = f" on line {part['reason']['line']}" if part["reason"]["line"] is not None else ""
            states = ", ".join(part["states"])
            found.append(f"{first}none for {states or 'it'}: {part['reason']['text']}{where}")
        if part["handed"]:
            found.append(f"  hands on {', '.join(part['handed'])}")
    return found
