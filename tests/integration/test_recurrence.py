"""The user's object from text to tensors."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import recurra
from recurra import BackendError, CallError, Recurrence, SpecError

DELTA = """recurrence demo
\"\"\"A decaying memory.

With more to say.\"\"\"
dims K, V
const N = 2
state S[K, V], m = -inf
input q[K], k[K], v[V], f in [0, 1]
param A init uniform(0, 1), W[V, V] init orthogonal
transition S' = f * exp(-A) * S + outer(k, v)
transition m' = max(m, f)
output o[V] = N * q @ S' @ W
output top = m'
"""
FREE = """recurrence spin
dims D
state h[D]
param U[D, D] init normal(0.5)
transition h' = tanh(U @ h)
output h_out[D] = h'
"""


@pytest.fixture(scope="module")
def rec() -> Recurrence:
    return recurra.load(DELTA)


def tensors(B: int = 2, T: int = 5, H: int = 4, K: int = 3, V: int = 6, **changes: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    given = {
        "q": draw(B, T, H, K),
        "k": draw(B, T, H, K),
        "v": draw(B, T, H, V),
        "f": draw(B, T, H),
        "A": draw(H),
        "W": draw(H, V, V),
    }
    return {**given, **changes}


def by_hand(q, k, v, f, A, W, S=None, m=None):
    B, T, H, K = q.shape
    S = torch.zeros(B, H, K, v.shape[-1], dtype=q.dtype) if S is None else S
    m = torch.full((B, H), -float("inf"), dtype=q.dtype) if m is None else m
    outputs, tops = [], []
    for t in range(T):
        decay = f[:, t] * torch.exp(-A)
        S = decay[..., None, None] * S + k[:, t, :, :, None] * v[:, t, :, None, :]
        m = torch.maximum(m, f[:, t])
        outputs.append(2 * torch.einsum("bhk,bhkv,hvw->bhw", q[:, t], S, W))
        tops.append(m)
    return torch.stack(outputs, 1), torch.stack(tops, 1), S, m


# ---------------------------------------------------------------- calling


def test_a_call_is_the_loop(rec: Recurrence) -> None:
    given = tensors()
    result, final = rec(**given, return_state=True)
    o, top, S, m = by_hand(**given)
    torch.testing.assert_close(result.o, o)
    torch.testing.assert_close(result.top, top)
    assert result._fields == ("o", "top") and list(final) == ["S", "m"]
    torch.testing.assert_close(final["S"], S)
    torch.testing.assert_close(final["m"], m)


def test_two_halves_are_the_whole(rec: Recurrence) -> None:
    given = tensors()
    whole, end = rec(**given, return_state=True)
    first = {n: t[:, :2] if t.dim() > 2 and n in "qkvf" else t for n, t in given.items()}
    second = {n: t[:, 2:] if t.dim() > 2 and n in "qkvf" else t for n, t in given.items()}
    a, state = rec(first, return_state=True)
    b, final = rec(second, initial=state, return_state=True)
    assert torch.equal(torch.cat([a.o, b.o], 1), whole.o)
    assert all(torch.equal(final[name], end[name]) for name in end)


def test_steps_are_the_whole(rec: Recurrence) -> None:
    given = tensors()
    whole, end = rec(**given, return_state=True)
    params = {name: given[name] for name in ("A", "W")}
    state = None
    for t in range(5):
        result, state = rec.step(state, **{n: given[n][:, t] for n in "qkvf"}, **params)
        torch.testing.assert_close(result.o, whole.o[:, t])
    assert all(torch.equal(state[name], end[name]) for name in end)


def test_a_step_wants_no_time_axis(rec: Recurrence) -> None:
    with pytest.raises(CallError, match=r"`q` needs 3 axes and has 4 .*one step without a time axis"):
        rec.step(None, **tensors())


def test_reverse_runs_from_the_right(rec: Recurrence) -> None:
    given = tensors()
    flipped = {n: t.flip(1) if n in "qkvf" else t for n, t in given.items()}
    backwards, state = rec(**given, reverse=True, return_state=True)
    forwards, end = rec(**flipped, return_state=True)
    torch.testing.assert_close(backwards.o, forwards.o.flip(1))
    torch.testing.assert_close(state["S"], end["S"])


def test_fewer_heads_are_shared_by_neighbours(rec: Recurrence) -> None:
    given = tensors()
    few = given["k"][:, :, :2]
    spread = few.repeat_interleave(2, 2)
    assert torch.equal(rec({**given, "k": few}).o, rec({**given, "k": spread}).o)


@pytest.mark.parametrize("T", [0, 1])
def test_short_sequences(rec: Recurrence, T: int) -> None:
    result, final = rec(**tensors(T=T), return_state=True)
    assert result.o.shape == (2, T, 4, 6) and result.top.shape == (2, T, 4)
    if T == 0:
        assert torch.equal(final["S"], torch.zeros(2, 4, 3, 6).double())
        assert (final["m"] == -float("inf")).all()


def test_dtypes_of_results(rec: Recurrence) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        result, final = rec({n: t.to(dtype) for n, t in tensors().items()}, return_state=True)
        assert result.o.dtype == dtype and final["S"].dtype == torch.float32
    assert rec(**tensors()).o.dtype == torch.float64


def test_gradients_flow(rec: Recurrence) -> None:
    given = {n: t.requires_grad_() for n, t in tensors(T=3).items()}
    start = {"S": torch.rand(2, 4, 3, 6, dtype=torch.float64, requires_grad=True)}
    rec(**given, initial=start).o.sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (*given.values(), *start.values()))


def test_one_output_comes_bare_and_no_inputs_need_steps() -> None:
    free = recurra.load(FREE)
    params = free.init_params(heads=2, D=3, generator=torch.Generator().manual_seed(1))
    start = {"h": torch.ones(4, 2, 3)}
    outputs = free(params, initial=start, steps=6)
    assert outputs.shape == (4, 6, 2, 3)
    expected = torch.tanh(torch.einsum("hij,bhj->bhi", params["U"], start["h"]))
    torch.testing.assert_close(outputs[:, 0], expected)
    after, state = free.step(start, params)
    torch.testing.assert_close(after, expected)
    torch.testing.assert_close(state["h"], expected)
    with pytest.raises(CallError, match="`steps` is missing"):
        free(params, initial=start)


def test_names_that_are_options_go_into_the_mapping() -> None:
    spec = "recurrence clash\nstate h\ninput steps, check\ntransition h' = h + steps * check\noutput backend = h'\n"
    clash = recurra.load(spec)
    given = {"steps": torch.ones(1, 3, 1), "check": torch.full((1, 3, 1), 2.0)}
    assert clash(given)[0, :, 0].tolist() == [2.0, 4.0, 6.0]
    with pytest.raises(CallError, match="given twice"):
        recurra.load(FREE)({"U": torch.ones(1, 2, 2)}, U=torch.ones(1, 2, 2))
    with pytest.raises(CallError, match="takes tensors by name"):
        clash(torch.ones(1, 3, 1))


def test_input_checks(rec: Recurrence) -> None:
    given = tensors()
    given["f"][0, 0, 0] = 2.0
    rec(**given)
    with pytest.raises(CallError, match=r"demo: `f` leaves the promised range \[0, 1\]: 2 at \[0, 0, 0\]"):
        rec(**given, check=True)
    with recurra.check_inputs(True), pytest.raises(CallError):
        rec(**given)
    with recurra.check_inputs(True):
        rec(**given, check=False)


def test_errors_name_the_spec(rec: Recurrence) -> None:
    with pytest.raises(CallError, match=r"^demo: `v` is missing"):
        rec({n: t for n, t in tensors().items() if n != "v"})
    with pytest.raises(ValueError, match="no backend 'tritn'; did you mean 'triton'"):
        rec(**tensors(), backend="tritn")
    with pytest.raises(ValueError, match="no strategy 'chunky'"):
        rec(**tensors(), strategy="chunky")
    with pytest.raises(BackendError, match=r"demo: backend 'triton' cannot run this: .*float64"):
        rec(**tensors(), backend="triton")


def test_compiles_whole(rec: Recurrence) -> None:
    given = {n: t.float() for n, t in tensors(T=3).items()}
    compiled = torch.compile(lambda **t: rec(**t).o, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**given), rec(**given).o)


@pytest.mark.parametrize("strategy", ["auto", "recurrent", "stepwise"])
def test_generated_kernels_are_the_loop(rec: Recurrence, strategy: str) -> None:
    given = {n: t.float() for n, t in tensors(K=4, V=8, T=3).items()}
    result, final = rec(**given, backend="triton", strategy=strategy, return_state=True)
    expected, end = rec(**given, backend="reference", return_state=True)
    torch.testing.assert_close(result.o, expected.o, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(final["S"], end["S"], rtol=1e-5, atol=1e-5)


def test_generated_kernels_compile_whole(rec: Recurrence) -> None:
    given = {n: t.float() for n, t in tensors(K=4, V=8, T=3).items()}
    compiled = torch.compile(
        lambda **t: rec(**t, backend="triton").o, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(**given), rec(**given).o)


# ---------------------------------------------------------------- starts


def test_start_states(rec: Recurrence) -> None:
    start = rec.initial(2, heads=4, K=3, V=6, dtype=torch.float64)
    assert start["S"].shape == (2, 4, 3, 6) and not start["S"].any()
    assert start["m"].shape == (2, 4) and (start["m"] == -float("inf")).all()
    start["S"] += 1  # its own memory
    given = tensors()
    assert torch.equal(rec(**given, initial=rec.initial(2, 4, K=3, V=6, dtype=torch.float64)).o, rec(**given).o)


def test_start_params(rec: Recurrence) -> None:
    draws = [rec.init_params(heads=4, V=6, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert {n: tuple(t.shape) for n, t in draws[0].items()} == {"A": (4,), "W": (4, 6, 6)}
    assert all(torch.equal(draws[0][n], draws[1][n]) for n in draws[0])


def test_sizes_must_be_sizes(rec: Recurrence) -> None:
    with pytest.raises(CallError, match="demo: `Q` is no dimension; there are: K, V"):
        rec.initial(1, Q=3)
    with pytest.raises(CallError, match="whole number >= 1"):
        rec.initial(1, K=0, V=2)
    with pytest.raises(CallError, match="`S` needs the size V"):
        rec.initial(1, K=2)


# ---------------------------------------------------------------- looking at it


def test_says_what_it_is(rec: Recurrence) -> None:
    assert repr(rec) == (
        "<Recurrence demo: states(S[K, V], m) inputs(q[K], k[K], v[V], f) params(A, W[V, V]) outputs(o[V], top)>"
    )
    assert dict(rec.inputs) == {"q": ("K",), "k": ("K",), "v": ("V",), "f": ()}
    assert (rec.name, rec.dims, dict(rec.consts)) == ("demo", ("K", "V"), {"N": 2})
    page = rec._repr_html_()
    assert "A decaying memory." in page and "S[K, V]" in page and "$$" in page
    assert r"S_{t} &= f_{t} \, \exp\left(-A\right) \, S_{t-1} + k_{t} \, v_{t}^\top" in rec._repr_latex_()


def test_explains_itself(rec: Recurrence) -> None:
    explanation = rec.explain("cpu", K=32)
    text = str(explanation)
    assert text.startswith("demo\n  A decaying memory.")
    assert "K=32, V=64" in text and "backend      cpu on cpu" in text
    assert explanation.data["backend"]["refused"].keys() == {"triton"}
    assert explanation._repr_html_().startswith("<pre>")


def test_shows_its_source(rec: Recurrence) -> None:
    assert "@triton.jit" in rec.source("triton", K=16, V=16)
    with pytest.raises(ValueError, match="backend 'reference' generates no code"):
        rec.source("reference")


def test_exact_trajectory() -> None:
    trajectory = recurra.load(FREE).symbolic(steps=1, initial=["h"], D=1)
    assert str(trajectory.outputs["h_out"][0][(0,)]) == "tanh(U_0_0*h_0)"


# ---------------------------------------------------------------- as a value


def test_pickles_and_copies(rec: Recurrence, tmp_path: Path) -> None:
    other = recurra.load(DELTA, N=3)
    for item in (rec, other):
        again = pickle.loads(pickle.dumps(item))
        assert again == item and torch.equal(again(**tensors()).o, item(**tensors()).o)
        assert copy.copy(item) is item and copy.deepcopy({"a": item})["a"] is item
    assert rec != other and len({rec, other, recurra.load(DELTA)}) == 2
    torch.testing.assert_close(rec(**tensors()).o * 3, other(**tensors()).o * 2)


def test_loads_files_and_refuses_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "demo.rec"
    path.write_text(DELTA)
    assert recurra.load(path) == recurra.load(str(path)) == recurra.load(DELTA)
    with pytest.raises(FileNotFoundError, match=r"gone\.rec"):
        recurra.load(tmp_path / "gone.rec")
    with pytest.raises(IsADirectoryError):
        recurra.load(tmp_path)
    path.write_bytes(b"recurrence x\0")
    with pytest.raises(ValueError, match="binary file"):
        recurra.load(path)


def test_all_mistakes_of_a_text_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        recurra.load("recurrence x\nstate h\ninput a\ntransition h' = h + aa\noutput o = hh\n")
    assert len(caught.value.diagnostics) == 2 and "<text>:4:" in str(caught.value)


def test_threads_share_it(rec: Recurrence) -> None:
    given, results = tensors(), []
    expected = rec(**given).o
    threads = [threading.Thread(target=lambda: results.append(rec(**given).o)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(result, expected) for result in results)
