"""Random recurrences by both strategies against the float64 reference, forward and every gradient."""

from __future__ import annotations

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from unit.kernels.against_reference import STRATEGIES, arguments, run, spec, true, wrong
from unit.kernels.specs import specs

from recurra.compiler.kernels import KernelOptions

SIZES = st.sampled_from(({"K": 3, "V": 5}, {"K": 4, "V": 3}, {"K": 16, "V": 17}))
EXAMPLES = 25


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), print_blob=False)
@given(specs(), SIZES, st.booleans(), st.booleans())
def test_random_recurrences(text: str, sizes: dict[str, int], start: bool, reverse: bool) -> None:
    note(text)
    program = spec(text)
    given_ = arguments(program, sizes, batch=2, steps=4, heads=2, start=start, grouped=True)
    expected = true(program, sizes, given_, reverse=reverse)
    for strategy in STRATEGIES:
        found = run(program, sizes, given_, strategy, options=KernelOptions(chunk=3), segment=3, reverse=reverse)
        bad = wrong(program, sizes, given_, found, expected, reverse=reverse)
        assert not bad, f"{strategy} {sizes}: {bad}\n{text}"
