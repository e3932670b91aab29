"""The chunk strategy's kernels against the float64 reference: every recurrence with chunks, lengths, shapes, memory."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from unit.kernels.against_reference import (
    UNSEEN,
    ZOO,
    arguments,
    changed,
    check,
    only,
    run,
    sizes_of,
    true,
    wrong,
)
from unit.kernels.against_reference import spec as from_text
from unit.kernels.test_hard_values import memory_full_of
from unit.kernels.test_lengths_and_layouts import KINDS, odd_strides
from unit.reference.chunk_specs import SPECS

from recurra.compiler.ir.program import Program
from recurra.compiler.kernels import applicable, compile_kernels
from recurra.compiler.options import KernelOptions
from recurra.runtime.verify.measure import draw_weights

TEXTS = {path.stem: path.read_text() for path in (*ZOO, *UNSEEN)}
TEXTS |= {name: f"recurrence {name}{text}" for name, text in SPECS.items()}
SCHEDULES = ("fused", "split")
LENGTHS = (5, 0, 1, 40, 0)


@cache
def spec(name: str) -> Program:
    """A recurrence of the zoo, an unseen one, or one of those made for chunks."""
    return from_text(TEXTS[name], f"{name}.rec")


def small(program: Program) -> dict[str, int]:
    return sizes_of(program, 3, 5)


def options(schedule: str = "fused", **more: object) -> KernelOptions:
    return KernelOptions(chunk=16, schedule=schedule, **more)  # type: ignore[arg-type]


NAMES = [name for name in TEXTS if "chunk" in applicable(spec(name), small(spec(name)))]
FEW = ("gated_delta_net", "kda", "gated_delta_product", "oja", "mlstm", "sub_steps", "members")
"""Decays per head, per channel and per column, sub-steps, passes, everything at once."""

every = pytest.mark.parametrize("name", NAMES)
some = pytest.mark.parametrize("name", FEW)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def test_every_kind_is_there() -> None:
    assert {*SPECS} - {*NAMES} == {"bounded", "coupled", "stabilised"}  # entry by entry: scans
    assert len(NAMES) > 40 and {*FEW} < {*NAMES}


@schedules
@every
def test_three_chunks(name: str, schedule: str) -> None:
    """All that is allocated is written before it is read."""
    program, sizes = spec(name), small(spec(name))
    given = arguments(program, sizes, steps=37, heads=1, batch=1)
    with memory_full_of(math.nan):
        found = run(program, sizes, given, "chunk", options=options(schedule))
    assert not wrong(program, sizes, given, found, true(program, sizes, given))


@every
def test_packed_grouped_backwards_from_the_declared_start(name: str) -> None:
    program, sizes = spec(name), small(spec(name))
    schedule = SCHEDULES[NAMES.index(name) % 2]
    given = arguments(program, sizes, lengths=(2, 0, 17), heads=2, start=False, grouped=True)
    with memory_full_of(math.nan):
        found = run(program, sizes, given, "chunk", options=options(schedule), reverse=True)
    assert not wrong(program, sizes, given, found, true(program, sizes, given, reverse=True), reverse=True)


@schedules
@some
def test_packed(name: str, schedule: str) -> None:
    program, sizes = spec(name), small(spec(name))
    given = arguments(program, sizes, lengths=LENGTHS, heads=1)
    check(program, sizes, given, "chunk", options=options(schedule))


@schedules
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0), (1,), (16, 32), (15, 17, 16)], ids=str)
@pytest.mark.parametrize("name", ["gated_delta_net", "mlstm"])
def test_few_packed_steps(name: str, lengths: tuple[int, ...], schedule: str) -> None:
    program, sizes = spec(name), small(spec(name))
    check(program, sizes, arguments(program, sizes, lengths=lengths, heads=1), "chunk", options=options(schedule))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["gated_delta_net", "mlstm"])
def test_each_sequence_has_the_bits_of_itself_alone(name: str, reverse: bool) -> None:
    program, sizes = spec(name), small(spec(name))
    given = arguments(program, sizes, lengths=LENGTHS)
    weights = draw_weights(program, sizes, torch.Generator().manual_seed(1), (5, given.steps, 2), packed=True)
    outputs = {o.name for o in program.outputs}
    whole = run(program, sizes, given, "chunk", options=options(), reverse=reverse, weights=weights)
    assert given.cu_seqlens is not None
    for i, (begin, end) in enumerate(pairwise(given.cu_seqlens.tolist())):
        inputs = {n: x[:, begin:end] for n, x in given.inputs.items()}
        alone = type(given)(inputs, given.params, {n: x[i : i + 1] for n, x in given.initial.items()}, end - begin)
        own = {n: w[:, begin:end] if n in outputs else w[i : i + 1] for n, w in weights.items()}
        found = run(program, sizes, alone, "chunk", options=options(), reverse=reverse, weights=own)
        for key, q in whole.items():
            if key.removeprefix("d ") not in given.params:
                part = q.value[:, begin:end] if q.time is not None else q.value[i : i + 1]
                assert torch.equal(part, found[key].value), (i, key)


@pytest.mark.parametrize("steps", [0, 1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("name", ["gated_delta_net", "kda", "mlstm"])
def test_chunks_of_sixty_four(name: str, steps: int) -> None:
    program, sizes = spec(name), small(spec(name))
    schedule = SCHEDULES[steps % 2]
    chosen = KernelOptions(schedule=schedule)
    rows = {k.layout.rows for k in compile_kernels(program, sizes, chosen, "chunk").kernels if "algorithm" in k.facts}
    assert rows == {64}
    # of the first draw the gradient of mlstm's start, a single number, cancels to 0.005: no digits are left to compare
    given = arguments(program, sizes, steps=steps, heads=1, seed=1)
    check(program, sizes, given, "chunk", options=chosen)


@pytest.mark.parametrize("steps", [0, 1, 15, 16, 17, 32])
@pytest.mark.parametrize("name", ["gated_delta_net", "kda", "gated_delta_product", "mlstm"])
def test_lengths(name: str, steps: int) -> None:
    program, sizes = spec(name), small(spec(name))
    schedule = SCHEDULES[(steps // 2) % 2]
    check(program, sizes, arguments(program, sizes, steps=steps, heads=1), "chunk", options=options(schedule))


@pytest.mark.parametrize("start", [False, True])
@some
def test_batches_groups_directions_and_start_states(name: str, start: bool) -> None:
    program, sizes = spec(name), small(spec(name))
    given = arguments(program, sizes, batch=2, steps=18, heads=2, start=start, grouped=True)
    check(program, sizes, given, "chunk", options=options(SCHEDULES[start]), reverse=start)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (17, 3), (60, 2), (2, 60)])
@pytest.mark.parametrize("name", ["gated_delta_net", "kda", "columns", "gated_delta_product"])
def test_sizes(name: str, shape: tuple[int, int]) -> None:
    program = spec(name)
    sizes = sizes_of(program, *shape)
    check(program, sizes, arguments(program, sizes, steps=18, heads=1), "chunk", options=options())


TILED = [("gated_delta_net", "V"), ("kda", "V"), ("mirrored", "K"), ("gsa", "V"), ("mlstm", "V")]


@schedules
@pytest.mark.parametrize(("name", "axis"), TILED)
def test_tiles_share_what_they_have_in_common(name: str, axis: str, schedule: str) -> None:
    """Gradients of keys and decays are sums over tiles."""
    program = spec(name)
    sizes = sizes_of(program, 3, 3) | {axis: 35}
    given = arguments(program, sizes, steps=18, heads=2, grouped=True)
    packed = arguments(program, sizes, lengths=(3, 0, 17), heads=1)
    tiled = options(schedule, tiles=((axis, 16),))
    for some_given in (given, packed):
        with memory_full_of(math.nan):
            found = run(program, sizes, some_given, "chunk", options=tiled)
        assert not wrong(program, sizes, some_given, found, true(program, sizes, some_given))


@pytest.mark.parametrize(("name", "axis"), [("oja", "K"), ("members", "V")])
def test_axes_that_outputs_sum_over_have_no_tiles(name: str, axis: str) -> None:
    program = spec(name)
    with pytest.raises(ValueError, match=f"tiles of 16 along {axis} do not work: its 35 entries depend on each other"):
        compile_kernels(program, sizes_of(program, 3, 3) | {axis: 35}, options(tiles=((axis, 16),)), "chunk")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gated_delta_net", "members"])
def test_strides(name: str, kind: str) -> None:
    program, sizes = spec(name), small(spec(name))
    given = arguments(program, sizes, batch=2, steps=18)
    strided = changed(given, **dict.fromkeys((*given.inputs, *given.params), lambda x: odd_strides(x, kind)))
    check(program, sizes, strided, "chunk", options=options(strided=True))


@pytest.mark.parametrize("used", [("o",), ("r",), ("z", "y"), ("final S",), ("final n", "r"), ("final W",), ()])
def test_gradients_from_one_place_only(used: tuple[str, ...]) -> None:
    program, sizes = spec("members"), small(spec("members"))
    given = arguments(program, sizes, steps=18, heads=1)
    weights = only(program, sizes, given, *used)
    check(program, sizes, given, "chunk", options=options(SCHEDULES[len(used) % 2]), weights=weights)
