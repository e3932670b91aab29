"""Bytes and launches against numbers counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import recurra
from recurra.runtime.bench.shape import Shape
from recurra.runtime.bench.traffic import Launch, Traffic, asked, moved, recorded, traffic
from recurra.runtime.ops import triton_backend
from recurra.runtime.ops.launch import observed

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
B, T, H, CHUNKS = 2, 100, 3, 2
STEPS, HEADS = B * T * H, B * H


def found(name: str, sizes: dict[str, int], way: str = "fused", **settings: str) -> Traffic:
    chosen = {"strategy": "chunk", "schedule": way} if way in ("fused", "split") else {"strategy": way}
    program = recurra.load(ZOO / f"{name}.rec").program
    return traffic(program, Shape(B, T, H, sizes), torch.bfloat16, **{**chosen, **settings})


def kernels(launches: tuple[Launch, ...]) -> dict[str, Launch]:
    return {launch.name: launch for launch in launches if launch.generated}


@pytest.mark.parametrize("K, V", [(64, 64), (48, 32)])
def test_linear_attention_fused(K, V):
    """Padding and the last chunk's missing rows are not moved."""
    result = found("linear_attention", {"K": K, "V": V})
    inputs, output, state = 2 * STEPS * (2 * K + V), 2 * STEPS * V, HEADS * K * V
    kept = CHUNKS * 2 * state
    (forward,), (backward,) = kernels(result.forward).values(), kernels(result.backward).values()
    assert (forward.read, forward.written) == (inputs, output + kept + 4 * state)
    assert (backward.read, backward.written) == (inputs + output + kept, inputs)  # nothing of end and start states
    assert forward.loaded == forward.read
    assert [launch.name for launch in result.both] == [
        "linear_attention_chunk_forward",
        "linear_attention_chunk_backward",
    ]


def test_gated_delta_net_fused():
    K, V = 64, 64
    result = found("gated_delta_net", {"K": K, "V": V})
    inputs, output, state = 2 * STEPS * (2 * K + V + 2), 2 * STEPS * V, HEADS * K * V
    kept = CHUNKS * (2 * state + HEADS * 2 * 64 * 64)  # states and inverses
    params = 4 * 2 * H
    (forward,), (backward,) = kernels(result.forward).values(), kernels(result.backward).values()
    assert (forward.read, forward.written) == (inputs + params, output + kept + 4 * state)
    assert backward.read == inputs + params + output + kept
    assert backward.written == inputs + 4 * 2 * HEADS  # gradients of params, a part for each sequence
    (total,) = (launch for launch in result.backward if launch.name == "sum")
    assert (total.read, total.written) == (4 * 2 * HEADS, 4 * 2 * H)
    assert moved(result.both) == sum(launch.read + launch.written for launch in result.both)


def test_gated_delta_net_split():
    K, V = 64, 64
    result = found("gated_delta_net", {"K": K, "V": V}, "split")
    keys, values, gates = 2 * STEPS * K, 2 * STEPS * V, 2 * STEPS
    state, inverse, params = HEADS * K * V, CHUNKS * HEADS * 2 * 64 * 64, 4 * 2 * H
    kept = CHUNKS * 2 * state
    prepare, states, outputs = kernels(result.forward).values()
    assert (prepare.read, prepare.written) == (keys + 2 * gates + params, inverse)
    assert (states.read, states.written) == (keys + values + 2 * gates + params + inverse, kept + 4 * state)
    assert outputs.read == 2 * keys + values + 2 * gates + params + inverse + kept
    assert outputs.written == values
    assert [name.rsplit("_", 1)[1] for name in kernels(result.backward)] == ["costates", "gradients"]


def test_what_several_programs_read_is_moved_once():
    """128 rows and 256 columns are held by two programs: each reads keys, and their parts of gradients are summed."""
    K, V = 128, 256
    result = found("linear_attention", {"K": K, "V": V})
    keys, values = 2 * STEPS * K, 2 * STEPS * V
    (forward,), (backward,) = kernels(result.forward).values(), kernels(result.backward).values()
    assert forward.read == 2 * keys + values and forward.loaded == 2 * 2 * keys + values
    written = 2 * 2 * (2 * keys) + values  # float32 and twice: gradients of queries and keys
    assert backward.written == written
    sums = [launch for launch in result.backward if launch.name == "sum"]
    assert [(s.read, s.written) for s in sums] == [(2 * 2 * keys, 2 * keys)] * 2
    casts = [launch for launch in result.backward if launch.name == "_to_copy"]
    assert [(s.read, s.written) for s in casts] == [(2 * keys, keys)] * 2
    assert asked(result.forward) - moved(result.forward) == 2 * keys


def test_slices_are_parts():
    """Each of the two rows of a step reads its own part of the keys."""
    K, V = 64, 64
    result = found("gated_delta_product", {"K": K, "V": V})
    (forward,) = kernels(result.forward).values()
    assert forward.read == 2 * STEPS * (K + 2 * (K + V + 1) + 1)


def test_a_scan_reads_and_writes_once():
    D = 64
    result = found("hgrn", {"D": D}, "scan")
    (forward,), (backward,) = kernels(result.forward).values(), kernels(result.backward).values()
    values, state = 2 * STEPS * D, 4 * HEADS * D
    assert forward.read == 2 * values + state
    assert values + state < forward.written < 1.2 * values  # with a state for every block
    assert backward.written == 2 * values + state


def test_segments_are_counted_as_they_are_walked():
    """Steps of the recurrent strategy: a trajectory of states is written and read, in one segment or several."""
    program, sizes = recurra.load(ZOO / "m2rnn.rec").program, {"K": 64, "V": 64}
    short = traffic(program, Shape(1, 16384, 1, sizes), torch.bfloat16, strategy="recurrent")
    long = traffic(program, Shape(1, 65536, 1, sizes), torch.bfloat16, strategy="recurrent")
    assert len(kernels(short.backward)) == 2 and len([x for x in long.backward if x.generated]) > 2
    assert moved(long.backward) == pytest.approx(4 * moved(short.backward), rel=0.01)
    assert moved(short.backward) > 2 * 4 * 16384 * 64 * 64


def test_strategies_that_do_not_apply():
    with pytest.raises(ValueError, match="does not apply"):
        found("hgrn", {"D": 64}, "fused")


def test_operations_of_torch():
    x = torch.empty(4, 8, device="meta")

    def call() -> None:
        torch.empty_like(x).fill_(1.0)
        x.view(8, 4).mT[:2].detach()
        x.to(torch.float32)
        x.flatten()
        x.expand(3, 4, 8).sum(0)
        torch.zeros(2, device="meta").add_(x[0, :2])
        torch.zeros(0, device="meta")

    _, launches = recorded(call)
    listed = [(launch.name, launch.read, launch.written) for launch in launches]
    assert listed == [("fill_", 0, 128), ("sum", 128, 128), ("zeros", 0, 8), ("add_", 16, 8)]


@pytest.mark.parametrize("name, way", [("gated_delta_net", "fused"), ("gla", "split"), ("hgrn", "scan")])
def test_the_same_is_launched_with_data(name, way):
    """Calls without data take the same path as others."""
    recurrence = recurra.load(ZOO / f"{name}.rec")
    sizes = {dim: 16 for dim in recurrence.dims}
    chosen = {"strategy": "chunk", "schedule": way} if way in ("fused", "split") else {"strategy": way}
    program = recurrence.program
    counted = traffic(program, Shape(1, 5, 1, sizes), torch.float32, **chosen)
    shapes = {i.name: (1, 5, 1, *(16 for _ in i.axes)) for i in program.inputs}
    inputs = {name: torch.rand(shape, requires_grad=True) for name, shape in shapes.items()}
    params = {p.name: torch.rand(1, *(16 for _ in p.axes), requires_grad=True) for p in program.params}
    options = triton_backend.KernelOptions(schedule=chosen.get("schedule", "auto"))
    seen: list[str] = []
    with observed(lambda kernel, *_: seen.append(kernel.name)):
        outputs, _ = triton_backend.run(
            program, sizes, inputs, params, {}, steps=5, strategy=chosen["strategy"], options=options
        )
        sum(output.sum() for output in outputs).backward()
    assert seen == [launch.name for launch in counted.both if launch.generated]
