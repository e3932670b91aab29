"""Kernels as operators of torch: opcheck, torch.compile, torch.export, and what they refuse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import recurra
from recurra.compiler.options import KernelOptions
from recurra.runtime.ops import generated, triton_backend

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
DELTA = recurra.load(ZOO / "delta_net.rec")
SIZES = {"K": 8, "V": 4}


def arguments(steps: int, grad: bool = True) -> dict[str, Tensor]:
    """Inputs of a delta rule with two heads."""
    generator = torch.Generator().manual_seed(steps)
    shapes = {"q": (2, steps, 2, 8), "k": (2, steps, 2, 8), "v": (2, steps, 2, 4), "beta": (2, steps, 2)}
    return {name: torch.rand(shape, generator=generator).requires_grad_(grad) for name, shape in shapes.items()}


def run(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, strategy: str = "recurrent") -> tuple[Tensor, Tensor]:
    o, final = DELTA(q=q, k=k, v=v, beta=beta, backend="triton", strategy=strategy, return_state=True)
    return o, final["S"]


def gradients(function: Any, given: dict[str, Tensor]) -> list[Tensor]:
    o, final = function(**given)
    return [o, final, *torch.autograd.grad(o.sum() + (final * final).sum(), list(given.values()))]


def operators(packed: bool = False, strategy: str = "auto") -> dict[str, tuple[Any, list[Any]]]:
    """The three operators of the delta rule with arguments for each; of three packed sequences or a batch of two."""
    kernels = generated.kernels_for(triton_backend.build, DELTA.program, SIZES, KernelOptions(packed=packed), strategy)
    named = {d: getattr(torch.ops.recurra, f"{kernels.name}_{d}").default for d in ("infer", "forward", "backward")}
    given = [tensor.detach()[: 1 if packed else 2] for tensor in arguments(5).values()]
    leaves = [*given, torch.zeros(3 if packed else 2, 2, 8, 4)]
    lengths = (5, False, torch.tensor([0, 2, 2, 5]) if packed else None)
    o, final, *kept = named["forward"](*leaves, *lengths)
    rest = [*kept, torch.ones_like(o), torch.ones_like(final)]
    calls = {"infer": leaves, "forward": leaves, "backward": [*leaves, *rest]}
    return {d: (named[d], [*args, *lengths]) for d, args in calls.items()}


STRATEGIES = pytest.mark.parametrize("strategy", ["chunk", "recurrent", "stepwise"])


@STRATEGIES
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("direction", ["infer", "forward", "backward"])
def test_operators_keep_torchs_rules(direction: str, packed: bool, strategy: str) -> None:
    operator, args = operators(packed, strategy)[direction]
    utilities = ("test_schema", "test_faketensor")
    assert set(torch.library.opcheck(operator, tuple(args), test_utils=utilities).values()) == {"SUCCESS"}


@STRATEGIES
def test_compile_whole_and_dynamic(strategy: str) -> None:
    by_strategy = partial(run, strategy=strategy)
    compiled = torch.compile(by_strategy, fullgraph=True, dynamic=True, backend="aot_eager")
    for steps in (3, 6):
        given = arguments(steps)
        for eager, traced in zip(gradients(by_strategy, given), gradients(compiled, given), strict=True):
            assert torch.equal(eager, traced)


@STRATEGIES
def test_packed_sequences_compile_whole_and_dynamic(strategy: str) -> None:
    def packed(cu_seqlens: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        named = {"backend": "triton", "strategy": strategy, "return_state": True}
        o, final = DELTA(given, cu_seqlens=cu_seqlens, **named)
        return o, final["S"]

    compiled = torch.compile(packed, fullgraph=True, dynamic=True, backend="aot_eager")
    for bounds in ([0, 3, 3, 5], [0, 2, 6, 6, 7]):
        given = {name: x.detach()[:1].requires_grad_() for name, x in arguments(bounds[-1]).items()}
        results = [gradients(partial(function, torch.tensor(bounds)), given) for function in (packed, compiled)]
        for eager, traced in zip(*results, strict=True):
            assert torch.equal(eager, traced)


def test_a_new_length_compiles_nothing() -> None:
    graphs = []

    def count(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(partial(run, strategy="auto"), fullgraph=True, dynamic=True, backend=count)
    with torch.no_grad():
        for steps in (3, 5, 7):
            compiled(**arguments(steps, grad=False))
    assert len(graphs) == 1


@STRATEGIES
def test_export(strategy: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
            return run(q, k, v, beta, strategy)[0]

    given = arguments(5, grad=False)
    steps = torch.export.Dim("steps", min=2, max=64)
    exported = torch.export.export(Model(), tuple(given.values()), dynamic_shapes=[{1: steps}] * 4)
    longer = arguments(9, grad=False)
    assert torch.equal(exported.module()(*longer.values()), run(**longer, strategy=strategy)[0])


def test_second_derivatives_are_refused_with_the_way_out() -> None:
    given = arguments(3)
    (first,) = torch.autograd.grad(run(**given)[0].sum(), [given["q"]], create_graph=True)
    with pytest.raises(RuntimeError, match='backend="reference"'):
        first.sum().backward()


def test_forward_mode_and_vmap_are_refused_with_the_way_out() -> None:
    given = arguments(3, grad=False)

    def of_q(q: Tensor) -> Tensor:
        return run(**{**given, "q": q})[0]

    with pytest.raises(RuntimeError, match='backend="reference"'):
        torch.func.jvp(of_q, (given["q"],), (torch.ones_like(given["q"]),))
    with pytest.raises(RuntimeError, match='backend="reference"'):
        torch.func.vmap(of_q)(given["q"][None])


def test_outputs_are_tensors_of_their_own() -> None:
    operator, args = operators()["forward"]
    results = operator(*args)
    places = {t.untyped_storage().data_ptr() for t in (*results, *(a for a in args if isinstance(a, Tensor)))}
    assert len(places) == len(results) + sum(isinstance(a, Tensor) for a in args)
