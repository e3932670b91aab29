"""Products in the cheapest order: the same values, multiplied where they are small."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn import SIZES, programs
from hypothesis import given
from torch import Tensor
from unit.cpu.agreement import arguments
from unit.kernels.against_reference import UNSEEN, ZOO, sizes_of, spec, zoo

from recurra.compiler.autodiff.plan import plan
from recurra.compiler.autodiff.reverse import adjoint_step
from recurra.compiler.ir.program import Body, Initialiser, Program, live
from recurra.compiler.ir.types import Axis
from recurra.compiler.ir.verify import check_instr, check_program
from recurra.compiler.lower.factor import factor_adjoint, factor_program
from recurra.compiler.lower.split import split
from recurra.runtime.reference import evaluate

SPECS = pytest.mark.parametrize("path", [*ZOO, *UNSEEN], ids=lambda path: path.stem)


def core(path: Path) -> Program:
    """What kernels walk of a recurrence, as its author ordered it."""
    return split(spec(path.read_text(encoding="utf-8"), path.name)).core


def numbers(program: Program, sizes: Mapping[str, int]) -> dict[tuple[str, str], Tensor]:
    """Every leaf of one step [2, 1, 2, *axes], and the cotangents that enter its adjoint."""
    plain = replace(program, params=tuple(replace(param, init=Initialiser()) for param in program.params))
    given = arguments(plain, sizes, batch=2, steps=1, heads=2)
    generator = torch.Generator().manual_seed(2)
    found = {("input", name): x for name, x in given.inputs.items()}
    found |= {("param", name): x[None, None] for name, x in given.params.items()}
    found |= {("state", name): x[:, None] for name, x in given.initial.items()}
    for name, axes in [(s.name + "'", s.axes) for s in program.states] + [(o.name, o.axes) for o in program.outputs]:
        shape = (2, 1, 2, *(axis.size.bind(sizes) for axis in axes))
        found["cotangent", name] = torch.randn(shape, generator=generator, dtype=torch.float64)
    return found


def values(
    body: Body, roots: Iterable[int], leaves: Mapping[tuple[str, str], Tensor], sizes: Mapping[str, int]
) -> list[Tensor]:
    roots = tuple(roots)
    found = evaluate(body, roots, leaves, sizes, 3, full=(2, 1, 2))
    return [found[root].expand(2, 1, 2, *found[root].shape[3:]) for root in roots]


def assert_factoring_changes_no_value(program: Program, sizes: Mapping[str, int]) -> None:
    """Neither of the step nor of its adjoint, in float64 on random numbers."""
    leaves = numbers(program, sizes)
    factored = factor_program(program, sizes)
    check_program(factored)
    step = adjoint_step(factored)
    adjoint = factor_adjoint(step, sizes)
    for position, instr in enumerate(adjoint.body):
        check_instr(adjoint.body[:position], instr)
    assert adjoint.body[: step.own] == step.body[: step.own] and adjoint.next == step.next
    for (old_body, old_roots), (new_body, new_roots) in (
        ((program.body, program.roots()), (factored.body, factored.roots())),
        ((step.body, step.roots()), (adjoint.body, adjoint.roots())),
    ):
        expected, found = values(old_body, old_roots, leaves, sizes), values(new_body, new_roots, leaves, sizes)
        for x, y in zip(expected, found, strict=True):
            scale = max(1.0, float(x.abs().max()))
            torch.testing.assert_close(y, x, rtol=1e-9, atol=1e-12 * scale, equal_nan=True)


@SPECS
def test_values_of_every_recurrence(path: Path) -> None:
    program = core(path)
    for sizes in (sizes_of(program, 3, 2), sizes_of(program, 2, 5)):
        assert_factoring_changes_no_value(program, sizes)


@given(programs(kinks=True, size=12))
def test_values_of_drawn_programs(program: Program) -> None:
    assert_factoring_changes_no_value(program, SIZES)


def test_values_of_products_under_other_axes() -> None:
    """A sum that is transposed, or goes by other names, keeps what it sums over."""
    head = "recurrence r\ndims K, V\nstate S[K, V]\ninput q[K], k[K], v[V]\nparam W[K, V], U[V, V]\n"
    text = head + "transition S' = S + k * (2 * (W @ S.T).T @ W) - outer(k, v)\n"
    text += "output o[K, V] = (U @ S'.T).T * (q @ S')\n"
    assert_factoring_changes_no_value(spec(text), {"K": 3, "V": 2})
    text = "recurrence r\ndims M, N = 2 * M\nstate S[N, M]\ninput z[N], a[M]\nparam W[M, N]\n"
    text += "transition S' = S + outer(concat(W @ z, sum(S, N)) + z, a)\noutput o[M] = z @ S'\n"
    assert_factoring_changes_no_value(spec(text), {"M": 3, "N": 6})


# ---------------------------------------------------------------- what it saves


def walked(body: Body, position: int) -> tuple[Axis, ...]:
    """The axes that an operation walks, one for each loop; none for what takes no time."""
    instr = body[position]
    match instr.op:
        case "leaf" | "const" | "size" | "broadcast":
            return ()
        case "contract":
            operands = (body[arg].axes for arg in instr.args)
            sides = [zip(labels, axes, strict=True) for labels, axes in zip(instr.attrs, operands, strict=False)]
            return tuple({label: axis for pairs in sides for label, axis in pairs}.values())
        case "sum" | "amax":
            return body[instr.args[0]].axes
    return instr.axes


def operations(body: Body, roots: Iterable[int], axes: Iterable[str], first: int = 0) -> list[str]:
    """The operations that walk all of the given axes, from a position on."""
    names = set(axes)
    return [body[p].op for p in sorted(live(body, roots)) if p >= first and names <= {a.name for a in walked(body, p)}]


def cost(body: Body, roots: Iterable[int], sizes: Mapping[str, int]) -> int:
    """The entries that all operations with axes walk."""
    loops = (walked(body, position) for position in live(body, roots))
    return sum(math.prod(axis.size.bind(sizes) for axis in axes) for axes in loops if axes)


SAVED = {
    "delta_net": 0.51,
    "delta_net_neg": 0.51,
    "gated_delta_net": 0.69,
    "gated_delta_product": 0.46,
    "kda": 0.55,
    "mlstm": 0.7,
    "slot_memory": 0.81,
    "two_sided_delta": 0.65,
    "two_sided_delta_free": 0.62,
}
"""What is left of the operations of a step and its adjoint at K = 64, V = 48."""


@SPECS
def test_operations_of_every_recurrence(path: Path) -> None:
    """At most a tenth more than as written, where nothing can be saved; gradients of weights stay products."""
    program = core(path)
    sizes = sizes_of(program, 64, 48)
    factored = factor_program(program, sizes)
    written, step = adjoint_step(program), adjoint_step(factored)
    adjoint = factor_adjoint(step, sizes)
    assert cost(factored.body, factored.roots(), sizes) <= 1.01 * cost(program.body, program.roots(), sizes)
    left = cost(adjoint.body, adjoint.roots(), sizes) / cost(written.body, written.roots(), sizes)
    assert left <= SAVED.get(path.stem, 1.1)
    before, after = ({product.param for product in plan(found).products} for found in (step, adjoint))
    assert before <= after


STEP = """recurrence r
dims K, V
state S[K, V]
input k[K], v[V], r[V], beta
transition S' = {}
output o[V] = k @ S'
"""


def factored(value: str, sizes: Mapping[str, int]) -> Program:
    return factor_program(split(spec(STEP.format(value))).core, sizes)


@pytest.mark.parametrize("sizes", [{"K": 3, "V": 5}, {"K": 5, "V": 3}], ids=str)
def test_a_scale_goes_to_the_smaller_vector(sizes: dict[str, int]) -> None:
    """``beta * outer(k, v)`` is an outer product of which one side is scaled."""
    program = factored("S + beta * outer(k, v)", sizes)
    body = program.body
    assert operations(body, [program.states[0].next], "KV") == ["contract", "add"]
    small = min(sizes, key=lambda name: sizes[name])
    (scaled,) = (i for i in (body[p] for p in live(body, program.roots())) if i.op == "mul")
    assert [axis.name for axis in scaled.axes] == [small]


def test_terms_share_a_factor() -> None:
    """Two outer products with one key are one, with the difference of what is written."""
    program = factored("S - outer(k, r) + outer(k, v)", {"K": 8, "V": 8})
    assert operations(program.body, [program.states[0].next], "KV") == ["contract", "add"]
    assert operations(program.body, [program.states[0].next], "V")[:-2] == ["neg", "add"]


def test_what_shares_no_factor_stays() -> None:
    program = factored("S - outer(k, r) + outer(tanh(k), v)", {"K": 8, "V": 8})
    assert sorted(operations(program.body, [program.states[0].next], "KV")) == ["add", "contract", "contract", "sub"]


def test_the_delta_rule_in_as_few_operations_as_by_hand() -> None:
    """Per entry of the state and step: four forward (read, write, add, read out) and eight backward.

    Backward these are an outer product and an addition for each of the two cotangents that a step adds to
    the state's, and four products with vectors: those of the erased value, the query and the key's two uses.
    """
    program = split(zoo("delta_net")).core
    sizes = {"K": 16, "V": 16}
    plain = operations(program.body, program.roots(), "KV")
    step = factor_program(program, sizes)
    assert sorted(operations(step.body, step.roots(), "KV")) == ["add", "contract", "contract", "contract"]
    assert len(plain) > 4
    adjoint = factor_adjoint(adjoint_step(step), sizes)
    backward = operations(adjoint.body, adjoint.roots(), "KV", adjoint.own)
    assert len(backward) <= 8
    written = adjoint_step(program)
    assert len(operations(written.body, written.roots(), "KV", written.own)) > 8
