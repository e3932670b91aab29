"""Recurrences that no zoo holds, in operator and in free form: they work the first time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unit.zoo.data import LENGTH, arguments, by_name, default_starts, starts
from unit.zoo.loops import run
from unit.zoo.unseen_loops import STEPS

import recurra

UNSEEN = Path(__file__).parents[2] / "fixtures" / "unseen"
DEFAULTS = {"top": float("-inf"), "last": -1.0}
PAIRS = [name for name in STEPS if f"{name}_free" in STEPS]


def call(name, initial=None):
    """The spec's own outputs and final states, and those of the plain loop."""
    rec = recurra.load(UNSEEN / f"{name}.rec")
    inputs, params = arguments(rec.program)
    outputs, final = rec(**inputs, **params, initial=initial, return_state=True, backend="reference")
    outputs = by_name(rec.program, outputs)
    start = default_starts(rec.program, DEFAULTS) | (initial or {})
    expected, end = run(STEPS[name], inputs, params, start, LENGTH)
    assert outputs.keys() == expected.keys()
    assert final.keys() == end.keys()
    return outputs | final, expected | end


def test_every_file_has_a_loop():
    assert {path.stem for path in UNSEEN.glob("*.rec")} == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_from_the_default_start(name):
    found, expected = call(name)
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", STEPS)
def test_from_a_given_start(name):
    found, expected = call(name, starts(recurra.load(UNSEEN / f"{name}.rec").program))
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_operator_and_free_form_are_one(name):
    """The same arguments through both files, outputs and every gradient."""
    operator, free = (recurra.load(UNSEEN / f"{stem}.rec") for stem in (name, f"{name}_free"))
    inputs, params = arguments(operator.program)
    leaves = [t.requires_grad_() for t in (*inputs.values(), *params.values())]
    results = []
    for rec in (operator, free):
        o, final = rec(**inputs, **params, backend="reference", return_state=True)
        results.append((o, final["S"], *torch.autograd.grad(o.square().sum() + final["S"].sum(), leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_a_spike_was_seen():
    """The comparisons of `spiking` were exercised on both sides."""
    found, _ = call("spiking")
    assert set(found["spikes"].unique().tolist()) == {0.0, 1.0}
