"""Random diagonal-plus-low-rank recurrences have a normal form, proved, and the same for both ways to write them."""

from __future__ import annotations

import re

from affine_specs import AffineSpec, specs
from hypothesis import given, settings
from unit.analysis.specs import compiled, shown

from recurra.compiler.analysis.affine import affine_form
from recurra.compiler.analysis.describe import describe
from recurra.compiler.analysis.proof import prove


@given(specs(most_steps=2))
@settings(max_examples=30)
def test_forms_are_the_step(spec: AffineSpec) -> None:
    program = compiled(spec.text())
    form = affine_form(program)
    prove(program, form)
    assert form.mix.name == "K" or spec.column_read


@given(specs())
@settings(max_examples=40)
def test_operators_and_free_form_are_one(spec: AffineSpec) -> None:
    assert shown(compiled(spec.text())) == shown(compiled(spec.text(operators=True)))


@given(specs(most_steps=2))
@settings(max_examples=6)
def test_the_operator_form_is_proved(spec: AffineSpec) -> None:
    program = compiled(spec.text(operators=True))
    prove(program, affine_form(program))


@given(specs(numbers=False))  # products of numbers are folded
@settings(max_examples=40)
def test_what_is_printed_compiles_to_the_same_form(spec: AffineSpec) -> None:
    text = spec.text()
    program = compiled(text)
    found = describe(program, affine_form(program))
    for state, lines in found["transition"].items():
        block = "transition {\n" + "\n".join(lines) + "\n}"
        text = re.sub(rf"transition {{\n  {state}' = [^}}]*}}", lambda _, block=block: block, text)  # type: ignore[misc]
    assert describe(compiled(text), affine_form(compiled(text))) == found
