"""What peers are given, against the formulas by which their library documents its functions, in float64."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType

import pytest
import torch
from torch import Tensor
from unit.bench.scripts import script

import recurra
from recurra.runtime import reference
from recurra.runtime.bench.data import draw_arguments
from recurra.runtime.bench.shape import Shape

B, T, H, K, V = 2, 7, 3, 5, 4
fla = script("peers.fla")
ZOO = script("ways").ZOO


def unit(x: Tensor) -> Tensor:
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def walk(q: Tensor, v: Tensor, step) -> Tensor:
    """Outputs of a state [B, H, K, V] that ``step(state, t)`` moves on."""
    state = torch.zeros(B, H, q.shape[-1], v.shape[-1], dtype=q.dtype)
    outputs = []
    for t in range(q.shape[1]):
        state = step(state, t)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1)


def outer(k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhk,bhv->bhkv", k, v)


def read(k: Tensor, state: Tensor) -> Tensor:
    return torch.einsum("bhk,bhkv->bhv", k, state)


def delta(state: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    return state + outer(beta[..., None] * k, v - read(k, state))


def chunk_gla(q, k, v, g):
    return walk(K**-0.5 * q, v, lambda S, t: g[:, t].exp()[..., None] * S + outer(k[:, t], v[:, t]))


def chunk_delta_rule(q, k, v, beta, use_qk_l2norm_in_kernel):
    assert use_qk_l2norm_in_kernel
    return walk(K**-0.5 * unit(q), v, lambda S, t: delta(S, unit(k)[:, t], v[:, t], beta[:, t]))


def chunk_gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel):
    assert use_qk_l2norm_in_kernel
    decay = g.exp()[..., None, None]
    return walk(K**-0.5 * unit(q), v, lambda S, t: delta(decay[:, t] * S, unit(k)[:, t], v[:, t], beta[:, t]))


def chunk_kda(q, k, v, g, beta, use_qk_l2norm_in_kernel):
    assert use_qk_l2norm_in_kernel
    decay = g.exp()[..., None]
    return walk(K**-0.5 * unit(q), v, lambda S, t: delta(decay[:, t] * S, unit(k)[:, t], v[:, t], beta[:, t]))


def chunk_rwkv7(r, w, k, v, a, b, scale, safe_gate, lower_bound, chunk_size):
    assert scale == 1.0 and safe_gate and w.min() >= lower_bound
    decay = w.exp()[..., None]

    def step(S: Tensor, t: int) -> Tensor:
        return decay[:, t] * S + outer(b[:, t], read(a[:, t], S)) + outer(k[:, t], v[:, t])

    return walk(r, v, step)


def chunk_gated_delta_product(q, k, v, g, beta, num_householder):
    assert k.shape == (B, T * num_householder, H, K)

    def step(S: Tensor, t: int) -> Tensor:
        S = g[:, t].exp()[..., None, None] * S
        for j in range(t * num_householder, (t + 1) * num_householder):
            S = delta(S, k[:, j], v[:, j], beta[:, j])
        return S

    return walk(K**-0.5 * q, v, step)


FORMULAS = {f.__name__: f for f in (
    chunk_gla, chunk_delta_rule, chunk_gated_delta_rule, chunk_kda, chunk_rwkv7, chunk_gated_delta_product,
)}  # fmt: skip


@pytest.mark.parametrize("name", fla.PEERS)
def test_peers_do_the_same_work(name, monkeypatch):
    peer = fla.PEERS[name]
    module, formula = ModuleType(peer.module), FORMULAS[peer.function]
    monkeypatch.setitem(sys.modules, peer.module, module)
    program = recurra.load(ZOO / f"{name}.rec").program
    sizes = {"K": K, "V": V}
    drawn = draw_arguments(program, Shape(B, T, H, sizes), torch.float32, torch.device("cpu"))
    outputs, _ = reference.run(program, sizes, drawn.inputs, drawn.params, {}, steps=T)
    given = peer.arguments({**drawn.inputs, **drawn.params}, torch.float32)
    assert all(value.requires_grad and value.is_contiguous() for value in given.values())
    arguments = {key: value.detach().double() for key, value in given.items()}

    @wraps(formula)
    def function(**everything: object) -> tuple[Tensor, None]:
        return formula(**everything), None

    setattr(module, peer.function, function)
    (output,) = peer.run(arguments)
    torch.testing.assert_close(output, outputs[0].double(), rtol=1e-4, atol=1e-5)


def test_types_are_those_of_the_library_s_layers():
    inputs = {"q": torch.rand(1, 2, 1, 3), "k": torch.rand(1, 2, 1, 3), "v": torch.rand(1, 2, 1, 3)}
    gla = {**inputs, "g": torch.rand(1, 2, 1, 3)}
    rounded = fla.PEERS["gla"].arguments(gla, torch.bfloat16)
    assert {value.dtype for value in rounded.values()} == {torch.bfloat16}
    exact = fla.PEERS["gla"].arguments(gla, torch.bfloat16, exact=True)
    assert exact["g"].dtype == torch.float32 and exact["q"].dtype == torch.bfloat16
    params = {"A_log": torch.rand(1), "dt_bias": torch.rand(1)}
    scalars = {**inputs, **params, "a": torch.rand(1, 2, 1), "b": torch.rand(1, 2, 1)}
    scalar = fla.PEERS["gated_delta_net"].arguments(scalars, torch.bfloat16)
    assert scalar["g"].dtype == torch.float32 and scalar["beta"].dtype == torch.bfloat16


def test_settings_that_a_version_does_not_know_are_left_out(monkeypatch):
    module = ModuleType("fla.ops.delta_rule")
    module.chunk_delta_rule = lambda q, k, v, beta: (q, None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fla.ops.delta_rule", module)
    q = torch.rand(2)
    assert fla.PEERS["delta_net"].run({"q": q, "k": q, "v": q, "beta": q})[0] is q
