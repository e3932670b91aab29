"""Whole runs of the torch reference: against SymPy, against itself cut in two, and at the edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sympy
import torch
from drawn import HERE, K, V, programs
from hypothesis import given, settings
from torch import Tensor

from recurra.compiler.analysis.exact import Numbers, as_float
from recurra.compiler.analysis.symbolic import NotExact, Trajectory, entries, trajectory
from recurra.compiler.ir.builder import Builder
from recurra.compiler.ir.program import Initialiser, Input, Output, Param, Program, State
from recurra.compiler.ir.types import EVERYTHING, Axes, Interval
from recurra.dsl.source import Source
from recurra.runtime.reference import run

SIZES = {"K": 2, "V": 3}
DOUBLE = torch.float64


def matrix_memory(write: Callable[[Builder, int], int] = lambda b, x: x) -> Program:
    """S' = f S + (1 - f) tanh(S W + k v^T), o = q S', r = q S: an output of the old state too."""
    b = Builder()
    S = b.leaf("state", "S", (K, V))
    q, k, v = b.leaf("input", "q", (K,)), b.leaf("input", "k", (K,)), b.leaf("input", "v", (V,))
    x, W = b.leaf("input", "x"), b.leaf("param", "W", (V, V))
    f = b.apply("sigmoid", x)
    inner = b.add(b.contract(S, W, (0, 1), (1, 2), (0, 2)), b.contract(k, v, (0,), (1,), (0, 1)))
    new = write(b, b.add(b.mul(f, S), b.mul(b.sub(b.const(1.0), f), b.apply("tanh", inner))))
    o, r = (b.contract(q, state, (0,), (0, 1), (1,)) for state in (new, S))
    start = b.const(0.25)
    inputs = {"q": (K,), "k": (K,), "v": (V,), "x": ()}
    return program(
        b,
        (State("S", (K, V), start, new, HERE),),
        inputs,
        {"W": (V, V)},
        (Output("o", (V,), o, HERE), Output("r", (V,), r, HERE)),
    )


def program(
    b: Builder,
    states: tuple[State, ...],
    inputs: dict[str, Axes],
    params: dict[str, Axes],
    outputs: tuple[Output, ...],
) -> Program:
    return Program(
        "demo",
        "",
        (),
        (),
        states,
        tuple(Input(name, axes, EVERYTHING, False, HERE) for name, axes in inputs.items()),
        tuple(Param(name, axes, Initialiser(), False, HERE) for name, axes in params.items()),
        (),
        outputs,
        tuple(b.body),
        None,
        Source("demo.rec", ""),
    )


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).requires_grad_()


def data(
    batch: int = 2, steps: int = 5, heads: int = 4
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    inputs = {
        "q": random(batch, steps, heads, 2, seed=1),
        "k": random(batch, steps, 1, 2, seed=2),
        "v": random(batch, steps, 2, 3, seed=3),
        "x": random(batch, steps, heads, seed=4),
    }
    return inputs, {"W": random(heads, 3, 3, seed=5)}, {"S": random(batch, heads, 2, 3, seed=6)}


def test_an_independent_loop_agrees() -> None:
    inputs, params, initial = data()
    (o, r), (final,) = run(matrix_memory(), SIZES, inputs, params, initial, steps=5)
    S = initial["S"]
    for t in range(5):
        q, x = inputs["q"][:, t], inputs["x"][:, t, :, None, None]
        k = inputs["k"][:, t].expand(2, 4, 2)
        v = inputs["v"][:, t][:, [0, 0, 1, 1]]
        torch.testing.assert_close(r[:, t], torch.einsum("bhk,bhkv->bhv", q, S))
        inner = torch.einsum("bhkv,hvw->bhkw", S, params["W"]) + k[..., :, None] * v[..., None, :]
        S = x.sigmoid() * S + (1 - x.sigmoid()) * inner.tanh()
        torch.testing.assert_close(o[:, t], torch.einsum("bhk,bhkv->bhv", q, S))
    torch.testing.assert_close(final, S)


@given(programs(kinks=True))
@settings(max_examples=25)
def test_two_steps_are_the_exact_trajectory(drawn: Program) -> None:
    found = trajectory(drawn, 2, SIZES, initial=["h"])
    values = {s: sympy.Rational((i * 29) % 17 - 8, 9) for i, s in enumerate(found.symbols.values())}
    tensors = arguments(drawn, found, values, 2)
    outputs, final = run(drawn, SIZES, *tensors, steps=2)
    numbers = Numbers(values)

    def expected(value: object, shape: torch.Size) -> Tensor:
        assert isinstance(value, dict)
        return torch.tensor([as_float(numbers(x)) for x in value.values()], dtype=DOUBLE).reshape(shape)

    close = {"rtol": 1e-11, "atol": 1e-11}
    for output, tensor in zip(drawn.outputs, outputs, strict=True):
        for t in range(2):
            torch.testing.assert_close(
                tensor[0, t, 0], expected(found.outputs[output.name][t], tensor[0, t, 0].shape), **close
            )
    for state, tensor in zip(drawn.states, final, strict=True):
        torch.testing.assert_close(tensor[0, 0], expected(found.states[state.name][-1], tensor[0, 0].shape), **close)


def arguments(
    drawn: Program, found: Trajectory, values: dict[object, object], steps: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    def tensor(name: str, axes: Axes, step: int | None) -> Tensor:
        flat = [float(values[found.symbols[name, step, e]]) for e in entries(axes, SIZES)]  # type: ignore[arg-type]
        return torch.tensor(flat, dtype=DOUBLE).reshape([axis.size.bind(SIZES) for axis in axes])

    inputs = {
        i.name: torch.stack([tensor(i.name, i.axes, t) for t in range(steps)])[None, :, None] for i in drawn.inputs
    }
    params = {p.name: tensor(p.name, p.axes, None)[None] for p in drawn.params}
    return inputs, params, {"h": tensor("h", drawn.states[0].axes, None)[None, None]}


@given(programs())
@settings(max_examples=15)
def test_a_run_is_two_halves_joined_by_the_state(drawn: Program) -> None:
    inputs = {"x": random(2, 5, 1, 2, seed=1), "g": random(2, 5, 2, seed=2)}
    params = {"W": random(2, 3, 3, seed=3), "w": random(2, 2, 3, seed=4)}
    whole, final = run(drawn, SIZES, inputs, params, {}, steps=5)
    first, middle = run(drawn, SIZES, {n: x[:, :2] for n, x in inputs.items()}, params, {}, steps=2)
    joined = {s.name: value for s, value in zip(drawn.states, middle, strict=True)}
    second, end = run(drawn, SIZES, {n: x[:, 2:] for n, x in inputs.items()}, params, joined, steps=3)
    for one, a, b in zip(whole, first, second, strict=True):
        torch.testing.assert_close(one, torch.cat([a, b], 1))
    for one, last in zip(final, end, strict=True):
        torch.testing.assert_close(one, last)


def test_reverse_runs_right_to_left() -> None:
    inputs, params, initial = data()
    backward, final = run(matrix_memory(), SIZES, inputs, params, initial, steps=5, reverse=True)
    flipped = {name: x.flip(1) for name, x in inputs.items()}
    forward, same = run(matrix_memory(), SIZES, flipped, params, initial, steps=5)
    for a, b in zip((*backward, *final), (*(o.flip(1) for o in forward), *same), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [[5, 0, 1, 7, 0], [0, 0], [], [3]])
def test_packed_sequences_run_each_by_itself(lengths: list[int], reverse: bool) -> None:
    steps = sum(lengths)
    inputs = {name: x[:1] for name, x in data(steps=steps)[0].items()}
    _, params, _ = data()
    starts = random(len(lengths), 4, 2, 3, seed=9)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    outputs, (final,) = run(
        matrix_memory(), SIZES, inputs, params, {"S": starts}, steps=steps, reverse=reverse, cu_seqlens=cu_seqlens
    )
    assert outputs[0].shape == (1, steps, 4, 3) and final.shape == (len(lengths), 4, 2, 3)
    for i, length in enumerate(lengths):
        begin, end = cu_seqlens[i : i + 2].tolist()
        own = {name: x[:, begin:end] for name, x in inputs.items()}
        start = {"S": starts[i : i + 1]}
        alone, (last,) = run(matrix_memory(), SIZES, own, params, start, steps=length, reverse=reverse)
        assert torch.equal(final[i], last[0])
        assert all(torch.equal(o[:, begin:end], x) for o, x in zip(outputs, alone, strict=True))


def test_packed_sequences_are_differentiable_twice() -> None:
    inputs = {name: x[:1] for name, x in data(steps=3)[0].items()}
    _, params, _ = data()
    leaves = [x.detach().requires_grad_() for x in (*inputs.values(), *params.values(), random(3, 4, 2, 3, seed=9))]

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip((*inputs, *params, "S"), given, strict=True))
        group = {name: named[name] for name in inputs}, {name: named[name] for name in params}, {"S": named["S"]}
        outputs, final = run(matrix_memory(), SIZES, *group, steps=3, cu_seqlens=torch.tensor([0, 1, 1, 3]))
        return (*outputs, *final)

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("steps", [0, 1])
def test_short_sequences(steps: int) -> None:
    inputs, params, initial = data(steps=steps)
    (o, _), (final,) = run(matrix_memory(), SIZES, inputs, params, initial, steps=steps)
    assert o.shape == (2, steps, 4, 3)
    if not steps:
        assert torch.equal(final, initial["S"])
        (slope,) = torch.autograd.grad(final.sum(), initial["S"])
        assert torch.equal(slope, torch.ones_like(slope))


def test_a_missing_state_starts_as_declared() -> None:
    inputs, params, _ = data()
    given_start = {"S": torch.full((2, 4, 2, 3), 0.25, dtype=DOUBLE)}
    missing = run(matrix_memory(), SIZES, inputs, params, {}, steps=5)
    given_ = run(matrix_memory(), SIZES, inputs, params, given_start, steps=5)
    assert torch.equal(missing[0][0], given_[0][0])
    assert torch.equal(run(matrix_memory(), SIZES, *data(steps=0)[:2], {}, steps=0)[1][0], given_start["S"])


def test_no_inputs() -> None:
    b = Builder()
    z, A = b.leaf("state", "z", (V,)), b.leaf("param", "A", (V,))
    new = b.mul(A, z)
    start = b.const(1.0)
    demo = program(b, (State("z", (V,), start, new, HERE),), {}, {"A": (V,)}, (Output("o", (V,), new, HERE),))
    (o,), (final,) = run(demo, SIZES, {}, {"A": torch.full((2, 3), 2.0)}, {}, steps=3)
    assert o.dtype == torch.float32
    assert o[0, :, 1, 2].tolist() == [2.0, 4.0, 8.0] and final.tolist() == [[[8.0] * 3] * 2]
    (o,), _ = run(demo, SIZES, {}, {"A": torch.ones(2, 3)}, {"z": torch.ones(5, 2, 3)}, steps=0)
    assert o.shape == (5, 0, 2, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_computes_in_float32_and_answers_in_the_inputs_dtype(dtype: torch.dtype) -> None:
    inputs, params, initial = data()
    narrow = {name: x.detach().to(dtype) for name, x in inputs.items()}
    others = [{name: x.detach().float() for name, x in group.items()} for group in (params, initial)]
    (o, _), (final,) = run(matrix_memory(), SIZES, narrow, *others, steps=5)
    assert o.dtype == dtype and final.dtype == torch.float32
    wide = {name: x.double() for name, x in narrow.items()}
    exact = [{name: x.double() for name, x in group.items()} for group in others]
    (true, _), (last,) = run(matrix_memory(), SIZES, wide, *exact, steps=5)
    torch.testing.assert_close(o, true.to(dtype))
    torch.testing.assert_close(final.double(), last, rtol=1e-5, atol=1e-6)


def test_first_and_second_derivatives() -> None:
    inputs, params, initial = data(batch=1, steps=2, heads=2)
    inputs["v"] = random(1, 2, 2, 3, seed=3)
    names = [*inputs, "W", "S"]

    def whole(*tensors: Tensor) -> tuple[Tensor, ...]:
        at = dict(zip(names, tensors, strict=True))
        outputs, final = run(
            matrix_memory(), SIZES, {n: at[n] for n in inputs}, {"W": at["W"]}, {"S": at["S"]}, steps=2
        )
        return (*outputs, *final)

    tensors = (*inputs.values(), *params.values(), *initial.values())
    assert torch.autograd.gradcheck(whole, tensors)
    assert torch.autograd.gradgradcheck(whole, tensors)


def test_clip_grad_clamps_each_step_of_each_sequence_and_head() -> None:
    b = Builder()
    h, x = b.leaf("state", "h"), b.leaf("input", "x")
    scale = b.emit("clip_grad", (b.leaf("param", "w"),), (1.0,))
    start = b.const(0.0)
    new, out = b.add(h, b.mul(scale, x)), b.mul(scale, x)
    demo = program(b, (State("h", (), start, new, HERE),), {"x": ()}, {"w": ()}, (Output("o", (), out, HERE),))
    x = torch.tensor([[[0.25], [10.0]], [[0.125], [0.125]]], dtype=DOUBLE)
    w = torch.ones(1, dtype=DOUBLE, requires_grad=True)
    (o,), _ = run(demo, {}, {"x": x}, {"w": w}, {}, steps=2)
    assert torch.autograd.grad(o.sum(), w)[0].item() == 0.25 + 1.0 + 0.25


def test_what_the_loop_computes_is_clipped_once_although_an_output_reads_it_too() -> None:
    demo = matrix_memory(lambda b, new: b.emit("clip_grad", (new,), (1e-3,), (K, V)))
    inputs, params, initial = data(steps=1)
    (o, _), (final,) = run(demo, SIZES, inputs, params, initial, steps=1)
    x, W = inputs["x"].sigmoid()[:, 0, :, None, None], params["W"]
    (slope,) = torch.autograd.grad(o.sum() + 100 * final.sum(), initial["S"])
    inner = torch.einsum("bhkv,hvw->bhkw", initial["S"], W)
    inner = inner + inputs["k"][:, 0, [0] * 4, :, None] * inputs["v"][:, 0, [0, 0, 1, 1], None, :]
    through = torch.einsum("bhkw,hvw->bhkv", (1 - x) * (1 - inner.tanh() ** 2), W) + x
    torch.testing.assert_close(slope, 1e-3 * through)


def test_memory_of_the_backward_is_linear_in_the_steps() -> None:
    def saved(steps: int) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        inputs, params, initial = data(steps=steps)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(matrix_memory(), SIZES, inputs, params, initial, steps=steps)
        return total

    assert saved(40) - saved(20) == saved(60) - saved(40)


def test_symbols_and_gradients_of_a_trajectory() -> None:
    demo = matrix_memory()
    demo = replace(demo, inputs=tuple(replace(i, range=Interval(0.0)) for i in demo.inputs))
    found = trajectory(demo, 1, {"K": 1, "V": 1})
    names = {str(symbol) for symbol in found.symbols.values()}
    assert names == {"q_0_0", "k_0_0", "v_0_0", "x_0", "W_0_0"}
    q, x = found.symbols["q", 0, (0,)], found.symbols["x", 0, ()]
    assert found.outputs["r"][0][0,] == q / 4
    assert found.gradient(found.outputs["r"][0][0,], q) == sympy.Rational(1, 4)
    o = found.outputs["o"][0][0,]
    assert sympy.simplify(found.gradient(o, x) - o.diff(x)) == 0
    values = {("x", 0, ()): 0, ("W", None, (0, 0)): 0, ("k", 0, (0,)): 0}
    fixed = trajectory(demo, 1, {"K": 1, "V": 1}, values)
    assert fixed.outputs["o"][0][0,] == fixed.symbols["q", 0, (0,)] / 8


def test_symbols_of_different_leaves_never_coincide() -> None:
    b = Builder()
    h, x, w = b.leaf("state", "h"), b.leaf("input", "x"), b.leaf("param", "x_0")
    start = b.const(0.0)
    new = b.add(h, b.mul(x, w))
    demo = program(b, (State("h", (), start, new, HERE),), {"x": ()}, {"x_0": ()}, (Output("o", (), new, HERE),))
    assert len(set(trajectory(demo, 1, {}).symbols.values())) == 2


def test_no_symbolic_gradient_through_clip_grad() -> None:
    demo = matrix_memory(lambda b, new: b.emit("clip_grad", (new,), (1.0,), (K, V)))
    found = trajectory(demo, 1, SIZES)
    with pytest.raises(NotExact, match="demo uses clip_grad"):
        found.gradient(found.outputs["o"][0][0,], found.symbols["x", 0, ()])
