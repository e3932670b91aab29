"""Which strategy is taken, and what the model of costs says about the others."""

from __future__ import annotations

import pytest
from unit.kernels.against_reference import zoo

from recurra.compiler.kernels import Compiled, compile_kernels
from recurra.compiler.options import KernelOptions
from recurra.compiler.strategies.cost import LAUNCH, STEPS, Cost


def compiled(name: str, strategy: str = "auto", **sizes: int) -> Compiled:
    return compile_kernels(zoo(name), sizes, KernelOptions(), strategy)


@pytest.mark.parametrize(
    ("name", "sizes", "taken"),
    [
        ("gated_delta_net", {"K": 64, "V": 64}, "chunk"),
        ("gla", {"K": 128, "V": 128}, "chunk"),
        ("mlstm", {"K": 64, "V": 64}, "chunk"),
        ("gsa", {"K": 64, "V": 64, "M": 64}, "chunk"),
        ("oja", {"K": 64, "V": 64}, "chunk"),
        ("hgrn", {"D": 512}, "scan"),
        ("mamba", {"D": 64, "N": 16}, "scan"),
        ("rwkv4", {"D": 64}, "scan"),
        ("m2rnn", {"K": 64, "V": 64}, "recurrent"),
        ("lstm", {"D": 64}, "recurrent"),
        ("lstm", {"D": 512}, "stepwise"),
    ],
)
def test_choice(name: str, sizes: dict[str, int], taken: str) -> None:
    found = compiled(name, **sizes)
    assert found.strategy == taken
    applying = [v for v in found.verdicts if v.applies]
    assert min(applying, key=lambda v: v.seconds).strategy == taken
    assert all(v.cost and v.seconds > 0 for v in applying)
    assert all(not v.cost for v in found.verdicts if not v.applies)


def test_choice_can_be_overridden() -> None:
    assert compiled("gated_delta_net", "recurrent", K=64, V=64).strategy == "recurrent"
    with pytest.raises(ValueError, match="strategy 'chunk' does not apply: `tanh` of `S`"):
        compiled("m2rnn", "chunk", K=64, V=64)


def test_larger_states_cost_more() -> None:
    small, large = (
        {v.strategy: v.seconds for v in compiled("gated_delta_net", K=size, V=size).verdicts if v.applies}
        for size in (64, 256)
    )
    assert all(large[name] > small[name] for name in ("recurrent", "stepwise"))


def test_the_slowest_of_bytes_work_and_waiting_counts() -> None:
    free = Cost(0.0, 0.0, 0.0, 0.0, 0)
    assert free.seconds == 0
    assert Cost(0.0, 0.0, 0.0, 1e-6, 0).seconds == pytest.approx(1e-6 * STEPS)
    assert Cost(0.0, 0.0, 0.0, 0.0, 3).seconds == pytest.approx(3 * LAUNCH)
    both = Cost(1e3, 1e5, 1e4, 1e-9, 2)
    assert (both + free).seconds == both.seconds
    assert both.seconds < (both + both).seconds <= 2 * both.seconds
