"""The measure of distance that all comparisons use."""

from __future__ import annotations

import math

import pytest
import torch

from recurra.runtime.verify.metric import TOLERANCES, distance


def test_equal_tensors_are_at_distance_zero() -> None:
    x = torch.randn(2, 70, 3, 4)
    x[0, 0, 0, 0] = math.inf
    assert distance(x, x.clone(), 3, 1) == 0.0


def test_one_bad_chunk_of_one_head_cannot_hide() -> None:
    x = torch.ones(2, 64 * 50, 3, 4, dtype=torch.float64)
    bad = x.clone()
    bad[1, 64:128, 2] += 0.5
    assert distance(bad, x, 3, 1) == pytest.approx(0.5 / 1.011)
    spread = x + 0.5 / math.sqrt(2 * 50 * 3)
    assert distance(spread, x, 3, 1) < 0.03


def test_rows_of_the_last_incomplete_chunk_count() -> None:
    x = torch.ones(1, 65, 1, dtype=torch.float64)
    bad = x.clone()
    bad[0, 64] = 2.0
    assert distance(bad, x, 3, 1) == pytest.approx(1 / 1.011)


def test_small_rows_are_measured_against_their_own_size() -> None:
    x = torch.ones(1, 2, dtype=torch.float64)
    x[0, 1] = 0.1
    assert distance(x * 1.001, x, 2) == pytest.approx(1e-3, rel=0.02)
    assert distance(x + torch.tensor([0.0, 1e-3]), x, 2) == pytest.approx(1e-3 / (0.1 + 0.0081), rel=0.01)


@pytest.mark.parametrize(
    ("found", "true"),
    [(math.nan, 1.0), (1.0, math.nan), (math.nan, math.nan), (math.inf, 1.0), (1.0, -math.inf), (math.inf, -math.inf)],
)
def test_what_is_not_finite_fails(found: float, true: float) -> None:
    assert distance(torch.tensor([found, 1.0]), torch.tensor([true, 1.0]), 0) == math.inf


def test_other_shapes_and_empty_tensors() -> None:
    assert distance(torch.zeros(2), torch.zeros(3), 1) == math.inf
    assert distance(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), 3, 1) == 0.0


def test_every_dtype_of_a_call_has_tolerances() -> None:
    for kinds in TOLERANCES.values():
        assert kinds["output"] <= kinds["gradient"] <= kinds["gate"]
    assert TOLERANCES[torch.float32] == {"output": 1e-5, "gradient": 1e-4, "gate": 1e-4}
    assert TOLERANCES[torch.bfloat16] == {"output": 5e-3, "gradient": 8e-3, "gate": 2e-2}
