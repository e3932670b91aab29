"""Native kernels as operators of torch: opcheck, torch.compile, torch.export, autocast, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from unit.cpu.agreement import arguments
from unit.kernels.against_reference import ROOT

import recurra
from recurra.compiler.options import Options
from recurra.runtime.ops import cpu_backend, generated
from recurra.runtime.recurrence import Recurrence

GRU = recurra.load(ROOT / "examples" / "zoo" / "gru.rec")
DELTA = recurra.load(ROOT / "examples" / "zoo" / "delta_net.rec")
SIZES = {"gru": {"D": 8}, "delta_net": {"K": 8, "V": 4}}
BY_NAME = {rec.name: rec for rec in (GRU, DELTA)}


def tensors(rec: Recurrence, steps: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Inputs and params that ask for gradients."""
    given = arguments(rec.program, SIZES[rec.name], steps=steps, start=False, seed=steps).to(dtype, ())
    return {**given.inputs, **given.params}


class Model(torch.nn.Module):
    """A recurrence of positional tensors, with its final state."""

    def __init__(self, rec: Recurrence) -> None:
        super().__init__()
        self.rec, self.names = rec, [*rec.inputs, *rec.params]

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(self.names, given, strict=True))
        o, final = self.rec(named, backend="cpu", return_state=True)
        (state,) = final.values()
        return o, state


def gradients(function: Any, given: Sequence[Tensor]) -> list[Tensor]:
    o, final = function(*given)
    return [o, final, *torch.autograd.grad(o.sum() + (final * final).sum(), list(given))]


def operators(dtype: torch.dtype, packed: bool = False) -> dict[str, tuple[Any, list[Any]]]:
    """The three operators of a GRU with arguments for each; of three packed sequences or a batch of two."""
    options = cpu_backend.kernel_options(Options(), {"x": torch.empty((), dtype=dtype)}, packed=packed)
    kernels = generated.kernels_for(cpu_backend.build, GRU.program, SIZES["gru"], options)
    named = {d: getattr(torch.ops.recurra, f"{kernels.name}_{d}").default for d in ("infer", "forward", "backward")}
    leaves = [tensor.detach() for tensor in tensors(GRU, 5, dtype).values()] + [torch.zeros(2, 2, 8)]
    lengths: tuple[Any, ...] = (5, False, None)
    if packed:
        leaves = [x[:1] if name in GRU.inputs else x for name, x in zip(tensors(GRU, 5), leaves[:-1], strict=True)]
        leaves, lengths = [*leaves, torch.zeros(3, 2, 8)], (5, False, torch.tensor([0, 2, 2, 5]))
    o, final, checkpoint = named["forward"](*leaves, *lengths)
    rest = [checkpoint, torch.ones_like(o), torch.ones_like(final)]
    calls = {"infer": leaves, "forward": leaves, "backward": [*leaves, *rest]}
    return {d: (named[d], [*args, *lengths]) for d, args in calls.items()}


@pytest.mark.parametrize("direction", ["infer", "forward", "backward"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_operators_keep_torchs_rules(dtype: torch.dtype, packed: bool, direction: str) -> None:
    operator, args = operators(dtype, packed)[direction]
    utilities = ("test_schema", "test_faketensor")
    assert set(torch.library.opcheck(operator, tuple(args), test_utils=utilities).values()) == {"SUCCESS"}


def test_results_are_tensors_of_their_own() -> None:
    for operator, args in operators(torch.float32).values():
        results = operator(*args)
        places = {t.untyped_storage().data_ptr() for t in (*results, *(a for a in args if isinstance(a, Tensor)))}
        assert len(places) == len(results) + sum(isinstance(a, Tensor) for a in args)


@pytest.mark.parametrize("name", BY_NAME)
def test_compile_whole_and_dynamic(name: str) -> None:
    """One graph for all lengths but 0 and 1, with the bits of eager calls."""
    model = Model(BY_NAME[name])
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for steps in (3, 6, 70):
        given = [*tensors(model.rec, steps).values()]
        for eager, traced in zip(gradients(model, given), gradients(compiled, given), strict=True):
            assert torch.equal(eager, traced)


@pytest.mark.parametrize("name", BY_NAME)
def test_packed_sequences_compile_whole_and_dynamic(name: str) -> None:
    """One graph for all numbers of them but 0 and 1; what is wrong about them leads to nothing outside."""
    rec = BY_NAME[name]

    def packed(cu_seqlens: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip([*rec.inputs, *rec.params], given, strict=True))
        o, final = rec(named, cu_seqlens=cu_seqlens, backend="cpu", return_state=True)
        return o, final[next(iter(rec.states))]

    graphs = []

    def count(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(packed, fullgraph=True, dynamic=True, backend="aot_eager")
    counted = torch.compile(packed, fullgraph=True, dynamic=True, backend=count)
    for bounds in ([0, 3, 3, 5], [0, 2, 6, 6, 7], [0, 70, 71]):
        cu_seqlens = torch.tensor(bounds)
        given = [
            x.detach()[:1].requires_grad_() if key in rec.inputs else x for key, x in tensors(rec, bounds[-1]).items()
        ]
        results = [gradients(partial(function, cu_seqlens), given) for function in (packed, compiled)]
        for eager, traced in zip(*results, strict=True):
            assert torch.equal(eager, traced)
        with torch.no_grad():
            assert torch.equal(counted(cu_seqlens, *given)[0], results[0][0])
            assert counted(cu_seqlens * -5 + 11, *given)[0].shape == results[0][0].shape
    assert len(graphs) == 1


def test_a_new_length_compiles_nothing() -> None:
    graphs = []

    def count(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = Model(DELTA)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    with torch.no_grad():
        for steps in (3, 5, 70):
            given = [*tensors(DELTA, steps).values()]
            assert torch.equal(compiled(*given)[0], model(*given)[0])
    assert len(graphs) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_traced_calls_take_the_kernels_of_eager_ones(dtype: torch.dtype) -> None:
    """What kernels are specialised to arrives whole, also where options are made while torch traces."""
    model, given = Model(DELTA), [*tensors(DELTA, 3, dtype).values()]
    eager = model(*given)
    built = len(generated._KERNELS)
    traced = torch.compile(model, fullgraph=True, backend="eager")(*given)
    assert len(generated._KERNELS) == built and all(map(torch.equal, eager, traced))


def test_kernels_are_compiled_while_torch_traces() -> None:
    """At sizes that nobody has called with before."""
    model = Model(DELTA)
    model(*tensors(DELTA, 3).values())
    leaves = arguments(DELTA.program, {"K": 6, "V": 7}, start=False).to(torch.float32, ())
    given = [*leaves.inputs.values()]
    built = len(generated._KERNELS)
    traced = gradients(torch.compile(model, fullgraph=True, backend="aot_eager"), given)
    assert len(generated._KERNELS) == built + 1
    assert all(map(torch.equal, traced, gradients(model, given)))


@pytest.mark.parametrize("name", BY_NAME)
def test_export(name: str) -> None:
    model = Model(BY_NAME[name])
    given = [tensor.detach() for tensor in tensors(model.rec, 5).values()]
    steps = torch.export.Dim("steps", min=2, max=256)
    shapes = [{1: steps}] * len(model.rec.inputs) + [None] * len(model.rec.params)
    exported = torch.export.export(model, tuple(given), dynamic_shapes={"given": tuple(shapes)})
    longer = [tensor.detach() for tensor in tensors(model.rec, 70).values()]
    assert all(map(torch.equal, exported.module()(*longer), model(*longer)))


def test_autocast() -> None:
    """Projections come in bfloat16, and so do outputs; kernels are as they are without, weights get their gradients."""
    project = torch.nn.Linear(8, 3 * 8)
    x = torch.randn(2, 5, 2, 8, generator=torch.Generator().manual_seed(0))
    params = {name: tensors(GRU, 5)[name] for name in GRU.params}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs = project(x).chunk(3, -1)
        o = GRU(dict(zip(GRU.inputs, inputs, strict=True)) | params, backend="cpu")
    assert inputs[0].dtype == o.dtype == torch.bfloat16
    outside = GRU(dict(zip(GRU.inputs, inputs, strict=True)) | params, backend="cpu")
    assert torch.equal(o, outside)
    leaves = [*project.parameters(), *params.values()]
    slopes = torch.autograd.grad(o.float().square().sum(), leaves)
    assert all(slope.dtype == torch.float32 and slope.abs().max() > 0 for slope in slopes)


# ---------------------------------------------------------------- what is refused

WAY_OUT = 'backend="reference"'


def test_second_derivatives_are_refused_with_the_way_out() -> None:
    given = [*tensors(DELTA, 3).values()]
    (first,) = torch.autograd.grad(Model(DELTA)(*given)[0].square().sum(), given[:1], create_graph=True)
    with pytest.raises(RuntimeError, match=WAY_OUT):
        first.sum().backward()


@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_and_vmap_are_refused_with_the_way_out(grad: bool) -> None:
    q, *rest = (tensor.detach().requires_grad_(grad) for tensor in tensors(DELTA, 3).values())

    def of_q(x: Tensor) -> Tensor:
        return Model(DELTA)(x, *rest)[0]

    with pytest.raises(RuntimeError, match=WAY_OUT):
        torch.func.jvp(of_q, (q,), (torch.ones_like(q),))
    with pytest.raises(RuntimeError, match=WAY_OUT):
        torch.func.vmap(of_q)(q[None])
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match=WAY_OUT):
        of_q(torch.autograd.forward_ad.make_dual(q, torch.ones_like(q)))
