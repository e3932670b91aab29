"""Kernels compile for GPUs that are not there: nothing spills, shared memory fits, matrix units are used."""

from __future__ import annotations

from pathlib import Path

import pytest

import recurra
from recurra.compiler.targets import TARGETS
from recurra.runtime.ops.ahead import Resources, measure

ZOO = Path(__file__).parents[3] / "examples" / "zoo"
LIMIT = {target.name: target.shared for target in TARGETS}


@pytest.mark.parametrize(
    ("name", "sizes", "contracts"),
    [
        ("m2rnn", {"K": 64, "V": 64}, True),
        ("m2rnn", {"K": 64, "V": 16}, True),
        ("gated_delta_net", {"K": 64, "V": 64}, False),
        ("gated_delta_net", {"K": 128, "V": 128}, False),
        ("kda", {"K": 64, "V": 64}, False),
        ("lstm", {"D": 64}, True),
        ("mamba", {"D": 64, "N": 16}, False),
    ],
)
def test_no_kernel_spills(name: str, sizes: dict[str, int], contracts: bool) -> None:
    look(measure(recurra.load(ZOO / f"{name}.rec").program, sizes), contracts)


@pytest.mark.parametrize(
    ("name", "sizes", "contracts"),
    [("gated_delta_net", {"K": 64, "V": 64}, False), ("gru", {"D": 64}, True)],
)
def test_no_kernel_of_packed_sequences_spills(name: str, sizes: dict[str, int], contracts: bool) -> None:
    look(measure(recurra.load(ZOO / f"{name}.rec").program, sizes, packed=True), contracts)


def look(rows: list[Resources], contracts: bool) -> None:
    """AssertionError for a kernel that spills, takes too much shared memory or none of the matrix unit."""
    assert {row.target for row in rows} == set(LIMIT)
    assert len({row.kernel for row in rows}) in (4, 5)
    for row in rows:
        assert row.spills == 0, row
        assert row.shared <= LIMIT[row.target], row
        assert (row.matrix_instructions > 0) == contracts, row
