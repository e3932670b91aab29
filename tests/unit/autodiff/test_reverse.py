"""The reverse pass against torch's own differentiation of the same body."""

from __future__ import annotations

import pytest
import torch
from drawn import HERE, SIZES, Drawn, K, V, bodies, programs
from hypothesis import given
from torch import Tensor

from recurra.compiler.autodiff.reverse import AdjointStep, adjoint_step, reverse
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.program import Initialiser, Output, Param, Program, State
from recurra.compiler.ir.types import Axes
from recurra.compiler.ir.verify import check_instr, check_program
from recurra.dsl.source import Source, Span
from recurra.runtime.reference import evaluate


def numbers(axes: Axes, seed: int, grad: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = [axis.size.bind(SIZES) for axis in axes]
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def check(drawn: Drawn) -> None:
    b = drawn.builder
    seeds = {root: b.leaf("cotangent", str(root), b.axes(root)) for root in drawn.roots}
    found = reverse(b, seeds, drawn.leaves)
    body = tuple(b.body)
    for position, instr in enumerate(body):
        check_instr(body[:position], instr)
    leaves = {("input", f"x{i}"): numbers(b.axes(leaf), i) for i, leaf in enumerate(drawn.leaves)}
    for position, instr in enumerate(body):
        if instr.op == "leaf" and instr.attrs[0] == "cotangent":
            leaves[instr.attrs] = numbers(instr.axes, 50 + position, grad=False)
    values = evaluate(body, drawn.roots, leaves, SIZES, 0)
    loss = sum(((values[r] * leaves["cotangent", str(r)]).sum() for r in drawn.roots), torch.zeros(()))
    inputs = [leaves["input", f"x{i}"] for i in range(len(drawn.leaves))]
    expected: list[Tensor | None] = [None] * len(inputs)
    if loss.requires_grad:
        expected = list(torch.autograd.grad(loss, inputs, allow_unused=True))
    ours = evaluate(body, [c for c in found.values() if c is not None], leaves, SIZES, 0)
    for leaf, true in zip(drawn.leaves, expected, strict=True):
        value = found[leaf]
        if value is None:
            assert true is None or not true.any()
        else:
            torch.testing.assert_close(ours[value], torch.zeros_like(ours[value]) if true is None else true)


@given(bodies())
def test_smooth_bodies(drawn: Drawn) -> None:
    check(drawn)


@given(bodies(kinks=True))
def test_bodies_with_kinks(drawn: Drawn) -> None:
    check(drawn)


@given(bodies(size=5))
def test_the_adjoint_of_an_adjoint(drawn: Drawn) -> None:
    b = drawn.builder
    first = reverse(b, {r: b.leaf("cotangent", f"first {r}", b.axes(r)) for r in drawn.roots}, drawn.leaves)
    slopes = [c for c in first.values() if c is not None]
    check(Drawn(b, drawn.leaves, tuple(dict.fromkeys(slopes))))


def test_nothing_is_emitted_for_what_does_not_reach() -> None:
    b = Builder()
    x, y = b.leaf("input", "x", (K,)), b.leaf("input", "y", (K,))
    out = b.mul(b.apply("tanh", x), b.apply("exp", y))
    g = b.leaf("cotangent", "o", (K,))
    before = len(b.body)
    found = reverse(b, {out: g}, [y])
    assert [instr.op for instr in b.body[before:]] == ["mul", "mul"]
    assert found[y] == len(b.body) - 1
    assert reverse(b, {b.apply("tanh", x): g}, [y]) == {y: None}
    assert reverse(b, {}, [y]) == {y: None}


def test_adjoint_instructions_carry_the_primal_span() -> None:
    b = Builder()
    x = b.leaf("input", "x", (K,))
    b.span = Span(3, 9)
    out = b.apply("tanh", x)
    b.span = None
    end = len(b.body)
    reverse(b, {out: b.leaf("cotangent", "o", (K,))}, [x])
    assert {instr.span for instr in b.body[end + 1 :]} == {Span(3, 9)}
    assert b.span is None


def test_values_that_are_state_and_output_add_their_cotangents() -> None:
    b = Builder()
    h, W, U = b.leaf("state", "h", (V,)), b.leaf("param", "W", (V,)), b.leaf("param", "U", (V,))
    start = b.const(0.0)
    out = b.mul(b.mul(W, h), U)
    program = Program(
        "p",
        "",
        (),
        (),
        (State("h", (V,), start, out, HERE),),
        (),
        (Param("W", (V,), Initialiser(), False, HERE), Param("U", (V,), Initialiser(), True, HERE)),
        (),
        (Output("o", (V,), out, HERE),),
        tuple(b.body),
        None,
        Source("p.rec", ""),
    )
    check_program(program)
    step = adjoint_step(program)
    assert [name for name, _ in step.seeds] == ["h'", "o"]
    assert [name for name, _ in step.params] == ["W"]
    assert step.body[: len(program.body)] == program.body
    leaves = {("state", "h"): torch.tensor([1.0, 2, 3]), ("param", "W"): torch.tensor([4.0, 5, 6])}
    leaves |= {("param", "U"): torch.ones(3), ("cotangent", "h'"): torch.ones(3), ("cotangent", "o"): torch.ones(3)}
    values = evaluate(step.body, step.roots(), leaves, SIZES, 0)
    assert [values[v].tolist() for _, v in (*step.states, *step.params) if v is not None] == [
        [8.0, 10.0, 12.0],
        [2.0, 4.0, 6.0],
    ]


@given(programs(kinks=True))
def test_adjoint_of_a_step(program: Program) -> None:
    check_program(program)
    step: AdjointStep = adjoint_step(program)
    declared = [("input", i.name, i.axes) for i in program.inputs]
    declared += [("param", p.name, p.axes) for p in program.params]
    declared += [("state", s.name, s.axes) for s in program.states]
    leaves = {(kind, name): numbers(axes, n) for n, (kind, name, axes) in enumerate(declared)}
    loss = torch.zeros((), dtype=torch.float64)
    for n, (name, leaf) in enumerate(step.seeds):
        leaves["cotangent", name] = numbers(step.body[leaf].axes, 90 + n, grad=False)
    values = evaluate(program.body, program.roots(), leaves, SIZES, 0)
    for value, (name, _) in zip(program.roots(), step.seeds, strict=True):
        loss = loss + (values[value] * leaves["cotangent", name]).sum()
    asked = [leaves[kind, name] for kind, name, _ in declared]
    expected = torch.autograd.grad(loss, asked, allow_unused=True)
    found = evaluate(step.body, step.roots(), leaves, SIZES, 0)
    cotangents = [*step.inputs, *step.params, *step.states]
    assert [name for name, _ in cotangents] == [name for _, name, _ in declared]
    for (_, value), true, leaf in zip(cotangents, expected, asked, strict=True):
        ours = torch.zeros_like(leaf) if value is None else found[value]
        torch.testing.assert_close(ours, torch.zeros_like(leaf) if true is None else true)


@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_clip_grad_clamps_what_flows_back(bound: float) -> None:
    b = Builder()
    x = b.leaf("input", "x", (K,))
    clipped = b.emit("clip_grad", (x,), (bound,), (K,))
    g = b.leaf("cotangent", "o", (K,))
    cotangent = reverse(b, {b.apply("square", clipped): g}, [x])[x]
    assert cotangent is not None
    leaves = {("input", "x"): torch.tensor([3.0, 0.1]), ("cotangent", "o"): torch.ones(2)}
    found = evaluate(tuple(b.body), [cotangent], leaves, SIZES, 0)[cotangent]
    torch.testing.assert_close(found, torch.tensor([bound, 0.2]))
