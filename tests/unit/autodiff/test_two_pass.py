"""The two-pass backward against the float64 reference, before any kernel is made of it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from affine_specs import AffineSpec, specs
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from two_pass_specs import SPECS, ZOO_NAMES, program_of
from two_pass_walk import Walk

from recurra.compiler.analysis.affine import NotAffine, affine_form
from recurra.compiler.autodiff.two_pass import NotTwoPass, TwoPass, two_pass
from recurra.compiler.frontend import elaborate
from recurra.compiler.ir.program import Program
from recurra.dsl import Source, parse
from recurra.runtime import reference
from recurra.runtime.verify.data import draw, fitting_sizes
from recurra.runtime.verify.measure import draw_weights, quantities
from recurra.runtime.verify.metric import distance


@cache
def passes_of(name: str, apart: bool) -> TwoPass:
    program = program_of(name)
    return two_pass(program, affine_form(program), apart=apart)


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("name", [*SPECS, *ZOO_NAMES])
def test_gradients_are_those_of_the_reference(name: str, apart: bool) -> None:
    compare(program_of(name), passes_of(name, apart), 7)


def compare(program: Program, passes: TwoPass, steps: int) -> None:
    """AssertionError unless walking the passes gives the reference's gradients, in float64."""
    sizes = fitting_sizes(program, (3, 5))
    frozen = [p.name for p in program.params if p.frozen]
    drawn = draw(program, sizes, torch.Generator().manual_seed(0), batch=2, steps=steps, heads=2, start=True)
    arguments = drawn.to(torch.float64, frozen)
    weights = draw_weights(program, sizes, torch.Generator().manual_seed(1), (2, steps, 2))
    expected = quantities(program, sizes, arguments, weights, reference.run)
    leaves = {("input", n): x.detach() for n, x in arguments.inputs.items()}
    leaves |= {("param", n): x.detach()[None] for n, x in arguments.params.items()}
    cotangents = {o.name: weights[o.name].double() for o in program.outputs}
    cotangents |= {s.name: weights[f"final {s.name}"].double() for s in program.states}
    starts = {n: x.detach() for n, x in arguments.initial.items()}
    for restart in (3, 100):
        found = Walk(passes, sizes, leaves, steps).gradients(starts, cotangents, restart)
        for (kind, leaf), value in found.items():
            true = expected[f"d {leaf}"].value
            assert distance(value, true, 1) <= 1e-9, (kind, leaf)
        missing = {leaf for _, leaf in leaves} - {leaf for _, leaf in found} - set(frozen)
        assert all(not expected[f"d {leaf}"].value.any() for leaf in missing), missing


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(most_steps=2), st.booleans())
def test_drawn_recurrences(drawn: AffineSpec, apart: bool) -> None:
    program = elaborate(parse(Source("drawn.rec", drawn.text())))
    try:
        passes = two_pass(program, affine_form(program), apart=apart)
    except (NotAffine, NotTwoPass):
        reject()
    compare(program, passes, 4)


def test_a_decay_that_comes_as_such_is_not_divided_by() -> None:
    program = program_of("gated_delta_product")
    with pytest.raises(NotTwoPass, match="`alpha` would be divided by it"):
        two_pass(program, affine_form(program), apart=False)


def test_only_vectors_are_kept() -> None:
    for name in (*SPECS, *ZOO_NAMES):
        passes = passes_of(name, apart=False)
        kept = [o for o in passes.forward.outputs if o.name in passes.kept]
        assert all(len(output.axes) <= 1 for output in kept)
