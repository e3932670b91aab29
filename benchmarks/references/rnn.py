"""torch.nn.GRU and torch.nn.LSTM beside the zoo's, with the same weights, input projections included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

GATES = {"gru": "rzn", "lstm": "ifgo"}
"""Gates in torch's order; in the zoo a gate g has the input ``xg`` and the recurrent matrix ``Ug``."""


def layer_of(kind: str, width: int, dtype: torch.dtype = torch.float32) -> torch.nn.RNNBase:
    """The layer of torch from ``[B, T, width]`` to the same."""
    module = torch.nn.GRU if kind == "gru" else torch.nn.LSTM
    return module(width, width, batch_first=True, dtype=dtype)


def in_zoo_form(kind: str, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> dict[str, Tensor]:
    """A layer's weights as ``in_g [D, D]`` and ``bias_g [D]`` of the projections, and params of the recurrence.

    Those are ``Ug [1, D, D]`` and, for the GRU, ``bn [1, D]``: elsewhere both of torch's biases are one.
    """
    gates, found = GATES[kind], {}
    pieces = (x.chunk(len(gates)) for x in (weight_ih, weight_hh, bias_ih, bias_hh))
    for gate, project, recur, bias, inner in zip(gates, *pieces, strict=True):
        apart = kind == "gru" and gate == "n"
        found[f"in_{gate}"], found[f"U{gate}"] = project, recur[None]
        found[f"bias_{gate}"] = bias if apart else bias + inner
        if apart:
            found["bn"] = inner[None]
    return found


def gradients_in_zoo_form(
    kind: str, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> dict[str, Tensor]:
    """Gradients of a layer's weights as those of :func:`in_zoo_form`: of two biases that are one, one counts."""
    kept = torch.zeros_like(bias_hh)
    if kind == "gru":
        last = bias_hh.shape[0] // len(GATES[kind])
        kept[-last:] = bias_hh[-last:]
    return in_zoo_form(kind, weight_ih, weight_hh, bias_ih, kept)


def with_projections(kind: str, recurrence: Any, x: Tensor, weights: Mapping[str, Tensor], backend: str) -> Tensor:
    """The zoo's recurrence on projections of x ``[B, T, D]``: its outputs ``[B, T, D]``.

    One product per gate: its output is contiguous, and its backward pass needs no concatenation.
    """
    inputs = {f"x{g}": linear(x, weights[f"in_{g}"], weights[f"bias_{g}"]).unsqueeze(2) for g in GATES[kind]}
    params = {name: weights[name] for name in recurrence.params}
    return recurrence({**inputs, **params}, backend=backend).squeeze(2)
