"""Values at the ends of what is allowed: gates of 0 and 1, keys of 0, infinities, NaN, memory full of NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from unit.kernels.against_reference import (
    UNSEEN,
    WAYS,
    ZOO,
    arguments,
    changed,
    check,
    run,
    sizes_of,
    spec,
    true,
    wrong,
    zoo,
)

from recurra.compiler.options import KernelOptions
from recurra.runtime.ops import pool

INF = math.inf
OPTIONS = KernelOptions(chunk=3)
LOG_DECAYS = torch.tensor([0.0, -1e-4, -0.6, -5.0, -20.0, -1000.0, -INF])

DECAYS = {
    "scalar": """recurrence scalar
dims K, V
state S[K, V]
input q[K], k[K], v[V], g
transition S' = exp(g) * S + outer(k, v)
output o[V] = q @ S'
""",
    "diagonal": """recurrence diagonal
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[K]
transition S' = diag(exp(g)) @ S + outer(k, v)
output o[V] = q @ S'
""",
    "element": """recurrence element
dims K, V
state S[K, V]
input q[K], k[K], v[V], g[K, V]
transition S' = exp(g) * S + (1 - exp(g)) * outer(k, v)
output o[V] = q @ S'
""",
    "delta": """recurrence delta
dims K, V
state S[K, V]
input q[K], k[K], v[V], g, b in [0, 2]
transition S' = exp(g) * householder(k, b) @ S + b * outer(k, v)
output o[V] = q @ S'
""",
}


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", DECAYS)
def test_log_decays_from_zero_to_minus_infinity(name: str, strategy: str) -> None:
    """All of them beside each other in one sequence, then infinity alone."""
    program = spec(DECAYS[name])
    sizes = sizes_of(program, 3, 2)
    count = len(LOG_DECAYS)
    given = arguments(program, sizes, steps=count, heads=1)
    shape = given.inputs["g"].shape
    order = torch.arange(math.prod(shape)).reshape(shape) % count
    mixed = changed(given, g=LOG_DECAYS[order])
    check(program, sizes, mixed, strategy, options=OPTIONS)
    short = arguments(program, sizes, steps=2, heads=1)
    check(program, sizes, changed(short, g=lambda g: torch.full_like(g, -INF)), strategy, options=OPTIONS)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("keys", ["repeated", "zero", "unit"])
def test_delta_rule_at_the_ends(beta: float, keys: str, strategy: str) -> None:
    program = spec(DECAYS["delta"])
    sizes = sizes_of(program, 4, 3)
    given = arguments(program, sizes, steps=4, heads=1)

    def key(k: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(k, dim=-1)
        return {"repeated": unit[:, :1].expand_as(k).contiguous(), "zero": 0 * k, "unit": unit}[keys]

    hard = changed(given, b=lambda b: torch.full_like(b, beta), g=lambda g: 0 * g, k=key)
    check(program, sizes, hard, strategy, options=OPTIONS)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize(
    "name",
    ["delta_net", "gated_delta_net", "kda", "rwkv7", "gdn2", "comba", "oja", "longhorn", "momentum_delta"],
)
def test_zero_keys_that_the_spec_normalises(name: str, strategy: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, steps=3, heads=1)
    names = ("k", "q", "p", "v") if name in ("comba", "oja") else ("k", "q")
    zero = {key: (lambda x: torch.cat([x[:, :1], 0 * x[:, 1:]], 1)) for key in names if key in given.inputs}
    check(program, sizes, changed(given, **zero), strategy, options=OPTIONS)


LOGITS = {
    "gla": ["g"],
    "gated_delta_net": ["a", "b"],
    "m2rnn": ["x"],
    "mlstm": ["i", "f"],
    "slstm": ["zi", "zf", "zz", "zo"],
    "lstm": ["xi", "xf", "xg", "xo"],
    "mamba": None,
    "hgrn": None,
    "mamba2": ["dt"],
    "mamba_neg": ["dt"],
    "mamba3_siso": ["a", "trap", "dt"],
    "hgrn2": ["f"],
    "mingru": ["z"],
    "rg_lru": ["r", "i"],
    "gdn2": ["g", "eb", "wb"],
    "oja": ["g"],
    "longhorn": ["b"],
    "gsa": ["g"],
    "rwkv4": ["k"],
}


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", LOGITS)
def test_logits_of_ten_thousand(name: str, strategy: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, steps=4, heads=1)
    names = LOGITS[name] or [i.name for i in program.inputs if i.name in ("g", "f", "dt", "z", "delta", "i")]
    assert names
    signs = torch.tensor([1e4, -1e4, -1e4, 1e4])
    shifted = {one: signs.roll(n).reshape(1, 4, 1) for n, one in enumerate(names)}
    extreme = {
        one: s.reshape(s.shape + (1,) * (given.inputs[one].dim() - 3)).expand(given.inputs[one].shape).contiguous()
        for one, s in shifted.items()
    }
    hard = changed(given, **extreme)
    check(program, sizes, hard, strategy, options=OPTIONS)
    assert all(q.value.isfinite().all() for q in true(program, sizes, hard).values())


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("name", ["mlstm", "slstm", "rwkv4"])
def test_states_that_start_at_minus_infinity(name: str, strategy: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, steps=4, heads=1, start=False)
    found = run(program, sizes, given, strategy, options=OPTIONS)
    assert not wrong(program, sizes, given, found, true(program, sizes, given))
    assert all(q.value.isfinite().all() for q in found.values())


@pytest.mark.parametrize("strategy", WAYS)
def test_a_constant_replaces_an_infinite_state(strategy: str) -> None:
    text = "recurrence r\ndims V\nstate m = -inf, z[V]\ninput x[V]\n"
    text += "transition m' = 0.5\ntransition z' = 2\noutput o[V] = x * exp(m) + z'\n"
    program = spec(text)
    check(program, {"V": 3}, arguments(program, {"V": 3}, steps=3, start=False), strategy)


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize(("name", "bad"), [("gated_delta_net", INF), ("lstm", math.nan), ("mlstm", math.nan)])
def test_what_is_wrong_in_one_sequence_stays_there(name: str, bad: float, strategy: str) -> None:
    """The other sequence's outputs and gradients do not change by a bit; earlier outputs neither."""
    program = zoo(name)
    sizes = sizes_of(program, 3, 2)
    given = arguments(program, sizes, batch=2, steps=3, heads=1)
    at = 1  # the step at which sequence 0 goes wrong

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, at] = bad
        return x

    good = run(program, sizes, given, strategy, options=OPTIONS)
    spoilt = run(program, sizes, changed(given, **dict.fromkeys(given.inputs, spoil)), strategy, options=OPTIONS)
    batched = [f"d {i.name}" for i in program.inputs] + [f"d {s.name}" for s in program.states]
    for key in [o.name for o in program.outputs] + [f"final {s.name}" for s in program.states] + batched:
        assert torch.equal(good[key].value[1], spoilt[key].value[1]), key
    first, *_ = (spoilt[o.name].value for o in program.outputs)
    assert torch.equal(good[program.outputs[0].name].value[0, :at], first[0, :at])
    if math.isnan(bad):
        assert first[0, at:].isnan().all()


@pytest.mark.parametrize("strategy", WAYS)
def test_nan_is_not_hidden(strategy: str) -> None:
    """Hardware's maximum and minimum drop NaN; ours do not. One entry in three is NaN."""
    text = "recurrence r\ndims K\nstate m\ninput x[K]\ntransition m' = m\n"
    text += "output top = max(x, K)\noutput total = logsumexp(x, K)\n"
    for n, form in enumerate(("max(x, 0)", "relu(x)", "clamp(x, -1, 1)", "min(x, 1)", "tanh(x)")):
        text += f"output o{n}[K] = {form}\n"
    program = spec(text)
    given = arguments(program, {"K": 3}, steps=1, heads=1)
    found = run(program, {"K": 3}, changed(given, x=lambda x: x * torch.tensor([1.0, math.nan, 1.0])), strategy)
    assert found["top"].value.isnan().all() and found["total"].value.isnan().all()
    for n in range(5):
        assert found[f"o{n}"].value.flatten().isnan().tolist() == [False, True, False], n


@contextmanager
def memory_full_of(value: float) -> Iterator[list[torch.Size]]:
    """Every tensor that is allocated for kernels to write holds this number first."""
    original = Tensor.new_empty
    seen: list[torch.Size] = []

    def filled(self: Tensor, *size: object, **options: object) -> Tensor:
        result = original(self, *size, **options)  # type: ignore[arg-type]
        seen.append(result.shape)
        return result.fill_(value) if result.is_floating_point() else result

    def from_the_pool(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        seen.append(torch.Size(shape))
        return taken(shape, dtype).fill_(value)

    like, taken = torch.empty_like, pool.empty
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "new_empty", filled)
        patch.setattr(pool, "empty", from_the_pool)
        patch.setattr(torch, "empty_like", lambda x, **options: like(x, **options).fill_(value))
        yield seen


SPECS = [*ZOO, *UNSEEN]


@pytest.mark.parametrize("strategy", WAYS)
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_recurrence_in_memory_full_of_nan(path: Path, strategy: str) -> None:
    """Zoo and unseen recurrences agree with the reference, and everything that is allocated is written."""
    program = spec(path.read_text(), path.name)
    sizes = sizes_of(program, 5, 3)
    given = arguments(program, sizes, steps=2, heads=1, seed=3)
    with memory_full_of(math.nan) as seen:
        found = run(program, sizes, given, strategy, options=KernelOptions(chunk=1), segment=1)
    assert len(seen) > 3
    bad = wrong(program, sizes, given, found, true(program, sizes, given))
    assert not bad


TILED = KernelOptions(chunk=2, tiles=(("V", 2),))


@pytest.mark.parametrize("name", ["gated_delta_net", "mlstm"])
def test_everything_allocated_is_written_by_tiles(name: str) -> None:
    program = zoo(name)
    sizes = sizes_of(program, 3, 5)
    given = arguments(program, sizes, steps=3, heads=1)
    plain = run(program, sizes, given, options=TILED)
    with memory_full_of(math.nan):
        found = run(program, sizes, given, options=TILED, segment=2)
    for key, q in found.items():
        torch.testing.assert_close(q.value, plain[key].value, rtol=1e-5, atol=1e-6)
