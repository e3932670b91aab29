from __future__ import annotations

import pickle
from typing import Any

import numpy
import pytest
import torch
from programs import declare
from torch._dynamo.testing import CompileCounter

import recurra
from recurra.compiler.ir.types import Interval
from recurra.runtime import sequences
from recurra.runtime.errors import CallError
from recurra.runtime.input_checks import check_inputs, check_values, input_checks_enabled
from recurra.runtime.validate import bind, plan

DELTA = declare(
    states={"S": "K V"},
    inputs={"q": "K", "k": "K", "v": "V", "b": ""},
    params={"W": "V V", "A": ""},
    ranges={"b": Interval(0.0, 2.0)},
    unit=("k",),
)
PLAN = plan(DELTA)


def arguments(**changes: Any) -> dict[str, Any]:
    k = torch.zeros(2, 5, 4, 8)
    k[..., 0] = 1
    given = {
        "q": torch.ones(2, 5, 4, 8),
        "k": k,
        "v": torch.ones(2, 5, 4, 3),
        "b": torch.ones(2, 5, 4),
        "W": torch.ones(4, 3, 3),
        "A": torch.ones(4),
    }
    given.update(changes)
    return {name: value for name, value in given.items() if value is not None}


def refused(message: str, initial: Any = None, steps: Any = None, cu_seqlens: Any = None, **changes: Any) -> CallError:
    """The error of a call, whose text must be exactly ``demo: message``; no tensor may have changed."""
    given = arguments(**changes)
    before = {name: value._version for name, value in given.items() if isinstance(value, torch.Tensor)}
    with pytest.raises(CallError) as caught:
        bind(PLAN, given, initial, steps, cu_seqlens)
    assert str(caught.value) == f"demo: {message}"
    assert all(given[name]._version == version for name, version in before.items())
    return caught.value


def test_binds_sizes_in_the_order_of_the_spec() -> None:
    bound = bind(PLAN, dict(reversed(arguments().items())))
    assert bound.sizes == {"K": 8, "V": 3}
    assert (bound.batch, bound.steps, bound.heads) == (2, 5, 4)
    assert [tuple(t.shape) for t in bound.inputs] == [(2, 5, 4, 8), (2, 5, 4, 8), (2, 5, 4, 3), (2, 5, 4)]
    assert [tuple(t.shape) for t in bound.params] == [(4, 3, 3), (4,)]
    assert bound.initial == (None,) and bound.dtype == bound.state_dtype == torch.float32


def test_takes_any_strides_and_hands_the_very_tensors_on() -> None:
    q = torch.ones(8, 4, 5, 2).permute(3, 2, 1, 0)
    assert bind(PLAN, arguments(q=q)).inputs[0] is q


@pytest.mark.parametrize("steps", [0, 1])
def test_short_time_axes_fit(steps: int) -> None:
    given = {n: t[:, :steps] if t.dim() > 2 and n in "qkvb" else t for n, t in arguments().items()}
    assert bind(PLAN, given).steps == steps


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_inputs_may_have_fewer_heads(heads: int) -> None:
    assert bind(PLAN, arguments(k=torch.ones(2, 5, heads, 8))).heads == 4


def test_without_params_the_largest_head_count_rules() -> None:
    spec = plan(declare(states={"S": "K V"}, inputs={"k": "K", "v": "V"}))
    assert bind(spec, {"k": torch.ones(1, 1, 2, 8), "v": torch.ones(1, 1, 6, 3)}).heads == 6
    with pytest.raises(CallError, match="has 4 heads, which do not divide the 6 heads of `v`"):
        bind(spec, {"k": torch.ones(1, 1, 4, 8), "v": torch.ones(1, 1, 6, 3)})


# ---------------------------------------------------------------- names


def test_missing() -> None:
    error = refused("`v` is missing: it is an input (expected [B, T, H, V])", v=None)
    assert (error.spec, error.argument, error.expected) == ("demo", "v", "[B, T, H, V]")
    refused("`A` is missing: it is a param (expected [H])", A=None)


def test_unknown() -> None:
    refused("`qq` is no input or param of this recurrence; did you mean `q`?", qq=torch.ones(1))
    refused(
        "`gamma` is no input or param of this recurrence; it takes `q`, `k`, `v`, `b`, `W`, `A`",
        gamma=torch.ones(1),
    )
    refused("`S` is a state: pass it as initial={'S': ...}", S=torch.ones(1))
    refused("`initial['s']` is no state of this recurrence; did you mean `S`?", initial={"s": torch.ones(1)})
    refused("`initial` must be a dict of states by name (came Tensor)", initial=torch.ones(2, 4, 8, 3))


# ---------------------------------------------------------------- kinds


def test_what_is_no_tensor() -> None:
    refused("`b` must be a torch.Tensor (expected [B, T, H], came float)", b=1.0)
    refused("`q` must be a torch.Tensor (expected [B, T, H, K], came numpy.ndarray)", q=numpy.ones((2, 5, 4, 8)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_what_is_not_real_floating_point(dtype: torch.dtype) -> None:
    word = str(dtype).removeprefix("torch.")
    refused(
        f"`b` must be real floating point (expected float32, bfloat16, float16 or float64, came {word} [2, 5, 4])",
        b=torch.zeros(2, 5, 4, dtype=dtype),
    )


def test_what_is_not_dense() -> None:
    refused("`b` must be a dense tensor (expected strided, came torch.sparse_coo)", b=torch.ones(2, 5, 4).to_sparse())


# ---------------------------------------------------------------- sizes


def test_number_of_axes() -> None:
    refused("`q` needs 4 axes and has 3 (expected [B, T, H, K], came [2, 5, 32])", q=torch.ones(2, 5, 32))
    refused("`A` needs 1 axes and has 0 (expected [H], came [])", A=torch.tensor(1.0))
    refused(
        "`initial['S']` needs 4 axes and has 3 (expected [B, H, K, V], came [4, 8, 3])",
        initial={"S": torch.ones(4, 8, 3)},
    )


def test_conflicting_sizes_name_who_bound_first() -> None:
    refused(
        "`k` has size 7 on axis K, but K = 8 by `q` (expected [B=2, T=5, H=4, K=8], came [2, 5, 4, 7])",
        k=torch.ones(2, 5, 4, 7),
    )
    refused(
        "`W` has size 4 on axis V, but V = 3 by `v` (expected [H=4, V=3, V=3], came [4, 3, 4])",
        W=torch.ones(4, 3, 4),
    )
    refused(
        "`initial['S']` has size 9 on axis K, but K = 8 by `q` (expected [B=2, H=4, K=8, V=3], came [2, 4, 9, 3])",
        initial={"S": torch.ones(2, 4, 9, 3)},
    )


def test_batch_time_and_heads() -> None:
    refused(
        "`v` has a batch of 1, but B = 2 by `q` (expected [B=2, T=5, H=4, V], came [1, 5, 4, 3])",
        v=torch.ones(1, 5, 4, 3),
    )
    refused(
        "`v` has a time axis of 6, but T = 5 by `q` (expected [B=2, T=5, H=4, V], came [2, 6, 4, 3])",
        v=torch.ones(2, 6, 4, 3),
    )
    refused(
        "`v` has 3 heads, which do not divide the 4 heads of `W` (expected [B=2, T=5, H=4, V], came [2, 5, 3, 3])",
        v=torch.ones(2, 5, 3, 3),
    )
    refused(
        "`A` has a head count of 2, but H = 4 by `W` (expected [H=4], came [2])",
        A=torch.ones(2),
    )
    refused(
        "`initial['S']` has a batch of 3, but B = 2 by `q` (expected [B=2, H=4, K, V], came [3, 4, 8, 3])",
        initial={"S": torch.ones(3, 4, 8, 3)},
    )


def test_empty_axes() -> None:
    message = "`q` has size 0 on axis K, which no K >= 1 gives (expected [B=2, T=5, H=4, K], came [2, 5, 4, 0])"
    refused(message, q=torch.ones(2, 5, 4, 0), k=torch.ones(2, 5, 4, 0))


def test_derived_constant_and_renamed_sizes() -> None:
    spec = plan(declare(dims="M", aliases={"U": "M"}, states={"z": "M"}, inputs={"x": "M-2", "y": "U", "j": "3"}))
    given = {"x": torch.ones(1, 1, 1, 4), "y": torch.ones(1, 1, 1, 6), "j": torch.ones(1, 1, 1, 3)}
    assert bind(spec, given).sizes == {"M": 6, "U": 6}
    with pytest.raises(CallError) as caught:
        bind(spec, given | {"y": torch.ones(1, 1, 1, 7)})
    assert "has size 7 on axis U, but U = 6 by `x`" in str(caught.value)
    with pytest.raises(CallError, match="has size 4 where the spec says 3"):
        bind(spec, given | {"j": torch.ones(1, 1, 1, 4)})


def test_multiples() -> None:
    text = "recurrence demo\ndims M, N = 2 * M\nstate h[N]\ninput x[N], t[M]\n"
    both = recurra.load(text + "transition h' = h + x + sum(t)\noutput o[N] = h'\n")
    x, t = torch.ones(1, 1, 1, 6), torch.ones(1, 1, 1, 3)
    assert bind(plan(both.program), {"x": x, "t": t}).sizes == {"M": 3, "N": 6}
    with pytest.raises(CallError) as caught:
        bind(plan(both.program), {"x": x, "t": torch.ones(1, 1, 1, 6)})
    assert "`t` has size 6 on axis M, but M = 3 by `x`" in str(caught.value)
    with pytest.raises(CallError) as caught:
        bind(plan(both.program), {"x": torch.ones(1, 1, 1, 7), "t": t})
    assert "`x` has size 7 on axis N, which no M >= 1 gives" in str(caught.value)
    # Where the larger size alone comes with the tensors, the smaller one follows.
    alone = recurra.load(text.replace(", t[M]", "") + "transition h' = h / M + x\noutput o[N] = h'\n")
    assert bind(plan(alone.program), {"x": x}).sizes == {"M": 3, "N": 6}
    assert alone(x=x).shape == (1, 1, 1, 6)
    assert alone.bind_sizes({"N": 6}) == {"M": 3, "N": 6}
    with pytest.raises(CallError, match="demo: N = 7 is not 2 times a whole M"):
        alone.bind_sizes({"N": 7})
    with pytest.raises(CallError, match="demo: N = 6 does not go with M = 2"):
        alone.initial(N=6, M=2)


def test_a_size_that_only_a_state_has() -> None:
    spec = plan(declare(states={"S": "K V"}, inputs={"k": "K"}))
    with pytest.raises(CallError) as caught:
        bind(spec, {"k": torch.ones(2, 5, 4, 8)})
    assert str(caught.value) == "demo: no argument binds the size of V: pass initial={'S': ...}"
    start = {"S": torch.ones(2, 4, 8, 3)}
    assert bind(spec, {"k": torch.ones(2, 5, 4, 8)}, start).sizes == {"K": 8, "V": 3}


def test_steps() -> None:
    refused("`steps` is not taken: the time axis of `q` says how many there are", steps=5)
    spec = plan(declare(dims="K", states={"z": "K"}, inputs={}, params={"A": "K"}))
    given = {"A": torch.ones(3, 8)}
    assert bind(spec, given, None, 7)[1:4] == (1, 7, 3)
    assert bind(spec, given, {"z": torch.ones(5, 3, 8)}, 7).batch == 5
    for steps, problem in [(None, "is missing"), (-1, "whole number"), (2.0, "whole number"), (True, "whole")]:
        with pytest.raises(CallError, match=problem):
            bind(spec, given, None, steps)


# ---------------------------------------------------------------- dtypes and devices


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("own_params", [True, False])
def test_dtypes(dtype: torch.dtype, own_params: bool) -> None:
    given = {n: t.to(dtype) if n in "qkvb" or own_params else t for n, t in arguments().items()}
    state = torch.float64 if dtype == torch.float64 else torch.float32
    bound = bind(PLAN, given, {"S": torch.ones(2, 4, 8, 3, dtype=state)})
    assert (bound.dtype, bound.state_dtype) == (dtype, state)


def test_wrong_dtypes() -> None:
    refused("`v` differs in dtype from `q` (expected float32, came float64)", v=torch.ones(2, 5, 4, 3).double())
    refused(
        "`A` has the wrong dtype (expected float32 as `q`, came bfloat16)",
        A=torch.ones(4).bfloat16(),
    )
    half = {n: t.half() for n, t in arguments().items()}
    refused(
        "`A` has the wrong dtype (expected float16 as `q`, or float32, came bfloat16)",
        **(half | {"A": torch.ones(4).bfloat16()}),
    )
    refused(
        "`initial['S']` must be float32: states are float32, or float64 where the inputs are (came bfloat16)",
        initial={"S": torch.ones(2, 4, 8, 3).bfloat16()},
    )


def test_devices() -> None:
    refused("`W` is on another device than `q` (expected cpu, came meta)", W=torch.ones(4, 3, 3, device="meta"))


def test_an_error_can_be_sent_to_another_process() -> None:
    error = refused("`v` is missing: it is an input (expected [B, T, H, V])", v=None)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.argument == "v" and isinstance(again, ValueError)


# ---------------------------------------------------------------- what the data must keep to


def checked(**changes: Any) -> None:
    check_values(DELTA, bind(PLAN, arguments(**changes)))


def at(place: tuple[int, ...], value: float, shape: tuple[int, ...], fill: float = 1.0) -> torch.Tensor:
    tensor = torch.full(shape, fill)
    tensor[place] = value
    return tensor


def test_good_values_pass() -> None:
    checked()
    checked(b=torch.full((2, 5, 4), 2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": at((1, 2, 3, 0), float("nan"), (2, 5, 4, 8))}, "`q` has NaN at [1, 2, 3, 0]"),
        ({"q": at((0, 0, 0, 0), float("inf"), (2, 5, 4, 8))}, "`q` is not finite: inf at [0, 0, 0, 0]"),
        ({"A": at((2,), float("nan"), (4,))}, "`A` has NaN at [2]"),
        ({"b": at((0, 3, 1), 2.5, (2, 5, 4))}, "`b` leaves the promised range [0, 2]: 2.5 at [0, 3, 1]"),
        (
            {"b": torch.full((2, 5, 4), -1.0)},
            "`b` leaves the promised range [0, 2]: -1 at [0, 0, 0] and at 39 more places",
        ),
        (
            {"k": torch.ones(2, 5, 4, 8)},
            "`k` is promised to have norm 1 on its last axis and has: 2.82843 at [0, 0, 0] and at 39 more places",
        ),
    ],
)
def test_broken_promises(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(CallError) as caught:
        checked(**changes)
    assert str(caught.value) == f"demo: {message}"


def test_open_bounds_and_promised_infinity() -> None:
    spec = declare(
        dims="",
        states={"s": ""},
        inputs={"a": "", "g": ""},
        ranges={"a": Interval(0.0, 1.0, True, False), "g": Interval(float("-inf"), 0.0)},
    )
    one = torch.ones(1, 1, 1)
    check_values(spec, bind(plan(spec), {"a": one, "g": -one / 0}))
    with pytest.raises(CallError, match=r"leaves the promised range \(0, 1\]: 0 at"):
        check_values(spec, bind(plan(spec), {"a": 0 * one, "g": one * 0}))


def test_start_states_may_be_infinite_but_not_nan() -> None:
    bound = bind(PLAN, arguments(), {"S": torch.full((2, 4, 8, 3), -float("inf"))})
    check_values(DELTA, bound)
    with pytest.raises(CallError, match="`initial\\['S'\\]` has NaN"):
        check_values(DELTA, bind(PLAN, arguments(), {"S": torch.full((2, 4, 8, 3), float("nan"))}))


def test_the_switch() -> None:
    assert not input_checks_enabled()
    with check_inputs(True):
        assert input_checks_enabled()
        with check_inputs(False):
            assert not input_checks_enabled()
        assert input_checks_enabled()
    assert not input_checks_enabled()
    check_inputs()
    try:
        assert input_checks_enabled()
    finally:
        check_inputs(False)


# ---------------------------------------------------------------- under torch.compile


def test_traces_whole_with_changing_sizes() -> None:
    counter = CompileCounter()

    def call(q, k, v, b, W, A, S):
        bound = bind(PLAN, {"q": q, "k": k, "v": v, "b": b, "W": W, "A": A}, {"S": S})
        return bound.inputs[0] * bound.sizes["V"] + bound.steps

    compiled = torch.compile(call, backend=counter, fullgraph=True, dynamic=True)
    for steps in (5, 6, 9):
        given = {n: torch.ones(t.shape[0], steps, *t.shape[2:]) if n in "qkvb" else t for n, t in arguments().items()}
        result = compiled(**given, S=torch.ones(2, 4, 8, 3))
        assert torch.equal(result, torch.full((2, steps, 4, 8), 3.0 + steps))
    assert counter.frame_count == 1


# ---------------------------------------------------------------- packed sequences

ONE = {name: value[:1] for name, value in arguments().items() if name in "qkvb"}
"""Inputs of batch 1 and 5 steps."""


def bounds(*values: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_sequences_fit(dtype: torch.dtype) -> None:
    cu_seqlens = bounds(0, 2, 2, 5, dtype=dtype)
    start = torch.zeros(3, 4, 8, 3)
    bound = bind(PLAN, arguments(**ONE), {"S": start}, cu_seqlens=cu_seqlens)
    assert (bound.batch, bound.steps, bound.heads) == (3, 5, 4)
    assert bound.cu_seqlens is cu_seqlens and bound.initial[0] is start
    assert bind(PLAN, arguments(**{n: t[:, :0] for n, t in ONE.items()}), cu_seqlens=bounds(0)).batch == 0


def test_what_cannot_say_where_sequences_begin() -> None:
    expected = "expected int32 or int64 [N + 1]"
    cases = [
        ([0, 5], f"must be a torch.Tensor ({expected}, came list)"),
        (torch.tensor([0.0, 5.0]), f"must be of whole numbers ({expected}, came float32 [2])"),
        (torch.tensor([0, 5], dtype=torch.int16), f"must be of whole numbers ({expected}, came int16 [2])"),
    ]
    axes = f"needs one axis: where each sequence begins, and where the last one ends ({expected}, came int64 "
    cases += [(torch.tensor(5), axes + "[])"), (bounds(0, 5)[None], axes + "[1, 2])"), (bounds(), axes + "[0])")]
    for given, message in cases:
        refused(f"`cu_seqlens` {message}", cu_seqlens=given, **ONE)


def test_packed_sequences_that_others_contradict() -> None:
    refused(
        "`q` has a batch of 2: packed sequences lie in a batch of 1 (expected [B=1, T, H=4, K], came [2, 5, 4, 8])",
        cu_seqlens=bounds(0, 5),
    )
    refused(
        "`initial['S']` has a count of sequences of 1, but N = 2 by `cu_seqlens` "
        "(expected [N=2, H=4, K, V], came [1, 4, 8, 3])",
        {"S": torch.zeros(1, 4, 8, 3)},
        cu_seqlens=bounds(0, 2, 5),
        **ONE,
    )
    refused(
        "`cu_seqlens` is on another device than the inputs (expected cpu, came meta)",
        cu_seqlens=bounds(0, 5).to("meta"),
        **ONE,
    )
    closed = plan(declare(states={"S": "K"}, inputs={}))
    with pytest.raises(CallError, match="`cu_seqlens` is not taken: this recurrence has no input"):
        bind(closed, {}, {"S": torch.zeros(1, 1, 3)}, 5, bounds(0, 5))


def test_values_of_packed_sequences() -> None:
    refused("`cu_seqlens` must begin with 0 (came 1)", cu_seqlens=bounds(1, 5), **ONE)
    refused("`cu_seqlens` must begin with 0 (came -1)", cu_seqlens=bounds(-1, 5), **ONE)
    refused("`cu_seqlens` must not descend: sequence 1 goes from 4 to 3", cu_seqlens=bounds(0, 4, 3, 5), **ONE)
    for last in (4, 6):
        message = f"`cu_seqlens` must end with the length of the time axis (expected 5, came {last})"
        refused(message, cu_seqlens=bounds(0, 2, last), **ONE)
    refused(
        "`cu_seqlens` describes no sequence, but there are steps (expected [N + 1], came [1])",
        cu_seqlens=bounds(0),
        **ONE,
    )


def test_values_are_not_looked_at_where_that_would_wait() -> None:
    """On a device other than the CPU: here one that holds nothing to look at. Input checks do look."""
    meta = {name: value.to("meta") for name, value in arguments(**ONE).items()}
    assert bind(PLAN, meta, cu_seqlens=bounds(3, 1, 9).to("meta")).batch == 2
    with pytest.raises(CallError, match="must begin with 0"):
        sequences.check_values("demo", bounds(3, 1, 9), 5)
