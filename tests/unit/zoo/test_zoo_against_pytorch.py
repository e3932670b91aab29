"""The reference of every zoo file against a plain PyTorch loop, and GRU and LSTM against torch.nn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from unit.zoo.data import LENGTH, arguments, by_name, default_starts, starts
from unit.zoo.loops import STEPS, run

import recurra

ZOO = Path(__file__).parents[3] / "examples" / "zoo"


# Running maxima start at minus infinity, all else at zero.
FILL = {"slstm": {"m": -math.inf}, "mlstm": {"m": -math.inf}, "rwkv4": {"mx": -math.inf}}


def call(rec, inputs, params, **options):
    """Outputs by name and final states of a call to the reference."""
    if not inputs:
        options["steps"] = LENGTH
    outputs, final = rec(**inputs, **params, backend="reference", return_state=True, **options)
    return by_name(rec.program, outputs), final


STARTED = pytest.mark.parametrize("started", [False, True], ids=["default-start", "given-start"])


@STARTED
@pytest.mark.parametrize("name", STEPS)
def test_outputs_and_final_states(name, started):
    rec = recurra.load(ZOO / f"{name}.rec")
    inputs, params = arguments(rec.program)
    start = starts(rec.program) if started else default_starts(rec.program, FILL.get(name, {}))
    expected, end = run(STEPS[name], inputs, params, start, LENGTH)
    # Without inputs nothing but a start says how many sequences there are.
    outputs, final = call(rec, inputs, params, initial=start if started or not inputs else None)
    assert outputs.keys() == expected.keys()
    assert final.keys() == end.keys()
    for key, value in (outputs | final).items():
        torch.testing.assert_close(value, (expected | end)[key], rtol=1e-10, atol=1e-12)


@STARTED
@pytest.mark.parametrize("name", STEPS)
def test_gradients(name, started):
    """Also from the default start, where a running maximum comes from minus infinity."""
    rec = recurra.load(ZOO / f"{name}.rec")
    inputs, params = arguments(rec.program)
    initial = starts(rec.program) if started else default_starts(rec.program, FILL.get(name, {}))
    leaves = [t.requires_grad_() for t in (*inputs.values(), *params.values())]
    leaves += [t.requires_grad_() for t in initial.values() if t.isfinite().all()]

    def gradients(outputs, final):
        total = sum((value * torch.cos(value)).sum() for value in (*outputs.values(), *final.values()))
        return torch.autograd.grad(total, leaves)

    expected = gradients(*run(STEPS[name], inputs, params, initial, LENGTH))
    for mine, theirs in zip(gradients(*call(rec, inputs, params, initial=initial)), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def heads_of(tensor, gates):
    """[T, B, gates * D] of torch.nn to one [B, T, 1, D] per gate."""
    return [part.transpose(0, 1)[:, :, None] for part in tensor.chunk(gates, -1)]


def test_gru_is_torch_nn_gru():
    torch.manual_seed(0)
    layer = torch.nn.GRU(4, 5, dtype=torch.float64)
    x, start = torch.randn(7, 2, 4, dtype=torch.float64), torch.randn(1, 2, 5, dtype=torch.float64)
    expected, end = layer(x, start)
    Ur, Uz, Un = layer.weight_hh_l0.chunk(3)
    br, bz, bn = layer.bias_hh_l0.chunk(3)
    xr, xz, xn = heads_of(x @ layer.weight_ih_l0.T + layer.bias_ih_l0, 3)
    output, final = recurra.load(ZOO / "gru.rec")(
        xr=xr + br, xz=xz + bz, xn=xn, Ur=Ur[None], Uz=Uz[None], Un=Un[None], bn=bn[None],
        initial={"h": start[0][:, None]}, return_state=True, backend="reference",
    )  # fmt: skip
    torch.testing.assert_close(output[:, :, 0], expected.transpose(0, 1))
    torch.testing.assert_close(final["h"][:, 0], end[0])


def test_lstm_is_torch_nn_lstm():
    torch.manual_seed(0)
    layer = torch.nn.LSTM(4, 5, dtype=torch.float64)
    x = torch.randn(7, 2, 4, dtype=torch.float64)
    h, c = torch.randn(2, 1, 2, 5, dtype=torch.float64)
    expected, (end_h, end_c) = layer(x, (h, c))
    Ui, Uf, Ug, Uo = layer.weight_hh_l0[None].chunk(4, 1)
    xi, xf, xg, xo = heads_of(x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + layer.bias_hh_l0, 4)
    output, final = recurra.load(ZOO / "lstm.rec")(
        xi=xi, xf=xf, xg=xg, xo=xo, Ui=Ui, Uf=Uf, Ug=Ug, Uo=Uo,
        initial={"h": h[0][:, None], "c": c[0][:, None]}, return_state=True, backend="reference",
    )  # fmt: skip
    torch.testing.assert_close(output[:, :, 0], expected.transpose(0, 1))
    torch.testing.assert_close(final["h"][:, 0], end_h[0])
    torch.testing.assert_close(final["c"][:, 0], end_c[0])


def test_retnet_decays_start_as_in_the_paper():
    params = recurra.load(ZOO / "retnet.rec").init_params(heads=4, dtype=torch.float64)
    gamma = 1 - 2.0 ** (-5 - torch.arange(4, dtype=torch.float64))
    torch.testing.assert_close(params["log_gamma"], gamma.log())
