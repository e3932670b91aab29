"""Passes: strata and chains of memories, one after the other, are the recurrence itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Generator, Tensor
from unit.analysis.specs import compiled, named

from recurra.compiler.analysis.affine import AffineForm
from recurra.compiler.analysis.proof import prove_passes
from recurra.compiler.checks.sizes import fitting_sizes
from recurra.compiler.forms import form_or_reason, pass_forms
from recurra.compiler.ir.program import Program
from recurra.compiler.ir.verify import check_program
from recurra.compiler.lower.passes import NotSeparable, Pass, passes
from recurra.runtime import reference
from recurra.runtime.verify.data import draw


def fits(program: Program) -> bool:
    return isinstance(form_or_reason(program), AffineForm)


def never(program: Program) -> bool:
    return False


STRATA = {
    "mlstm": [("m", ""), ("C n", "h")],
    "gsa": [("Sk", ""), ("Sv", "o")],
    "rwkv4": [("mx", ""), ("num", ""), ("den", "o")],
    "mamba3_siso": [("v", ""), ("angle", ""), ("k", ""), ("S", "y")],
    "running_softmax": [("top", ""), ("sum_w", "log_w"), ("sum_v", "average")],
    "momentum_delta": [("S M", "o")],
    "slstm": [("y c n m", "o")],
    "lstm": [("h c", "y")],
    "lru": [("hr hi", "y")],
    "gated_delta_net": [("S", "o")],
    "signed_normaliser": [("S n", "o")],
}


def visible(found: Pass) -> str:
    return " ".join(o.name for o in found.program.outputs if o.name not in found.handed)


@pytest.mark.parametrize("name", STRATA)
def test_strata(name: str) -> None:
    found = passes(named(name), fits)
    assert [(" ".join(s.name for s in p.program.states), visible(p)) for p in found] == STRATA[name]
    for part in found:
        check_program(part.program)
        used = {instr.attrs for instr in part.program.body if instr.op == "leaf"}
        assert {("input", i.name) for i in part.program.inputs} <= used, "inputs that it does not read are left out"


def test_groups_of_one_level_stay_apart_unless_they_fit() -> None:
    assert len(passes(named("mlstm"), never)) == 3
    assert len(passes(named("rwkv4"), lambda program: True)) == 2


def test_a_prefix_of_the_chain_does_not_know_the_rest() -> None:
    """The first passes are those of the recurrence without what comes after them."""
    text = (
        "recurrence r\ndims K, V\nstate m = -inf, S[K, V]\ninput q[K], k[K], v[V], f\n"
        "transition m' = max(m, f)\ntransition S' = exp(m - m') * S + exp(f - m') * outer(k, v)\n"
    )
    short = compiled(text + "output top = m'\n")
    whole = compiled(text + "output top = m'\noutput o[V] = q @ S'\n")
    first, _ = passes(short, fits)
    same, second = passes(whole, fits)
    assert first.program.body == same.program.body and first.handed == same.handed
    assert [o.name for o in same.program.outputs] == ["top", *same.handed]
    assert [i.name for i in second.program.inputs] == ["q", "k", "v", "f", *same.handed]


def test_handed_names_are_new() -> None:
    text = (
        "recurrence r\ndims K, V\nstate m = -inf, S[K, V]\ninput q[K], k[K], v[V], f, between_0_0\n"
        "transition m' = max(m, f + between_0_0)\ntransition S' = exp(m - m') * S + outer(k, v)\noutput o[V] = q @ S'\n"
    )
    program = compiled(text)
    found = passes(program, fits)
    assert found[0].handed == ("between_0_0_", "between_0_1")
    prove_passes(program, [part.program for part in found])


WHOLE = (
    "recurrence r\ndims K, V\nstate A[K, V], B[K, V]\ninput q[K], k[K], v[V]\n"
    "transition A' = A + outer(k, v)\ntransition B' = tanh(A') + B\noutput o[V] = q @ B'\n"
)


def test_a_later_part_that_needs_a_matrix() -> None:
    with pytest.raises(NotSeparable, match="a later part reads all of `A`"):
        passes(compiled(WHOLE), fits)
    (part,) = pass_forms(compiled(WHOLE))
    assert part.form is None and part.reason is not None
    assert part.reason.text == "`B` reads `A`, which shares its stratum"


# ---------------------------------------------------------------- run one after the other

Tensors = Mapping[str, Tensor]


def chained(found: tuple[Pass, ...], sizes: Mapping[str, int], inputs: Tensors, params: Tensors, initial: Tensors,
            steps: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """Outputs and final states of the passes on the reference, each over all steps before the next begins."""
    known = dict(inputs)
    final: dict[str, Tensor] = {}
    for part in found:
        program = part.program
        outputs, states = reference.run(
            program,
            sizes,
            {i.name: known[i.name] for i in program.inputs},
            {p.name: params[p.name] for p in program.params},
            {s.name: initial[s.name] for s in program.states if s.name in initial},
            steps=steps,
        )
        known |= {o.name: value for o, value in zip(program.outputs, outputs, strict=True)}
        final |= {s.name: value for s, value in zip(program.states, states, strict=True)}
    return known, final


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("name", ["mlstm", "gsa", "rwkv4", "mamba3_siso", "running_softmax"])
def test_passes_run_as_the_whole(name: str, start: bool) -> None:
    program = named(name)
    sizes = fitting_sizes(program, (3, 5, 4, 6))
    given = draw(program, sizes, Generator().manual_seed(1), batch=2, steps=6, heads=2, start=start)
    outputs, states = reference.run(program, sizes, given.inputs, given.params, given.initial, steps=6)
    found, final = chained(passes(program, fits), sizes, given.inputs, given.params, given.initial, 6)
    for output, value in zip(program.outputs, outputs, strict=True):
        torch.testing.assert_close(found[output.name], value, rtol=1e-12, atol=1e-12)
    for state, value in zip(program.states, states, strict=True):
        torch.testing.assert_close(final[state.name], value, rtol=1e-12, atol=1e-12)
