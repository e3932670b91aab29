"""One step of every zoo recurrence in plain PyTorch, written from the papers' formulas and not from the `.rec` files.

A step takes the inputs of one time step ``[B, H, *axes]``, the params ``[H, *axes]`` and the states
``[B, H, *axes]``, each as an attribute, and returns the new states and the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as Names

import torch
from torch import Tensor, exp, log, sigmoid, softmax, sqrt, tanh
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


def times(scalar: Tensor, matrix: Tensor) -> Tensor:
    return scalar[..., None, None] * matrix


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


def mamba2(x, p, s):
    d = softplus(x.dt + p.dt_bias)
    S = times(exp(-exp(p.A_log) * d), s.S) + times(d, outer(x.B, x.x))
    return {"S": S}, {"y": row(x.C, S) + p.D[:, None] * x.x}


def mamba_neg(x, p, s):
    d = softplus(x.dt + p.dt_bias)
    h = (2 * exp(-exp(p.A_log) * d[..., None]) - 1) * s.h + outer(d * x.x, x.B)
    return {"h": h}, {"y": col(h, x.C) + p.D_skip * x.x}


def mamba3_siso(x, p, s):
    """The state turns instead of keys and queries: S' = alpha R S + writes, one complex number a pair.

    The states of the file are those of the frame that turns along: R(angle) of the ones here.
    """
    pairs, d, share = x.theta.shape[-1], softplus(x.dt + p.dt_bias), sigmoid(x.trap)
    alpha = exp(-softplus(x.a) * d)

    def rms(z):
        return z / sqrt((z * z).mean(-1, keepdim=True) + 1e-6)

    def complex_of(z, axis):
        first, second = z.split(pairs, axis)
        return torch.complex(first, second)

    def real_of(z, axis):
        return torch.cat([z.real, z.imag], axis)

    angle = s.angle + d[..., None] * x.theta
    back, phase = (torch.polar(torch.ones_like(s.angle), t) for t in (-s.angle, angle))
    S, k = back[..., None] * complex_of(s.S, -2), back * complex_of(s.k, -1)  # in the frame of the pairs
    B, C = complex_of(rms(x.B) + p.B_bias, -1), complex_of(rms(x.C) + p.C_bias, -1)
    turn = torch.polar(torch.ones_like(x.theta), -d[..., None] * x.theta)  # the one of this step alone
    S = times(alpha, turn[..., None] * (S + times((1 - share) * d, k[..., None] * s.v[..., None, :])))
    S = S + times(share * d, B[..., None] * x.x[..., None, :])
    y = (C.conj()[..., None] * S).real.sum(-2) + p.D[:, None] * x.x
    states = {"S": real_of(phase[..., None] * S, -2), "k": real_of(phase * B, -1), "v": x.x, "angle": angle}
    return states, {"y": y}


def hgrn2(x, p, s):
    a = p.lower + (1 - p.lower) * sigmoid(x.f)
    S = a[..., None] * s.S + outer(1 - a, x.v)
    return {"S": S}, {"o": row(x.q, S)}


def mingru(x, p, s):
    z = sigmoid(x.z)
    h = (1 - z) * s.h + z * x.x
    return {"h": h}, {"o": h}


def rg_lru(x, p, s):
    a = exp(-8 * softplus(p.L) * sigmoid(x.r))
    h = a * s.h + sqrt(1 - a * a) * (sigmoid(x.i) * x.x)
    return {"h": h}, {"o": h}


def lru(x, p, s):
    eigenvalue = exp(torch.complex(-exp(p.nu), exp(p.theta)))
    drive = sqrt(1 - eigenvalue.abs() ** 2) * col(torch.complex(p.B_re, p.B_im), x.u + 0j)
    h = eigenvalue * torch.complex(s.hr, s.hi) + drive
    y = col(torch.complex(p.C_re, p.C_im), h).real + p.D_skip * x.u
    return {"hr": h.real, "hi": h.imag}, {"y": y}


def s4d(x, p, s):
    A = torch.complex(p.A_re, p.A_im)
    held = exp(exp(p.dt_log)[:, None] * A)
    h = held * torch.complex(s.hr, s.hi) + (held - 1) / A * x.u[..., None]
    y = 2 * (torch.complex(p.C_re, p.C_im) * h).sum(-1).real + p.D_skip * x.u
    return {"hr": h.real, "hi": h.imag}, {"y": y}


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


def gdn2(x, p, s):
    kn = l2norm(x.k)
    decayed = exp(-softplus(x.g))[..., None] * s.S
    S = decayed + outer(kn, sigmoid(x.wb) * x.v - row(sigmoid(x.eb) * kn, decayed))
    return {"S": S}, {"o": row(scaled(l2norm(x.q)), S)}


def comba(x, p, s):
    error = x.beta[..., None] * (x.v - row(l2norm(x.p), s.S))
    S = times(x.alpha, s.S) + outer(l2norm(x.k), error)
    return {"S": S}, {"o": row(scaled(l2norm(x.q)), S)}


def iplr(x, p, s):
    full = torch.eye(x.a.shape[-1], dtype=x.a.dtype) + outer(x.b, x.a)
    S = full @ s.S + outer(x.k, x.v)
    return {"S": S}, {"o": row(scaled(x.q), S)}


def oja(x, p, s):
    vn = l2norm(x.v)
    decayed = s.S * exp(-softplus(x.g))[..., None, :]
    S = decayed + times(x.beta, outer(x.k - col(decayed, vn), vn))
    return {"S": S}, {"o": row(x.q, S)}


def longhorn(x, p, s):
    beta = sigmoid(x.b) / (1 + sigmoid(x.b) * (x.k * x.k).sum(-1))
    S = erase(s.S, x.k, beta) + times(beta, outer(x.k, x.v))
    return {"S": S}, {"o": row(scaled(x.q), S)}


def momentum_delta(x, p, s):
    kn = l2norm(x.k)
    M = times(x.eta, s.M) + times(x.beta, outer(kn, x.v - row(kn, s.S)))
    S = times(x.alpha, s.S) + M
    return {"S": S, "M": M}, {"o": row(scaled(l2norm(x.q)), S)}


def rwkv4(x, p, s):
    """The sums themselves, without a maximum: num, den in units of exp(mx)."""
    num, den = exp(s.mx) * s.num, exp(s.mx) * s.den
    o = (num + exp(p.u + x.k) * x.v) / (den + exp(p.u + x.k))
    keep = exp(-exp(p.w))
    num, den = keep * num + exp(x.k) * x.v, keep * den + exp(x.k)
    mx = torch.maximum(log(keep) + s.mx, x.k)
    return {"num": num / exp(mx), "den": den / exp(mx), "mx": mx}, {"o": o}


def gsa(x, p, s):
    alpha = exp(logsigmoid(x.g) / 8)
    Sk = s.Sk * alpha[..., None, :] + outer(x.k, x.s)
    Sv = alpha[..., None] * s.Sv + outer(x.s, x.v)
    return {"Sk": Sk, "Sv": Sv}, {"o": row(softmax(row(scaled(x.q), Sk), -1), Sv)}


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
        *(mamba2, mamba_neg, mamba3_siso, hgrn2, mingru, rg_lru, lru, s4d),
        *(gdn2, comba, iplr, oja, longhorn, momentum_delta, rwkv4, gsa),
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
