"""Random recurrences by both strategies against the float64 reference, forward and every gradient."""

from __future__ import annotations

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from unit.kernels.against_reference import WAYS, arguments, run, spec, true, wrong
from unit.kernels.specs import specs

from recurra.compiler.options import KernelOptions

SIZES = st.sampled_from(({"K": 3, "V": 5}, {"K": 4, "V": 3}, {"K": 16, "V": 17}))
EXAMPLES = 8


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), print_blob=False)
@given(specs(), SIZES, st.booleans(), st.booleans())
def test_random_recurrences(text: str, sizes: dict[str, int], start: bool, reverse: bool) -> None:
    note(text)
    program = spec(text)
    drawn = arguments(program, sizes, batch=1, steps=3, heads=2, start=start, grouped=True)
    expected = true(program, sizes, drawn, reverse=reverse)
    for strategy in WAYS:
        found = run(program, sizes, drawn, strategy, options=KernelOptions(chunk=2), segment=2, reverse=reverse)
        bad = wrong(program, sizes, drawn, found, expected, reverse=reverse)
        assert not bad, f"{strategy} {sizes}: {bad}\n{text}"
