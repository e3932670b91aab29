"""The lines of the CPU benchmark: which recurrence, how large, against what, and how much faster it is to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import recurra
from recurra.runtime.bench.contenders import subject
from recurra.runtime.bench.data import draw_arguments
from recurra.runtime.bench.eager import compiled
from recurra.runtime.bench.floors import Floor, forward_floor, training_floor
from recurra.runtime.bench.shape import Shape, shape_of
from recurra.runtime.bench.side_by_side import Contender, Direction

from . import delta_net, hgrn, m2rnn, mamba, rnn

ZOO = Path(__file__).resolve().parents[2] / "examples" / "zoo"
CPU = torch.device("cpu")

LOOP = "eager PyTorch loop"
CHUNKED = "chunked PyTorch, eager or compiled"


@dataclass(frozen=True)
class Rival:
    """A reference: ``call`` takes the named tensors of the recurrence and gives its output.

    Of the rivals of one ``group`` the fastest counts. ``compiled``: it runs under ``torch.compile``.
    """

    name: str
    group: str
    call: Callable[..., Tensor]
    compiled: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table: a zoo recurrence at a shape, its rivals, and by group how many times as fast it is to be
    as the best of them, forward and forward + backward. ``small`` is the shape at which rivals are proved right.
    """

    name: str
    shape: Mapping[str, int]
    small: Mapping[str, int]
    rivals: tuple[Rival, ...]
    targets: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Work:
    """A line at one shape and dtype, ready to run: its ``own`` contender and the rivals of every group.

    ``as_own`` puts the gradients of rivals in the order of the subject's leaves.
    """

    own: Contender
    rivals: Mapping[str, tuple[Contender, ...]]
    as_own: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
    floors: Mapping[Direction, Floor]
    shape: Shape


def _chunked(name: str, function: Callable[..., Tensor], **settings: Any) -> tuple[Rival, Rival]:
    """A chunked form as it is and under torch.compile."""
    call = partial(function, **settings)
    return Rival(name, CHUNKED, call), Rival(f"{name}, compiled", CHUNKED, call, compiled=True)


LINES = (
    Line(
        "hgrn",
        {"B": 8, "T": 2048, "H": 1, "D": 512},
        {"B": 2, "T": 64, "H": 2, "D": 5},
        (
            Rival("loop", LOOP, hgrn.loop),
            *_chunked("two passes, chunk 16", hgrn.two_passes, chunk=16),
            *_chunked("two passes, chunk 32", hgrn.two_passes, chunk=32),
            *_chunked("log space, chunk 16", hgrn.in_log_space, chunk=16),
        ),
        {LOOP: (5, 12), CHUNKED: (3.5, 3)},
    ),
    Line(
        "delta_net",
        {"B": 2, "T": 1024, "H": 4, "K": 64, "V": 64},
        {"B": 2, "T": 128, "H": 2, "K": 8, "V": 5},
        (
            Rival("loop", LOOP, delta_net.loop),
            Rival("loop, as the formula reads", LOOP, delta_net.loop_on_heads),
            *_chunked("WY, chunk 64", delta_net.chunked, chunk=64),
            *_chunked("WY, chunk 32", delta_net.chunked, chunk=32),
            *_chunked("WY, chunk 32, squaring", delta_net.chunked, chunk=32, squaring=True),
        ),
        {LOOP: (25, 30), CHUNKED: (4, 3.5)},
    ),
    Line(
        "m2rnn",
        {"B": 2, "T": 512, "H": 4, "K": 64, "V": 64},
        {"B": 2, "T": 9, "H": 3, "K": 5, "V": 4},
        (Rival("loop", LOOP, m2rnn.loop),),
        {LOOP: (6, 5)},
    ),
    Line(
        "gru",
        {"B": 16, "T": 512, "H": 1, "D": 256},
        {"B": 3, "T": 9, "H": 1, "D": 5},
        (),
        {"torch.nn.GRU": (1.8, 1.8)},
    ),
    Line(
        "lstm",
        {"B": 16, "T": 512, "H": 1, "D": 256},
        {"B": 3, "T": 9, "H": 1, "D": 5},
        (),
        {"torch.nn.LSTM": (1.3, 1.3)},
    ),
    Line(
        "mamba",
        {"B": 2, "T": 1024, "H": 1, "D": 512, "N": 16},
        {"B": 2, "T": 9, "H": 1, "D": 5, "N": 3},
        (Rival("loop", LOOP, mamba.loop), Rival("loop, decays at once", LOOP, mamba.loop_on_decays)),
        {LOOP: (10, 15)},
    ),
)


def work_of(line: Line, sizes: Mapping[str, int], dtype: torch.dtype, backend: str, *, compiling: bool) -> Work:
    """A line ready to run; compiled rivals only if ``compiling``."""
    recurrence = recurra.load(ZOO / f"{line.name}.rec")
    shape = shape_of(recurrence, sizes)
    if line.name in rnn.GATES:
        return _layer_work(line, recurrence, shape, dtype, backend)
    arguments = draw_arguments(recurrence.program, shape, dtype, CPU)
    own = subject(recurrence, shape, arguments, backend, dtype)
    tensors = {**arguments.inputs, **arguments.params}
    rivals = {
        group: tuple(
            Contender(rival.name, _call(rival, tensors), own.leaves)
            for rival in line.rivals
            if rival.group == group and (compiling or not rival.compiled)
        )
        for group in line.targets
    }
    program = recurrence.program
    floors: dict[Direction, Floor] = {
        "forward": forward_floor(program, shape, dtype),
        "forward + backward": training_floor(program, shape, dtype),
    }
    return Work(own, rivals, lambda gradients: gradients, floors, shape)


def _call(rival: Rival, tensors: Mapping[str, Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    def call(**named: Tensor) -> Tensor:
        return rival.call(**named)

    function = compiled(call) if rival.compiled else call
    return lambda: (function(**tensors),)


def _layer_work(line: Line, recurrence: recurra.Recurrence, shape: Shape, dtype: torch.dtype, backend: str) -> Work:
    """A layer of torch.nn and the zoo's recurrence behind projections, with the same input and weights."""
    torch.manual_seed(0)
    kind, width = line.name, shape.sizes["D"]
    layer = rnn.layer_of(kind, width, dtype)
    x = torch.randn(shape.batch, shape.steps, width, dtype=dtype, requires_grad=True)
    weights = {
        name: value.detach().clone().requires_grad_()
        for name, value in rnn.in_zoo_form(kind, *layer.parameters()).items()
    }
    (group,) = line.targets

    def as_own(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        moved = rnn.gradients_in_zoo_form(kind, *gradients[1:])
        return (gradients[0], *(moved[weight] for weight in weights))

    arguments = draw_arguments(recurrence.program, shape, dtype, CPU)
    chosen = subject(recurrence, shape, arguments, backend, dtype).name
    own = Contender(
        chosen,
        lambda: (rnn.with_projections(kind, recurrence, x, weights, chosen).unsqueeze(2),),
        (x, *weights.values()),
    )
    rival = Contender(group, lambda: (layer(x)[0].unsqueeze(2),), (x, *layer.parameters()))
    return Work(own, {group: (rival,)}, as_own, _layer_floors(recurrence, shape, x, weights), shape)


def _layer_floors(
    recurrence: recurra.Recurrence, shape: Shape, x: Tensor, weights: Mapping[str, Tensor]
) -> dict[Direction, Floor]:
    """As for a recurrence, with x and all weights in place of the projected inputs, and the projections' products."""
    forward = forward_floor(recurrence.program, shape, x.dtype)
    both = training_floor(recurrence.program, shape, x.dtype)
    entries = x.numel() + sum(weight.numel() for weight in weights.values())
    outputs = x.numel() + len(recurrence.states) * shape.batch * shape.sizes["D"]
    gates = [weight for name, weight in weights.items() if name.startswith("in_")]
    products = 2 * prod(x.shape[:2]) * sum(gate.numel() for gate in gates)
    size = x.element_size()
    return {
        "forward": replace(forward, bytes=size * (entries + outputs), operations=forward.operations + products),
        "forward + backward": replace(
            both,
            bytes=size * (3 * entries + outputs + x.numel()),
            operations=both.operations + 3 * products,
        ),
    }
