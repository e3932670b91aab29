"""Kernels compile for GPUs that are not there: nothing spills, shared memory fits, matrix units are used."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.kernels.against_reference import spec
from unit.reference.chunk_specs import SPECS

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
    look(measure(recurra.load(ZOO / f"{name}.rec").program, sizes, strategy="recurrent"), contracts)


@pytest.mark.parametrize(
    ("name", "sizes", "contracts"),
    [("gated_delta_net", {"K": 64, "V": 64}, False), ("gru", {"D": 64}, True)],
)
def test_no_kernel_of_packed_sequences_spills(name: str, sizes: dict[str, int], contracts: bool) -> None:
    program = recurra.load(ZOO / f"{name}.rec").program
    look(measure(program, sizes, strategy="recurrent", packed=True), contracts)


def look(rows: list[Resources], contracts: bool) -> None:
    """AssertionError for a kernel that spills, takes too much shared memory or none of the matrix unit."""
    assert {row.target for row in rows} == set(LIMIT)
    assert len({row.kernel for row in rows}) in (4, 5)
    for row in rows:
        assert row.spills == 0, row
        assert row.shared <= LIMIT[row.target], row
        assert (row.matrix_instructions > 0) == contracts, row


SPILLING = {("sm_80", 16), ("sm_90", 136)}
"""Where the backward kernel of a state of 128 x 128 still spills, and how many bytes at most."""


@pytest.mark.parametrize("size", [64, 128])
def test_no_chunk_kernel_spills(size: int) -> None:
    """Triton makes a trap, without a word, of a kernel that asks for too much of Blackwell's tensor memory: hence the
    count of instructions."""
    program = recurra.load(ZOO / "gated_delta_net.rec").program
    open_ends = dict(SPILLING) if size == 128 else {}
    rows = measure(program, {"K": size, "V": size}, strategy="chunk")
    assert {row.target for row in rows} == set(LIMIT)
    for row in rows:
        assert row.spills <= (open_ends.get(row.target, 0) if row.kernel.endswith("_backward") else 0), row
        assert row.shared <= LIMIT[row.target], row
        assert row.matrix_instructions > 0, row


@pytest.mark.parametrize(("name", "size"), [("rwkv7", 128), ("gated_delta_net", 256)])
def test_chunks_beside_large_states_fit_shared_memory(name: str, size: int) -> None:
    program = recurra.load(ZOO / f"{name}.rec").program
    for row in measure(program, {"K": size, "V": size}, targets=["sm_90"], strategy="chunk"):
        assert row.shared <= LIMIT[row.target], row


@pytest.mark.parametrize("name", ["signed", "signed_channels", "members"])
def test_unusual_chunk_kernels_compile_with_short_operands(name: str) -> None:
    """Types of operands are what Triton's interpreter does not look at."""
    program = spec(f"recurrence {name}{SPECS[name]}")
    for row in measure(program, dict.fromkeys("KVU", 16), targets=["sm_90"], strategy="chunk"):
        assert row.matrix_instructions > 0, row


COMPLEX = """recurrence pair
dims N
state hr[N], hi[N]
input ur[N], ui[N], gr[N], gi[N]
transition hr' = gr * hr - gi * hi + ur
transition hi' = gi * hr + gr * hi + ui
output y[N] = hr'
"""
COUPLED = """recurrence two
dims D
state p[D], q[D]
input a[D], b[D], c[D], d[D], u[D]
transition p' = a * p + b * q + u
transition q' = c * p + d * q
output y[D] = p' + q'
"""
MAXIMUM = """recurrence top
dims D
state m[D] = -inf
input a[D], b[D]
transition m' = max(m + logsigmoid(a), b)
output o[D] = exp(b - m')
"""


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("hgrn", {"D": 512}),
        ("hgrn", {"D": 64}),
        ("mamba", {"D": 512, "N": 16}),
        (COMPLEX, {"N": 256}),
        (COUPLED, {"D": 128}),
        (MAXIMUM, {"D": 128}),
        ("gla", {"K": 16, "V": 64}),
    ],
    ids=["hgrn-512", "hgrn-64", "mamba", "complex", "coupled", "maximum", "matrix"],
)
def test_no_scan_spills(name: str, sizes: dict[str, int]) -> None:
    program = spec(name) if "\n" in name else recurra.load(ZOO / f"{name}.rec").program
    rows = measure(program, sizes, strategy="scan")
    assert {row.target for row in rows} == set(LIMIT)
    assert len({row.kernel for row in rows}) == 3
    for row in rows:
        assert row.spills == 0, row
        assert row.shared <= LIMIT[row.target] // 4, row  # several programs are to share a multiprocessor
