"""One step of every zoo recurrence in plain PyTorch, written from the papers' formulas and not from the `.rec` files.

A step takes the inputs of one time step ``[B, H, *axes]``, the params ``[H, *axes]`` and the states
``[B, H, *axes]``, each as an attribute, and returns the new states and the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as Names

import torch
from torch import Tensor, exp, sigmoid, tanh
from torch.nn.functional import logsigmoid, relu, softplus

Step = Callable[[Names, Names, Names], tuple[dict[str, Tensor], dict[str, Tensor]]]


def outer(left: Tensor, right: Tensor) -> Tensor:
    return left[..., :, None] * right[..., None, :]


def row(vector: Tensor, matrix: Tensor) -> Tensor:
    """vector^T matrix"""
    return torch.einsum("...k,...kv->...v", vector, matrix)


def col(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix vector"""
    return torch.einsum("...ij,...j->...i", matrix, vector)


def l2norm(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def scaled(q: Tensor) -> Tensor:
    return q / q.shape[-1] ** 0.5


def erase(matrix: Tensor, key: Tensor, beta: Tensor) -> Tensor:
    """(I - beta key key^T) matrix, the Householder-like factor built in full."""
    full = torch.eye(key.shape[-1], dtype=key.dtype) - beta[..., None, None] * outer(key, key)
    return full @ matrix


def linear_attention(x, p, s):
    S = s.S + outer(x.k, x.v)
    return {"S": S}, {"o": row(scaled(x.q), S)}


def retnet(x, p, s):
    S = exp(p.log_gamma)[:, None, None] * s.S + outer(x.k, x.v)
    return {"S": S}, {"o": row(scaled(x.q), S)}


def gla(x, p, s):
    S = exp(logsigmoid(x.g) / 16)[..., None] * s.S + outer(x.k, x.v)
    return {"S": S}, {"o": row(scaled(x.q), S)}


def mamba(x, p, s):
    d = softplus(x.dt + p.dt_bias)
    h = exp(-exp(p.A_log) * d[..., None]) * s.h + outer(d * x.x, x.B)
    return {"h": h}, {"y": col(h, x.C) + p.D_skip * x.x}


def hgrn(x, p, s):
    h = sigmoid(x.f) * s.h + (1 - sigmoid(x.f)) * x.i
    return {"h": h}, {"o": h}


def rwkv6(x, p, s):
    seen = s.S + outer(p.u * x.k, x.v)
    return {"S": exp(-exp(x.w))[..., None] * s.S + outer(x.k, x.v)}, {"o": row(x.r, seen)}


def delta_net(x, p, s):
    kn, qn = l2norm(x.k), l2norm(x.q)
    S = erase(s.S, kn, x.beta) + x.beta[..., None, None] * outer(kn, x.v)
    return {"S": S}, {"o": row(scaled(qn), S)}


def gated_delta_net(x, p, s):
    kn, qn = l2norm(x.k), l2norm(x.q)
    alpha, beta = exp(-exp(p.A_log) * softplus(x.a + p.dt_bias)), 2 * sigmoid(x.b)
    S = alpha[..., None, None] * erase(s.S, kn, beta) + beta[..., None, None] * outer(kn, x.v)
    return {"S": S}, {"o": row(scaled(qn), S)}


def gated_delta_product(x, p, s):
    S = x.alpha[..., None, None] * s.S
    for j in range(x.k.shape[-2]):
        k, v, beta = x.k[..., j, :], x.v[..., j, :], x.beta[..., j]
        S = erase(S, k, beta) + beta[..., None, None] * outer(k, v)
    return {"S": S}, {"o": row(scaled(x.q), S)}


def kda(x, p, s):
    kn, qn, beta = l2norm(x.k), l2norm(x.q), sigmoid(x.b)
    a = exp(-exp(p.A_log)[:, None] * softplus(x.g + p.dt_bias))
    S = erase(a[..., None] * s.S, kn, beta) + beta[..., None, None] * outer(kn, x.v)
    return {"S": S}, {"o": row(scaled(qn), S)}


def rwkv7(x, p, s):
    kh = l2norm(x.kappa)
    decayed = exp(-0.60653066 * sigmoid(x.w))[..., None] * s.S
    S = decayed - outer(kh * sigmoid(x.a), row(kh, s.S)) + outer(x.k, x.v)
    return {"S": S}, {"o": row(x.r, S)}


def m2rnn(x, p, s):
    f = exp(-exp(p.A_log) * softplus(x.x + p.dt_bias))[..., None, None]
    S = f * s.S + (1 - f) * tanh(s.S @ p.W + outer(x.k, x.v))
    return {"S": S}, {"o": row(x.q, S)}


def ndm(x, p, s):
    S = tanh(x.d[..., None, None] * s.S + outer(x.k, x.v - row(x.k, s.S)))
    return {"S": S}, {"o": row(x.q, S)}


def elman(x, p, s):
    h = tanh(x.x + col(p.U, s.h) + p.b)
    return {"h": h}, {"o": h}


def gru(x, p, s):
    r, z = sigmoid(x.xr + col(p.Ur, s.h)), sigmoid(x.xz + col(p.Uz, s.h))
    h = (1 - z) * tanh(x.xn + r * (col(p.Un, s.h) + p.bn)) + z * s.h
    return {"h": h}, {"o": h}


def lstm(x, p, s):
    i, f = sigmoid(x.xi + col(p.Ui, s.h)), sigmoid(x.xf + col(p.Uf, s.h))
    g, o = tanh(x.xg + col(p.Ug, s.h)), sigmoid(x.xo + col(p.Uo, s.h))
    c = f * s.c + i * g
    h = o * tanh(c)
    return {"h": h, "c": c}, {"y": h}


def slstm(x, p, s):
    zi, zf = x.zi + col(p.Ri, s.y), x.zf + col(p.Rf, s.y)
    zz, zo = x.zz + col(p.Rz, s.y), x.zo + col(p.Ro, s.y)
    lf = s.m + logsigmoid(zf)
    m = torch.maximum(zi, lf)
    c = exp(lf - m) * s.c + exp(zi - m) * tanh(zz)
    n = exp(lf - m) * s.n + exp(zi - m)
    y = sigmoid(zo) * c / n
    return {"y": y, "c": c, "n": n, "m": m}, {"o": y}


def mlstm(x, p, s):
    lf = logsigmoid(x.f) + s.m
    m = torch.maximum(lf, x.i)
    keep, write = exp(lf - m), exp(x.i - m)
    C = keep[..., None, None] * s.C + write[..., None, None] * outer(x.k, x.v)
    n = keep[..., None] * s.n + write[..., None] * x.k
    q = scaled(x.q)
    norm = torch.maximum((q * n).sum(-1).abs(), exp(-m))
    return {"C": C, "n": n, "m": m}, {"h": row(q, C) / norm[..., None]}


def alrnn(x, p, s):
    phi = torch.cat([s.z[..., :-2], relu(s.z[..., -2:])], -1)
    z = p.A * s.z + col(p.W, phi) + p.h
    return {"z": z}, {"o": z[..., :3]}


def esn(x, p, s):
    h = 0.7 * s.h + 0.3 * tanh(col(p.W, s.h) + col(p.Win, x.u))
    return {"h": h}, {"o": h}


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        *(linear_attention, retnet, gla, mamba, hgrn, rwkv6, delta_net, gated_delta_net, gated_delta_product),
        *(kda, rwkv7, m2rnn, ndm, elman, gru, lstm, slstm, mlstm, alrnn, esn),
    )
}
STEPS["delta_net_neg"] = delta_net


def run(
    step: Step,
    inputs: dict[str, Tensor],
    params: dict[str, Tensor],
    states: dict[str, Tensor],
    length: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs ``[B, T, H, *axes]`` and final states of ``length`` steps; states are the start."""
    outputs: list[dict[str, Tensor]] = []
    for t in range(length):
        now = Names(**{name: value[:, t] for name, value in inputs.items()})
        states, output = step(now, Names(**params), Names(**states))
        outputs.append(output)
    return {name: torch.stack([o[name] for o in outputs], 1) for name in outputs[0]}, states
