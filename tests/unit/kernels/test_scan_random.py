"""Random element-wise recurrences by the scan strategy against the float64 reference, forward and every gradient."""

from __future__ import annotations

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from unit.kernels.against_reference import arguments, check, spec
from unit.kernels.scan_specs import scan_specs

from recurra.compiler.options import KernelOptions

SIZES = st.sampled_from(({"K": 3, "V": 5}, {"K": 4, "V": 3}, {"K": 16, "V": 2}))


@settings(max_examples=60, suppress_health_check=list(HealthCheck), print_blob=False)
@given(scan_specs(), SIZES, st.booleans(), st.booleans(), st.integers(1, 7))
def test_random_recurrences(text: str, sizes: dict[str, int], start: bool, reverse: bool, steps: int) -> None:
    note(text)
    program = spec(text)
    drawn = arguments(program, sizes, batch=1, steps=steps, heads=2, start=start, grouped=True)
    check(program, sizes, drawn, "scan", options=KernelOptions(chunk=4), segment=4, reverse=reverse)
