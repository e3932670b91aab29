"""The demo from end to end with hardly any training, and its layers one token at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_demo_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "plots" / "demo.png"
    command = [sys.executable, EXAMPLES / "demo.py", "--steps", "2", "--parity-steps", "2", "--out", picture]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    for said in ("1 file checked: no errors", "1 recurrence verified", "bits per byte", "delta_net_neg", picture.name):
        assert said in done.stdout.replace("\n", "")


@pytest.mark.parametrize("kind", ["gated_delta_net", "delta_net", "delta_net_neg"])
def test_token_by_token_is_the_whole_sequence(kind, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import layers

    torch.manual_seed(0)
    if kind == "gated_delta_net":
        mixers = [layers.GatedDeltaNet(12, heads=2, K=4, V=3) for _ in range(2)]
    else:
        mixers = [layers.DeltaNet(12, heads=2, K=4, V=3, negative=kind == "delta_net_neg") for _ in range(2)]
    model = layers.Model(10, 12, mixers, 10)
    tokens = torch.randint(10, (3, 9))
    whole, _ = model(tokens)
    states, parts = None, []
    for t in range(9):
        part, states = model(tokens[:, t : t + 1], states)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)
